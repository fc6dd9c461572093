//! Sums of samples per step and combination of labels.
//!
//! Guarantees: steps begin at whole multiples of their length, so steps of different queries line up; a step without
//! samples has no point; sums are exact integers until they are divided.

use emberline_model::ProfileType;
use emberline_storage::{Label, LabelFilter, Range, SelectedQuery, Store};

use crate::http::error::ApiError;

/// The most steps in a range.
const MAX_STEPS: i64 = 11_000;
/// The default number of steps.
const STEPS: i64 = 120;
/// Seconds of a window: no step is shorter.
const WINDOW_S: i64 = emberline_model::time::WINDOW_SECONDS as i64;
const HOUR_S: i64 = 3600;

/// The longest step, a whole number of windows.
const LONGEST_S: f64 = 4_294_967_290.0;

/// How the windows of a step are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aggregation {
    /// Added up.
    Sum,
    /// The mean of the windows: for a gauge, per instance and then added up over instances; for all others, the sum
    /// divided by the number of windows that had samples.
    Average,
}

impl Aggregation {
    /// The default for a profile type: what is in use at a point in time is averaged, what was used is summed.
    pub(crate) fn of(profile_type: &ProfileType) -> Aggregation {
        match profile_type.is_gauge() {
            true => Aggregation::Average,
            false => Aggregation::Sum,
        }
    }

    /// Its name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Aggregation::Sum => "sum",
            Aggregation::Average => "average",
        }
    }
}

/// One series.
#[derive(Debug, Clone, Default)]
pub(crate) struct Series {
    /// Values of the requested labels, in their order.
    pub(crate) labels: Vec<String>,
    /// Sum of all values; for an averaged gauge, their mean over the steps that have a point.
    pub(crate) total: i64,
    /// Samples taken.
    pub(crate) samples: u64,
    /// By time.
    pub(crate) points: Vec<Point>,
}

/// One step of a series.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    /// Start of the step, seconds since the Unix epoch.
    pub(crate) start_s: i64,
    /// By the aggregation.
    pub(crate) value: f64,
    /// Sum of values.
    pub(crate) sum: i64,
}

/// The query.
#[derive(Debug, Clone)]
pub(crate) struct OverTime {
    pub(crate) profile_type: String,
    /// `None` selects nothing.
    pub(crate) filters: Option<Vec<LabelFilter>>,
    pub(crate) by: Vec<Label>,
    pub(crate) step_s: u32,
    pub(crate) aggregation: Aggregation,
    pub(crate) range: Range,
}

impl OverTime {
    /// Fetches the series, the largest sum first.
    pub(crate) async fn fetch(self, store: &Store) -> Result<Vec<Series>, ApiError> {
        let Some(filters) = self.filters else {
            return Ok(Vec::new());
        };
        let mean = self.aggregation == Aggregation::Average && ProfileType::is_gauge_text(&self.profile_type);
        let query = SelectedQuery {
            mean,
            by: self.by,
            step_s: self.step_s,
            count_windows: self.aggregation == Aggregation::Average && !mean,
            ..SelectedQuery::new(&self.profile_type, filters, self.range)
        };
        let mut all: Vec<Series> = Vec::new();
        // Rows are sorted by labels, then time.
        for row in store.ask(query).await? {
            if all.last().is_none_or(|series| series.labels != row.labels) {
                all.push(Series {
                    labels: row.labels,
                    ..Series::default()
                });
            }
            let Some(series) = all.last_mut() else { continue };
            series.total = series.total.saturating_add(row.value);
            series.samples = series.samples.saturating_add(row.samples);
            series.points.push(Point {
                start_s: row.start_s,
                value: match self.aggregation {
                    Aggregation::Sum => row.value as f64,
                    // Averaged by the store.
                    Aggregation::Average if mean => row.value as f64,
                    Aggregation::Average => row.value as f64 / row.windows.max(1) as f64,
                },
                sum: row.value,
            });
        }
        if mean {
            for series in &mut all {
                series.total /= i64::try_from(series.points.len()).unwrap_or(i64::MAX).max(1);
            }
        }
        all.sort_by(|a, b| b.total.cmp(&a.total).then_with(|| a.labels.cmp(&b.labels)));
        Ok(all)
    }
}

/// The length of a step: as requested, in whole windows, and not so short that there are too many.
pub(crate) fn step(asked_s: Option<f64>, range: Range) -> Result<u32, ApiError> {
    let length = range.to_unix_s.saturating_sub(range.from_unix_s).max(1);
    let step = match asked_s {
        Some(asked) if asked > 0.0 => asked.ceil().min(LONGEST_S) as i64,
        // Steps of whole hours are answered from roll-ups.
        _ => match length.div_euclid(STEPS) {
            long if long > HOUR_S => (long + HOUR_S - 1).div_euclid(HOUR_S) * HOUR_S,
            short => short,
        },
    };
    let step = (step + WINDOW_S - 1).div_euclid(WINDOW_S).max(1) * WINDOW_S;
    if length / step > MAX_STEPS {
        let message = format!(
            "a step of {step} s gives more than {MAX_STEPS} points in this range: use at least {} s, or a shorter range",
            length / MAX_STEPS + 1
        );
        return Err(ApiError::bad_request("too_many_points", message));
    }
    Ok(u32::try_from(step).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(length: i64) -> Range {
        Range {
            from_unix_s: 1000,
            to_unix_s: 1000 + length,
        }
    }

    #[test]
    fn steps_are_whole_windows_and_not_too_many() {
        for (asked, length, expected) in [
            (None, 3600, 30),
            (None, 60, 10),
            (Some(1.0), 60, 10),
            (Some(15.0), 3600, 20),
            (Some(60.0), 3600, 60),
            (Some(1e12), 3600, 4_294_967_290),
        ] {
            assert_eq!(step(asked, range(length)).unwrap(), expected, "{asked:?} {length}");
        }
        let error = step(Some(10.0), range(200_000)).unwrap_err();
        assert_eq!(error.code, "too_many_points");
        assert!(error.message.contains("at least 19 s"), "{}", error.message);
        step(Some(20.0), range(200_000)).unwrap();
    }
}
