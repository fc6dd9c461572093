//! A server's metrics, as a list: each crate writes one, from which its counters, their snapshot, the status response,
//! `/metrics`, the alert rules in `deploy/prometheus` and the checks of the dashboards are generated.
//!
//! Guarantee: whether a counter is a loss, and what to do about it, is stated in the list and nowhere else.

use serde::Serialize;
use utoipa::ToSchema;

/// Kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Counter: only grows, from zero at process start.
    Counter,
    /// Gauge: goes up and down.
    Gauge,
    /// Histogram.
    Histogram,
}

impl Kind {
    /// Its name in OpenMetrics.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// Unit of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

impl Unit {
    fn suffix(self) -> &'static str {
        match self {
            Unit::Count => "",
            Unit::Bytes => "_bytes",
            Unit::Seconds => "_seconds",
        }
    }
}

/// A condition on a label: its value is one of these (or none of them).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// The label.
    pub label: &'static str,
    /// The values; for an excluding condition, the excluded ones.
    pub values: &'static [&'static str],
    /// Whether the values are excluded.
    pub excludes: bool,
}

impl Condition {
    /// The label has one of these values.
    pub const fn is(label: &'static str, values: &'static [&'static str]) -> Condition {
        Condition {
            label,
            values,
            excludes: false,
        }
    }

    /// The label has none of these values.
    pub const fn is_not(label: &'static str, values: &'static [&'static str]) -> Condition {
        Condition {
            label,
            values,
            excludes: true,
        }
    }

    /// Whether a value satisfies the condition.
    pub fn holds(&self, value: &str) -> bool {
        self.values.contains(&value) != self.excludes
    }
}

/// Why growth of a counter matters to an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// Conditions that select series of the family; all series if empty.
    pub of: &'static [Condition],
    /// Stored data is lost, or an alert did not reach its receiver; otherwise a failure that is retried or was reported
    /// to the sender.
    pub is_final: bool,
    /// What to do about it.
    pub remedy: &'static str,
}

impl Loss {
    /// Data is permanently lost.
    pub const fn lost(remedy: &'static str) -> Option<Loss> {
        Some(Loss {
            of: &[],
            is_final: true,
            remedy,
        })
    }

    /// Something failed.
    pub const fn failed(remedy: &'static str) -> Option<Loss> {
        Some(Loss {
            of: &[],
            is_final: false,
            remedy,
        })
    }

    /// Only for some series of the family.
    pub const fn only(loss: Option<Loss>, of: &'static [Condition]) -> Option<Loss> {
        match loss {
            Some(loss) => Some(Loss { of, ..loss }),
            None => None,
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its full name, without a counter's `_total`.
    pub name: &'static str,
    /// What it counts, in one line.
    pub help: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its unit.
    pub unit: Unit,
    /// What its growth means, if it indicates a loss.
    pub loss: Option<Loss>,
}

impl Metric {
    /// The name of its samples in `/metrics`.
    pub fn sample_name(&self) -> String {
        match self.kind {
            Kind::Counter => format!("{}_total", self.name),
            Kind::Gauge | Kind::Histogram => self.name.to_owned(),
        }
    }

    /// The name without its unit, if it ends with one: encoders add the unit themselves.
    pub fn stem(&self) -> (&'static str, Option<Unit>) {
        match self.name.strip_suffix(self.unit.suffix()) {
            Some(stem) if self.unit != Unit::Count => (stem, Some(self.unit)),
            _ => (self.name, None),
        }
    }
}

/// Losses of one kind since process start, for the status response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LossCount {
    /// Name of the metric, without `_total`.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
    /// What it is counted in.
    pub unit: Unit,
    /// How many.
    pub count: u64,
}

impl LossCount {
    /// For a metric whose growth is a loss.
    pub fn of(metric: &Metric, count: u64) -> Option<LossCount> {
        metric.loss.map(|loss| LossCount {
            name: metric.name,
            help: metric.help,
            remedy: loss.remedy,
            unit: metric.unit,
            count,
        })
    }
}
