//! Gauges: a value at a moment (memory in use, goroutines) is averaged over time and added up over instances.
//!
//! Guarantee: each series stands for the time from its first window to one interval after its last, where its interval
//! is the distance between its own windows; so it does not matter how often a process reports, whether two report at
//! the same moments, or how many generations of instances are in a range. Wrong on purpose: a series that reported once
//! stands for as long as others wait between two reports, or for the whole range if nobody reported twice. For hours
//! whose samples are no longer kept, the roll-up has the sums over all instances of a release, and in how many windows
//! its most frequent stack was seen: there, instances that report at different moments count too little.

use emberline_model::time::WINDOW_SECONDS;

use crate::{
    hot::{Grain, Span, hours::HOUR_S},
    questions::sql::Sql,
    readers::{Failure, Reader},
};

/// What a mean is computed from: single windows, as far back as they are kept.
pub(super) const GRAIN: Grain = Grain::Anything;

/// When a series had values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life {
    series: u64,
    /// Moments with rows: windows, or rolled-up hours.
    reports: u64,
    /// Windows that these stand for.
    windows: u64,
    first_s: u32,
    last_s: u32,
}

/// Factors for the values of each series, applied before they are added up.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Weights(Vec<(u64, f64)>);

impl Weights {
    /// Adds ` JOIN ... w ON w.series_id = s.series_id`, with a column `weight`. They are passed as text, because the
    /// engine cannot bind lists.
    pub(super) fn join(&self, sql: &mut Sql) {
        let series: Vec<String> = self.0.iter().map(|(series, _)| series.to_string()).collect();
        let weights: Vec<String> = self.0.iter().map(|(_, weight)| format!("{weight:e}")).collect();
        sql.push(" JOIN (SELECT unnest(CAST(string_split(")
            .bind(series.join(","))
            .push(", ',') AS UBIGINT[])) AS series_id, unnest(CAST(string_split(")
            .bind(weights.join(","))
            .push(", ',') AS DOUBLE[])) AS weight) w ON w.series_id = s.series_id");
    }

    /// Weights for the rows of a range divided into `pieces`: the mean of these rows is what a single row would have.
    pub(super) fn for_pieces(mut self, pieces: usize) -> Weights {
        self.0.iter_mut().for_each(|(_, weight)| *weight *= pieces as f64);
        self
    }

    /// True when there is nothing to average.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The sum of weighted values, as a whole number.
pub(super) const MEAN: &str = "CAST(least(round(sum(s.value * w.weight)), 9223372036854774784) AS BIGINT)";

/// Adds the moments at which series had values, as `series_id` and `ts`, and how many `windows` these stand for.
/// `select` adds the series in question.
pub(super) fn push_reports(sql: &mut Sql, span: &Span, select: impl FnOnce(&mut Sql)) {
    sql.push("SELECT r.series_id, r.ts, max(r.windows) AS windows FROM ");
    sql.samples(span, GRAIN).push(" r WHERE r.series_id IN (");
    select(sql);
    sql.push(") GROUP BY 1, 2");
}

/// Looks up when each series had values; `select` adds the series in question to a statement.
pub(super) fn weights(reader: &Reader<'_>, span: &Span, select: impl FnOnce(&mut Sql)) -> Result<Weights, Failure> {
    let mut lives = Vec::new();
    let mut sql = Sql::new(
        "SELECT g.series_id, CAST(count(*) AS UBIGINT), CAST(sum(g.windows) AS UBIGINT), min(g.ts), max(g.ts) FROM (",
    );
    push_reports(&mut sql, span, select);
    sql.push(") g GROUP BY 1");
    sql.run(reader, |columns| {
        let (series, reports, windows) = (columns.u64(0)?, columns.u64(1)?, columns.u64(2)?);
        let (first, last) = (columns.u32(3)?, columns.u32(4)?);
        lives.extend((0..columns.rows()).map(|row| Life {
            series: series[row],
            reports: reports[row],
            windows: windows[row],
            first_s: first[row],
            last_s: last[row],
        }));
        Ok(())
    })?;
    Ok(weigh(&lives))
}

/// A series' share of the time that all cover together, divided by its number of windows.
fn weigh(lives: &[Life]) -> Weights {
    let interval = |life: &Life| match life.reports {
        0 | 1 if life.windows > life.reports => Some(HOUR_S as f64),
        0 | 1 => None,
        reports => Some(f64::from(life.last_s - life.first_s) / (reports - 1) as f64),
    };
    let mut intervals: Vec<f64> = lives.iter().filter_map(interval).collect();
    intervals.sort_by(f64::total_cmp);
    let usual = intervals.get(intervals.len() / 2).copied();
    let begin = lives.iter().map(|life| life.first_s).min().unwrap_or_default();
    let end = lives.iter().map(|life| life.last_s).max().unwrap_or_default();
    let covered_by = |life: &Life| -> (f64, f64) {
        match interval(life).or(usual) {
            Some(interval) => (f64::from(life.first_s), f64::from(life.last_s) + interval),
            // Nobody reported twice: as far as is known, all of them were there all the time.
            None => (f64::from(begin), f64::from(end) + f64::from(WINDOW_SECONDS)),
        }
    };
    let mut covered: Vec<(f64, f64)> = lives.iter().map(covered_by).collect();
    let lengths: Vec<f64> = covered.iter().map(|(from, to)| to - from).collect();
    covered.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut whole, mut reached) = (0.0, f64::NEG_INFINITY);
    for (from, to) in covered {
        whole += (to - from.max(reached)).max(0.0);
        reached = reached.max(to);
    }
    let weight = |(life, length): (&Life, f64)| (life.series, length / whole / life.windows.max(1) as f64);
    Weights(lives.iter().zip(lengths).map(weight).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn life(series: u64, windows: u64, first_s: u32, last_s: u32) -> Life {
        Life {
            series,
            reports: windows,
            windows,
            first_s,
            last_s,
        }
    }

    /// The total of series with constant values.
    fn mean(lives: &[(Life, f64)]) -> f64 {
        let weights = weigh(&lives.iter().map(|l| l.0).collect::<Vec<_>>());
        let sum = |((life, value), (_, weight)): (&(Life, f64), &(u64, f64))| life.windows as f64 * value * weight;
        lives.iter().zip(&weights.0).map(sum).sum()
    }

    #[test]
    fn gauges_are_averaged_over_time_and_added_up_over_instances() {
        let close = |lives: &[(Life, f64)], expected: f64| {
            let mean = mean(lives);
            assert!(
                (mean - expected).abs() < expected * 0.02,
                "{lives:?}: {mean}, not {expected}"
            );
        };
        // Two instances in the same two windows.
        close(&[(life(1, 2, 100, 110), 5.0), (life(2, 2, 100, 110), 7.0)], 12.0);
        // One reports every 10 s, one every 60 s.
        close(&[(life(1, 360, 0, 3590), 5.0), (life(2, 60, 0, 3540), 7.0)], 12.0);
        // Both report every 60 s, at different moments.
        close(&[(life(1, 60, 0, 3540), 5.0), (life(2, 60, 30, 3570), 7.0)], 12.0);
        // One instance replaces another halfway through.
        close(&[(life(1, 180, 0, 1790), 5.0), (life(2, 180, 1800, 3590), 5.0)], 5.0);
        // Three files, each sent once.
        close(
            &[
                (life(1, 1, 0, 0), 5.0),
                (life(2, 1, 30, 30), 6.0),
                (life(3, 1, 300, 300), 7.0),
            ],
            18.0,
        );
        // One that was seen once, among others.
        close(&[(life(1, 100, 0, 990), 5.0), (life(2, 1, 500, 500), 100.0)], 6.0);
        // An hour that was rolled up, and the next one, which was not.
        let rolled_up = Life {
            reports: 1,
            windows: 360,
            ..life(1, 1, 0, 0)
        };
        close(&[(rolled_up, 5.0), (life(2, 360, 3600, 7190), 7.0)], 6.0);
        assert!(weigh(&[]).is_empty());
    }

    proptest! {
        /// Whatever the series, each weight is a share, and a value that all of them had all the time is not exceeded.
        #[test]
        fn weights_are_shares(lives in prop::collection::vec((1u64..400, 0u32..100_000, 0u32..100_000), 1..20)) {
            let lives: Vec<Life> = lives.iter().enumerate().map(|(at, &(windows, first, length))| {
                let last_s = if windows == 1 { first } else { first + length.max(windows as u32) };
                life(at as u64, windows, first, last_s)
            }).collect();
            let weights = weigh(&lives);
            let mut most = 0.0;
            for ((_, weight), life) in weights.0.iter().zip(&lives) {
                let share = weight * life.windows as f64;
                prop_assert!(share.is_finite() && share > 0.0 && share <= 1.0 + 1e-9, "{share}");
                most += share;
            }
            prop_assert!(most >= 1.0 - 1e-9, "together they cover all of the time");
        }
    }
}
