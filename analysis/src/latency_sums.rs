//! Sums of strata that are asked for after every window, kept so that evidence which is held back for hours is not added up
//! anew each time.
//!
//! Guarantee: each is bit for bit what adding up the strata anew, in their order, would give.

use std::{borrow::Cow, ops::Range};

use emberline_model::{
    alert::ComparisonMode,
    histogram::{BUCKETS_PER_OCTAVE, Histogram},
};

use crate::{latency::LatencyConfig, strata::Ranks, stratum::Judged};

/// Sums kept: one per feature and direction is asked for, and their beginnings seldom move.
const MOST_SUMS: usize = 6;
/// Buckets between which the shift of the candidate is looked for: a factor of 1,024.
const MOST_SHIFT: i16 = 320;

/// Durations of both releases.
#[derive(Debug, Clone)]
pub(crate) struct Pooled {
    pub(crate) mode: ComparisonMode,
    pub(crate) baseline: Histogram,
    pub(crate) candidate: Histogram,
}

impl Default for Pooled {
    fn default() -> Pooled {
        Pooled {
            mode: ComparisonMode::Concurrent,
            baseline: Histogram::new(),
            candidate: Histogram::new(),
        }
    }
}

impl Pooled {
    /// Adds a stratum.
    pub(crate) fn add(&mut self, judged: &Judged) {
        self.baseline.merge(&judged.stratum.baseline);
        self.candidate.merge(&judged.stratum.candidate);
        if judged.stratum.mode == ComparisonMode::BeforeAfter {
            self.mode = ComparisonMode::BeforeAfter;
        }
    }

    pub(crate) fn is_large_enough(&self, config: &LatencyConfig) -> bool {
        self.baseline.count().min(self.candidate.count()) >= config.min_requests
    }

    /// The same with the releases exchanged.
    pub(crate) fn turned(self) -> Pooled {
        Pooled {
            baseline: self.candidate,
            candidate: self.baseline,
            ..self
        }
    }

    /// Whether the estimated growth is above the floor: of all requests alike, or of a quantile.
    pub(crate) fn is_worth_stating(&self, config: &LatencyConfig, times: f64) -> bool {
        let above = |before: f64, after: f64| {
            let floor = (before * config.floor_relative).max(config.floor_seconds);
            after > before + times * floor
        };
        let at = |q: f64| Some((self.baseline.quantile(q)?, self.candidate.quantile(q)?));
        let alike = at(0.5).is_some_and(|(median, _)| above(median, median * self.times()));
        alike
            || config
                .quantiles
                .iter()
                .filter_map(|&q| at(q))
                .any(|(before, after)| above(before, after))
    }

    /// How many times as long a request of the candidate takes, typically.
    ///
    /// Source: the shift at which the Mann–Whitney statistic is balanced, Hodges and Lehmann, Ann. Math. Stat. 34 (1963).
    pub(crate) fn times(&self) -> f64 {
        let effect = |down: i16| Ranks::of(&self.baseline, &self.candidate, down).effect();
        let (mut low, mut high) = (-MOST_SHIFT, MOST_SHIFT);
        while high - low > 1 {
            let middle = (low + high) / 2;
            if effect(middle) > 0.0 {
                low = middle;
            } else {
                high = middle;
            }
        }
        let (at_low, at_high) = (effect(low), effect(high));
        let part = if at_low > at_high {
            at_low / (at_low - at_high)
        } else {
            0.0
        };
        ((f64::from(low) + part.clamp(0.0, 1.0)) / BUCKETS_PER_OCTAVE).exp2()
    }
}

/// Strata joined by stretches of time.
#[derive(Debug, Clone)]
pub(crate) struct Spans {
    seconds: i64,
    spans: Vec<Span>,
    strata: usize,
}

#[derive(Debug, Clone)]
struct Span {
    number: i64,
    /// Its first stratum.
    first: usize,
    sums: [Histogram; 2],
}

impl Spans {
    pub(crate) fn new(seconds: i64) -> Spans {
        Spans {
            seconds,
            spans: Vec::new(),
            strata: 0,
        }
    }

    /// Adds the next stratum.
    pub(crate) fn push(&mut self, judged: &Judged) {
        let stratum = &judged.stratum;
        let number = stratum.last.div_euclid(self.seconds);
        match self.spans.last_mut() {
            Some(span) if span.number == number => {
                span.sums[0].merge(&stratum.baseline);
                span.sums[1].merge(&stratum.candidate);
            }
            _ => self.spans.push(Span {
                number,
                first: self.strata,
                sums: [stratum.baseline.clone(), stratum.candidate.clone()],
            }),
        }
        self.strata += 1;
    }

    /// Durations of both releases in each stretch of time, of these strata only.
    pub(crate) fn of<'a>(
        &'a self,
        judged: &'a [Judged],
        strata: Range<usize>,
    ) -> impl Iterator<Item = Cow<'a, [Histogram; 2]>> {
        let from = self
            .spans
            .partition_point(|span| span.first <= strata.start)
            .saturating_sub(1);
        let ends = self
            .spans
            .iter()
            .skip(from + 1)
            .map(|span| span.first)
            .chain([self.strata]);
        let spans = self.spans[from..].iter().zip(ends);
        spans
            .take_while(move |(span, _)| span.first < strata.end)
            .filter_map(move |(span, end)| {
                let (first, last) = (span.first.max(strata.start), end.min(strata.end));
                if first >= last {
                    None
                } else if (first, last) == (span.first, end) {
                    Some(Cow::Borrowed(&span.sums))
                } else {
                    let mut sums = [Histogram::new(), Histogram::new()];
                    for judged in &judged[first..last] {
                        sums[0].merge(&judged.stratum.baseline);
                        sums[1].merge(&judged.stratum.candidate);
                    }
                    Some(Cow::Owned(sums))
                }
            })
    }
}

/// All strata from some beginnings on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sums {
    /// First stratum, strata seen, sum; the last asked for stands last.
    kept: Vec<(usize, usize, Pooled)>,
}

impl Sums {
    /// The sum of `judged` from `first` on.
    pub(crate) fn from(&mut self, first: usize, judged: &[Judged]) -> &Pooled {
        let known = self.kept.iter().position(|(of, ..)| *of == first);
        let mut sum = known.map_or_else(|| (first, first, Pooled::default()), |at| self.kept.remove(at));
        judged.iter().skip(sum.1).for_each(|judged| sum.2.add(judged));
        sum.1 = judged.len();
        if self.kept.len() == MOST_SUMS {
            self.kept.remove(0);
        }
        self.kept.push(sum);
        &self.kept[self.kept.len() - 1].2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{latency::JudgedWindow, strata::Ranks, stratum::Stratum};

    fn stratum(at: i64) -> Judged {
        let side = |requests: i64| {
            let mut histogram = Histogram::new();
            (0..requests).for_each(|r| histogram.record_ns(((at * 13 + r * 29) % 70 * 100_000).unsigned_abs()));
            histogram
        };
        let mode = if at < 40 {
            ComparisonMode::Concurrent
        } else {
            ComparisonMode::BeforeAfter
        };
        Judged {
            stratum: Stratum {
                mode,
                first: at * 10,
                last: at * 10,
                baseline: side(at % 4),
                candidate: side(at % 3 + 1),
                windows: 1,
                thresholds: Vec::new(),
            },
            ranks: Ranks::default(),
            counts: Vec::new(),
            standing: JudgedWindow {
                window: at * 10,
                mode,
                e_value_ln: 0.0,
                exceeding: false,
                warming: false,
            },
        }
    }

    fn anew(strata: &[Judged]) -> [Histogram; 2] {
        let mut sums = [Histogram::new(), Histogram::new()];
        for judged in strata {
            sums[0].merge(&judged.stratum.baseline);
            sums[1].merge(&judged.stratum.candidate);
        }
        sums
    }

    #[test]
    fn sums_are_what_adding_up_anew_gives() {
        let (mut judged, mut spans, mut sums) = (Vec::new(), Spans::new(70), Sums::default());
        for at in (0..60).filter(|at| at % 9 != 4) {
            judged.push(stratum(at));
            spans.push(&judged[judged.len() - 1]);
            let count = judged.len();
            // More beginnings than are kept, and again and again.
            for first in (0..=count).step_by(1 + at as usize % 5) {
                let [baseline, candidate] = anew(&judged[first..]);
                let sum = sums.from(first, &judged);
                assert_eq!((&sum.baseline, &sum.candidate), (&baseline, &candidate));
                let after = judged[first..]
                    .iter()
                    .any(|j| j.stratum.mode == ComparisonMode::BeforeAfter);
                assert_eq!(sum.mode == ComparisonMode::BeforeAfter, after);
                for part in [0..first, first..count] {
                    let grouped = judged[part.clone()].chunk_by(|a, b| a.stratum.last / 70 == b.stratum.last / 70);
                    let expected: Vec<_> = grouped.map(anew).collect();
                    let got: Vec<_> = spans.of(&judged, part).map(Cow::into_owned).collect();
                    assert_eq!(got, expected, "{first} of {count}");
                }
            }
        }
    }
}
