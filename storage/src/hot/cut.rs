//! Which times of a range are answered from sums and which from windows.
//!
//! Guarantee: every second of a range is in exactly one of the three kinds of times, unless it is to be left out.

use std::{collections::BTreeSet, ops::Range};

use super::{
    Span,
    hours::{HOUR_S, QUARTER_S},
};

/// Seconds of an hour.
pub(crate) const HOUR: u32 = HOUR_S as u32;
/// Seconds of a quarter of a day.
pub(crate) const QUARTER_OF_DAY: u32 = QUARTER_S as u32;
/// Requests, and CPU without its stacks, are added up over this many seconds: the points of a chart of one day.
pub(crate) const QUARTER_OF_HOUR: u32 = 900;

/// Seconds since the Unix epoch, ascending and disjoint.
pub(crate) type Times = Vec<Range<u32>>;

/// How a range is divided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Whole quarters of days.
    pub(crate) quarters: Times,
    /// Whole units of sums.
    pub(crate) sums: Times,
    /// The rest.
    pub(crate) windows: Times,
}

/// What prevents sums from answering a range, as starts of units.
#[derive(Debug, Clone, Default)]
pub(crate) struct Obstacles {
    /// Units whose windows have to be read one by one.
    pub(crate) units: BTreeSet<u32>,
    /// Quarters of days whose units have to be read one by one.
    pub(crate) quarters: BTreeSet<u32>,
    /// Units in which nothing counts.
    pub(crate) left_out: BTreeSet<u32>,
}

impl Cut {
    /// Everything from windows.
    pub(crate) fn windows(span: &Span) -> Cut {
        Cut {
            windows: all(span),
            ..Cut::default()
        }
    }

    /// Sums over units of `unit_s`, and over quarters of days if no step is shorter; with `step_s` 0 the range is one
    /// step.
    pub(crate) fn new(span: &Span, unit_s: u32, step_s: u32, obstacles: &Obstacles) -> Cut {
        let whole = |unit_s: u32| -> Times {
            let range = span.from_s.div_ceil(unit_s).saturating_mul(unit_s)..span.to_s / unit_s * unit_s;
            Some(range)
                .filter(|range| range.start < range.end)
                .into_iter()
                .collect()
        };
        let of = |starts: &BTreeSet<u32>, length_s: u32| -> Times {
            starts
                .iter()
                .map(|&start| start..start.saturating_add(length_s))
                .collect()
        };
        if !step_s.is_multiple_of(unit_s) {
            return Cut::windows(span);
        }
        let left_out = of(&obstacles.left_out, unit_s);
        let usable = without(&whole(unit_s), &of(&obstacles.units, unit_s));
        let quarters = match step_s.is_multiple_of(QUARTER_OF_DAY) {
            true => without(&whole(QUARTER_OF_DAY), &of(&obstacles.quarters, QUARTER_OF_DAY)),
            false => Times::new(),
        };
        let windows = without(&without(&all(span), &usable), &left_out);
        Cut {
            sums: without(&without(&usable, &quarters), &left_out),
            quarters,
            windows,
        }
    }
}

/// The whole span.
pub(crate) fn all(span: &Span) -> Times {
    std::iter::once(span.from_s..span.to_s).collect()
}

/// The parts of `times` that are in none of `others`; both ascending.
pub(crate) fn without(times: &[Range<u32>], others: &[Range<u32>]) -> Times {
    let mut left = Times::new();
    for range in times {
        let mut start = range.start;
        let first = others.partition_point(|other| other.end <= start);
        for other in others[first..].iter().take_while(|other| other.start < range.end) {
            if start < other.start {
                left.push(start..other.start);
            }
            start = start.max(other.end);
        }
        if start < range.end {
            left.push(start..range.end);
        }
    }
    left
}

/// The condition that a row of some hours is within some times; `None` when none can be.
pub(crate) fn condition(times: &[Range<u32>], hours: &Range<u32>) -> Option<String> {
    let hours = u64::from(hours.start) * u64::from(HOUR)..u64::from(hours.end) * u64::from(HOUR);
    let mut conditions = Vec::new();
    for range in times {
        let (from, to) = (u64::from(range.start), u64::from(range.end));
        if from <= hours.start && hours.end <= to {
            return Some("true".to_owned());
        }
        if from < hours.end && hours.start < to {
            conditions.push(format!("(ts >= {from} AND ts < {to})"));
        }
    }
    (!conditions.is_empty()).then(|| conditions.join(" OR "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_second_is_in_one_of_the_times(
            from_s in 0u32..200_000, length_s in 1u32..400_000, of_hours: bool, step in 0usize..5,
            units in prop::collection::btree_set(0u32..200, 0..20), left_out in prop::collection::btree_set(200u32..400, 0..9),
        ) {
            let unit_s = if of_hours { HOUR } else { QUARTER_OF_HOUR };
            let step_s = [0, 10, HOUR, QUARTER_OF_DAY, 4 * QUARTER_OF_DAY][step];
            let span = Span { from_s, to_s: from_s + length_s, tables: Vec::new(), parts: Vec::new() };
            let starts = |units: &BTreeSet<u32>| units.iter().map(|unit| unit * unit_s).collect::<BTreeSet<u32>>();
            let (units, left_out) = (starts(&units), starts(&left_out));
            let quarters = units.iter().chain(&left_out).map(|start| start - start % QUARTER_OF_DAY).collect();
            let cut = Cut::new(&span, unit_s, step_s, &Obstacles { units: units.clone(), quarters, left_out: left_out.clone() });
            for second in (from_s..span.to_s).step_by(131) {
                let lies = |times: &Times| times.iter().any(|range| range.contains(&second));
                let (unit, sums) = (second - second % unit_s, lies(&cut.sums) || lies(&cut.quarters));
                let found = [&cut.quarters, &cut.sums, &cut.windows].into_iter().filter(|times| lies(times)).count();
                let is_left_out = left_out.contains(&unit) && step_s.is_multiple_of(unit_s);
                // What is left out is also left out at the ends.
                prop_assert_eq!(found, usize::from(!is_left_out));
                prop_assert!(!sums || (from_s <= unit && unit + unit_s <= span.to_s && !units.contains(&unit)));
            }
        }
    }
}
