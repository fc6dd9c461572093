//! What a comparison says in one sentence.
//!
//! Guarantees: amounts stand in the unit of what is compared, and what is compared is named; where nothing can be divided, the
//! sentence says which signal is missing and what to do.

use emberline_model::{
    ProfileType,
    alert::GuiltyFunction,
    comparison::{Judgement, Per, SideSummary},
    coverage::{JoinedBy, Missing},
};

use crate::change::CostComparison;

/// Nanoseconds with the unit that reads best.
pub fn format_ns(ns: f64) -> String {
    let size = ns.abs();
    match size {
        _ if size >= 1e9 => format!("{:.2} s", ns / 1e9),
        _ if size >= 1e6 => format!("{:.2} ms", ns / 1e6),
        _ if size >= 1e3 => format!("{:.1} µs", ns / 1e3),
        _ => format!("{ns:.0} ns"),
    }
}

/// An amount in a unit as people read it.
pub fn format_amount(value: f64, unit: &str) -> String {
    let size = value.abs();
    match unit {
        "nanoseconds" => format_ns(value),
        "bytes" if size >= 1e9 => format!("{:.2} GB", value / 1e9),
        "bytes" if size >= 1e6 => format!("{:.2} MB", value / 1e6),
        "bytes" if size >= 1e3 => format!("{:.2} kB", value / 1e3),
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}

/// Why a side has no cost, and what to do; `None` when it has one.
fn missing(side: &SideSummary, per: Per) -> Option<String> {
    let version = &side.version;
    let profiles = || {
        format!(
            "{version} sent no profile of this type in this range; send some under the same service and version, or choose a longer range"
        )
    };
    let requests = || {
        format!(
            "{version} sent no requests in this range; put a proxy in front of it, or send `http.server.request.duration` under the same service and version; or compare per second (`per=second`)"
        )
    };
    match (side.coverage.missing, per) {
        (Some(Missing::Profiles | Missing::Both), _) => Some(profiles()),
        (_, Per::Second | Per::Total) => None,
        (Some(Missing::Requests), Per::Request) => Some(requests()),
        (Some(Missing::SameTime), Per::Request) => Some(format!(
            "{version} sent requests and profiles, but never for the same time{}; choose a longer range, or compare per second (`per=second`)",
            match side.coverage.joined_by {
                JoinedBy::Instance => " for one instance",
                JoinedBy::Release => "",
            }
        )),
        (None, Per::Request) if side.divisor <= 0.0 => Some(format!(
            "{version} served no requests in the {} s that both signals cover; choose a longer range, or compare per second (`per=second`)",
            side.coverage.covered_s
        )),
        (None, Per::Request) => None,
    }
}

pub(crate) struct Sentence<'a> {
    pub(crate) profile_type: &'a ProfileType,
    pub(crate) per: Per,
    /// Route both sides are restricted to.
    pub(crate) route: Option<&'a str>,
    /// No stacks carry that route.
    pub(crate) whole_service: bool,
    pub(crate) change: &'a CostComparison,
    pub(crate) guilty: Option<&'a GuiltyFunction>,
    /// What a growth is spread over.
    pub(crate) spread: Option<&'a str>,
}

impl Sentence<'_> {
    pub(crate) fn write(&self, baseline: &SideSummary, candidate: &SideSummary) -> String {
        let [name, sample_type, unit, ..] = self.profile_type.parts();
        let what = match (name == "process_cpu" && sample_type == "cpu", name == sample_type) {
            (true, _) => "CPU".to_owned(),
            (false, true) => name.to_owned(),
            (false, false) => format!("{name} {sample_type}"),
        };
        let per = match self.per {
            _ if self.profile_type.is_gauge() => format!("{what} on average"),
            Per::Request => format!("{what} per request"),
            Per::Second => format!("{what} per second"),
            Per::Total => format!("total {what}"),
        };
        let place = self
            .route
            .map(|route| match self.whole_service {
                true => format!(" of the whole service (no stacks carry {route})"),
                false => format!(" on {route}"),
            })
            .unwrap_or_default();
        let missing: Vec<String> = [baseline, candidate]
            .into_iter()
            .filter_map(|side| missing(side, self.per))
            .collect();
        if !missing.is_empty() {
            return format!("{per}{place} cannot be compared: {}.", missing.join("; "));
        }
        let (before, after) = (
            format_amount(self.change.baseline.rate, unit),
            format_amount(self.change.candidate.rate, unit),
        );
        match self.change.judgement() {
            Judgement::TooFewSamples => format!(
                "Too few samples to judge{place}: {} of {} and {} of {}. Widen the range or wait for more windows.",
                baseline.samples, baseline.version, candidate.samples, candidate.version
            ),
            Judgement::NoChange => format!(
                "No significant change in {per}{place}: {before} and {after} (difference between {} and {}){}.",
                signed(self.change.low, unit),
                signed(self.change.high, unit),
                self.cause(unit)
            ),
            Judgement::Changed => {
                let ratio = self.change.ratio().map(|r| format!(", ×{r:.2}")).unwrap_or_default();
                format!(
                    "{} {per}{place} ({before} → {after}{ratio}){}.",
                    signed(self.change.delta, unit),
                    self.cause(unit)
                )
            }
        }
    }

    /// What grew; a share of the growth only where the whole surely grew.
    fn cause(&self, unit: &str) -> String {
        match (self.guilty, self.spread) {
            (Some(guilty), _) if self.change.grew() => {
                format!("; {:.0} % of it under {}", guilty.share * 100.0, guilty.words())
            }
            (Some(guilty), _) => {
                let more = format_amount(guilty.delta_ns_per_request, unit);
                format!("; but {} costs {more} more", guilty.words())
            }
            (None, Some(spread)) => format!("; {spread}"),
            (None, None) => String::new(),
        }
    }
}

fn signed(value: f64, unit: &str) -> String {
    let sign = if value >= 0.0 { "+" } else { "−" };
    format!("{sign}{}", format_amount(value.abs(), unit))
}
