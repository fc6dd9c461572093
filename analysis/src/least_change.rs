//! How much a cost must have changed to count as changed, and the test for it.
//!
//! With enough samples any two releases differ: by their mix of requests, by what else their machines do. The question
//! is then not whether they differ, but whether by more than a given size.
//!
//! Guarantees: pure; the p-value is the same when the sides are exchanged, never falls as the size grows, and is that
//! of the two-sided test if the size is 0.

use crate::statistics::student_two_sided;

/// How much a cost must have changed, significantly, to count as changed: by more than each of the first two.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct LeastChange {
    /// Share of the smaller of the two costs, 0 or more.
    pub(crate) relative: f64,
    /// Cost per request, in the unit of the profile, 0 or more.
    pub(crate) absolute: f64,
    /// By how much costs of these two sides differ anyway: standard deviation as a share of the cost.
    pub(crate) spread: f64,
}

/// An estimated cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) value: f64,
    pub(crate) standard_error: f64,
}

impl LeastChange {
    /// p-value of a change beyond this size: the probability of a difference at least as large as the observed one if
    /// the true change is exactly this size. One of the two standard errors must be above 0.
    ///
    /// The size is part of the test: McCarthy and Smyth, "Testing significance relative to a fold-change threshold is a
    /// TREAT", Bioinformatics 25 (2009), section 2.2. Because a relative size is a share of a cost that is itself
    /// estimated, what is tested is `larger - (1 + relative) * smaller`, with its variance.
    pub(crate) fn p_value(&self, baseline: Estimate, candidate: Estimate, degrees: f64) -> f64 {
        let (small, large) = match baseline.value <= candidate.value {
            true => (baseline, candidate),
            false => (candidate, baseline),
        };
        let apart = large.value - small.value;
        let spread = self.spread * 0.5 * (large.value + small.value);
        let beyond = |size: f64, scale: f64| {
            let error = large.standard_error.hypot(scale * small.standard_error).hypot(spread);
            let tail = |t: f64| match t >= 0.0 {
                true => 0.5 * student_two_sided(t, degrees),
                false => 1.0 - 0.5 * student_two_sided(t, degrees),
            };
            (tail((apart - size) / error) + tail((apart + size) / error)).min(1.0)
        };
        let relative = beyond(self.relative * small.value, 1.0 + self.relative);
        relative.max(beyond(self.absolute, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(value: f64, standard_error: f64) -> Estimate {
        Estimate { value, standard_error }
    }

    fn by(relative: f64) -> LeastChange {
        LeastChange {
            relative,
            ..LeastChange::default()
        }
    }

    /// With this many degrees of freedom, Student's distribution is the normal one.
    #[test]
    fn the_size_moves_the_threshold() {
        let absolute = LeastChange {
            absolute: 0.5,
            ..LeastChange::default()
        };
        let p = absolute.p_value(of(1.0, 0.3), of(2.7, 0.4), 1e9);
        // (1.7 - 0.5) / 0.5 and (1.7 + 0.5) / 0.5.
        assert!((p - (0.008_197_54 + 5.4e-6)).abs() < 1e-6, "{p}");
        // (2 - 1.25 * 1) / 0.25, with the standard error 1.25 * 0.2.
        let p = by(0.25).p_value(of(1.0, 0.2), of(2.0, 0.0), 1e9);
        assert!((p - 0.001_349_9).abs() < 1e-6, "{p}");
    }

    proptest! {
        #[test]
        fn it_is_symmetric_and_grows_with_the_size(
            a in 0.0f64..10.0, b in 0.0f64..10.0, sa in 0.01f64..2.0, sb in 0.01f64..2.0,
            small in 0.0f64..0.5, more in 0.0f64..0.5, spread in 0.0f64..0.5,
        ) {
            let (a, b) = (of(a, sa), of(b, sb));
            let p = by(small).p_value(a, b, 20.0);
            prop_assert!((0.0..=1.0).contains(&p));
            prop_assert!((p - by(small).p_value(b, a, 20.0)).abs() < 1e-12);
            prop_assert!(by(small + more).p_value(a, b, 20.0) >= p - 1e-12);
            let t = (a.value - b.value) / sa.hypot(sb);
            prop_assert!((by(0.0).p_value(a, b, 20.0) - student_two_sided(t, 20.0)).abs() < 1e-9);
            // Noise never makes a change beyond the size more significant.
            let wide = LeastChange { spread, ..by(small) };
            let is_beyond = a.value.max(b.value) > (1.0 + small) * a.value.min(b.value);
            prop_assert!(!is_beyond || wide.p_value(a, b, 20.0) >= p - 1e-2, "{p}");
        }
    }
}
