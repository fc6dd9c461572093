//! Two samples of one stretch of time: do the candidate's requests lie above the baseline's, and by more than chance?
//!
//! Guarantee: given how many requests each release had, and what all of them together took, every factor has an expectation
//! of exactly 1 if the requests are exchangeable between the releases, whatever the distribution of latency, with ties or
//! without; and of at most 1 if the candidate is faster. So a burst that hits both releases is no evidence, and strata of a
//! single request a side are allowed. Factors of strata may be multiplied: no stratum's expectation depends on another.
//!
//! Wrong on purpose: requests of one stratum count as independent of one another. [`crate::blocks`] is there because they
//! are not.

use emberline_model::histogram::Histogram;

use crate::statistics::{ln_choose, normal_cdf};

/// Terms up to which sums are added one by one.
const EXACT_TERMS: u64 = 16;

/// The Mann–Whitney statistic of two histograms.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Ranks {
    /// Pairs in which the candidate's request took longer; equal ones count half.
    pub(crate) slower_pairs: f64,
    /// Requests of the baseline.
    pub(crate) baseline: u64,
    /// Requests of the candidate.
    pub(crate) candidate: u64,
}

impl Ranks {
    /// Compares with the candidate's durations moved down by so many buckets.
    pub(crate) fn of(baseline: &Histogram, candidate: &Histogram, down: i16) -> Ranks {
        let mut below = baseline.zero_count() as f64;
        let mut pairs = 0.5 * candidate.zero_count() as f64 * below;
        let mut of_baseline = baseline.buckets().iter().peekable();
        for &(index, count) in candidate.buckets() {
            let index = index.saturating_sub(down);
            while let Some(&&(at, n)) = of_baseline.peek()
                && at < index
            {
                below += n as f64;
                of_baseline.next();
            }
            let same = of_baseline.peek().filter(|b| b.0 == index).map_or(0, |b| b.1);
            pairs += count as f64 * (below + 0.5 * same as f64);
        }
        Ranks {
            slower_pairs: pairs,
            baseline: baseline.count(),
            candidate: candidate.count(),
        }
    }

    /// Chance that a request of the candidate takes longer than one of the baseline, minus one half: -0.5 to 0.5.
    pub(crate) fn effect(&self) -> f64 {
        let pairs = self.baseline as f64 * self.candidate as f64;
        if pairs > 0.0 {
            self.slower_pairs / pairs - 0.5
        } else {
            0.0
        }
    }

    /// Variance of [`Ranks::effect`] without a change and without ties, which only lower it.
    pub(crate) fn variance(&self) -> f64 {
        let (n, m) = (self.baseline as f64, self.candidate as f64);
        (n + m + 1.0) / (12.0 * n * m)
    }

    /// The effect in standard deviations, as a chance: its expectation without a change is one half, since the statistic is
    /// symmetric for samples of any sizes.
    pub(crate) fn position(&self) -> f64 {
        normal_cdf(self.effect() / self.variance().sqrt())
    }

    /// Logarithms of the factors for the alternatives that the effect is one of `effects`: the statistic's distribution, tilted
    /// towards it, over that distribution itself.
    ///
    /// Source: the generating function of the statistic is a Gaussian binomial coefficient (Mann and Whitney, Ann. Math. Stat.
    /// 18, 1947), so that with `x` half the tilt its moment generating function is the product over `i` of
    /// `(sinh((n + i) x) / (n + i)) / (sinh(i x) / i)`. Ties count half: by Jensen's inequality the factor's expectation is then smaller.
    pub(crate) fn ln_factors<const N: usize>(&self, tilts: &[Tilt; N]) -> [f64; N] {
        let pairs = self.baseline as f64 * self.candidate as f64;
        let of = |tilt: &Tilt| tilt.tilt * pairs * self.effect() - tilt.ln_mean;
        std::array::from_fn(|at| of(&tilts[at]))
    }

    /// What factors need of the numbers of requests alone: the same for both directions, and most of the work.
    pub(crate) fn tilts<const N: usize>(&self, effects: [f64; N]) -> [Tilt; N] {
        let (n, m) = (self.baseline as f64, self.candidate as f64);
        effects.map(|effect| {
            if n == 0.0 || m == 0.0 {
                return Tilt::default();
            }
            // The best tilt for a small effect: effect over variance, per pair.
            let tilt = 12.0 * effect / (n + m + 1.0);
            let half = 0.5 * tilt;
            let (fewer, more) = (n.min(m), n.max(m));
            let term = |i: f64| ln_sinhc((more + i) * half) - ln_sinhc(i * half);
            let ln_mean = sum_to(fewer as u64, term);
            Tilt { tilt, ln_mean }
        })
    }
}

/// A tilt of the statistic's distribution, per pair, and the logarithm of its mean.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tilt {
    tilt: f64,
    ln_mean: f64,
}

/// ln(sinh(x) / x), for x of at least 0.
fn ln_sinhc(x: f64) -> f64 {
    if x < 1e-3 {
        return x * x / 6.0;
    }
    x + (-(-2.0 * x).exp()).ln_1p() - (2.0 * x).ln()
}

/// The sum of a smooth function over 1 to `last`; for many terms the midpoints of stretches, corrected by Simpson's rule.
fn sum_to(last: u64, term: impl Fn(f64) -> f64) -> f64 {
    if last <= EXACT_TERMS {
        return (1..=last).map(|i| term(i as f64)).sum();
    }
    // The sum is the integral from 1/2 to last + 1/2, but for the second derivative: terms vary slowly in units of 1 / last.
    let (from, to) = (0.5, last as f64 + 0.5);
    let step = (to - from) / EXACT_TERMS as f64;
    let inner: f64 = (0..EXACT_TERMS)
        .map(|at| {
            let low = from + at as f64 * step;
            (term(low) + 4.0 * term(low + 0.5 * step) + term(low + step)) / 6.0
        })
        .sum();
    inner * step
}

/// How many requests of two releases lie above one threshold.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Counts {
    /// Of the baseline, above the threshold and in all.
    pub(crate) baseline: (u64, u64),
    /// Of the candidate.
    pub(crate) candidate: (u64, u64),
}

impl Counts {
    /// The same with the releases exchanged.
    pub(crate) fn turned(self) -> Counts {
        Counts {
            baseline: self.candidate,
            candidate: self.baseline,
        }
    }

    /// Share above of the candidate minus that of the baseline: -1 to 1.
    pub(crate) fn effect(&self) -> f64 {
        let share = |(above, all): (u64, u64)| above as f64 / all.max(1) as f64;
        share(self.candidate) - share(self.baseline)
    }

    /// Variance of [`Counts::effect`] without a change.
    pub(crate) fn variance(&self) -> f64 {
        let (n, m) = (self.baseline.1 as f64, self.candidate.1 as f64);
        let share = (self.baseline.0 + self.candidate.0) as f64 / (n + m);
        share * (1.0 - share) * (1.0 / n + 1.0 / m)
    }

    /// Expected number of the candidate's requests above, given that of both.
    pub(crate) fn expected(&self) -> f64 {
        let above = (self.baseline.0 + self.candidate.0) as f64;
        above * self.candidate.1 as f64 / ((self.baseline.1 + self.candidate.1) as f64).max(1.0)
    }

    /// Chances of each possible number of the candidate's requests above, from the smallest on, given the margins
    /// (hypergeometric), up to a common factor; and that smallest number.
    fn weights(&self) -> (u64, Vec<f64>) {
        let (all, m) = (self.baseline.1 + self.candidate.1, self.candidate.1);
        let above = self.baseline.0 + self.candidate.0;
        let (low, high) = (above.saturating_sub(self.baseline.1), above.min(m));
        let ln_chance = |k: u64| ln_choose(m, k) + ln_choose(all - m, above - k) - ln_choose(all, above);
        // Far from the middle nothing counts; the middle is where recursion starts, so that nothing underflows.
        let middle = (self.expected().round() as u64).clamp(low, high);
        let mut chances = vec![0.0; (high - low + 1) as usize];
        chances[(middle - low) as usize] = ln_chance(middle).exp();
        let odds = |k: u64| {
            // From k to k + 1.
            ((m - k) as f64 * (above - k) as f64) / ((k + 1) as f64 * (all - m + k + 1 - above) as f64)
        };
        for k in middle..high {
            chances[(k + 1 - low) as usize] = chances[(k - low) as usize] * odds(k);
        }
        for k in (low..middle).rev() {
            chances[(k - low) as usize] = chances[(k + 1 - low) as usize] / odds(k);
        }
        (low, chances)
    }

    /// Logarithms of the factors for the alternatives that the candidate's odds of lying above are so many times as high.
    ///
    /// Source: Fisher's noncentral hypergeometric distribution over the central one; conditional on a stratum's margins as in Turner, Ly and
    /// Grünwald, "Generic E-variables for exact sequential k-sample tests that allow for optional stopping" (2021), section 5.
    pub(crate) fn ln_factors<const N: usize>(&self, odds: [f64; N]) -> [f64; N] {
        if self.baseline.1 == 0 || self.candidate.1 == 0 {
            return [0.0; N];
        }
        let (low, chances) = self.weights();
        odds.map(|odds| {
            let ln_odds = odds.ln();
            // Relative to what was seen, so that nothing overflows.
            let seen = self.candidate.0 as f64;
            let sum: f64 = chances
                .iter()
                .enumerate()
                .map(|(at, chance)| chance * (ln_odds * ((low as f64 + at as f64) - seen)).exp())
                .sum();
            -sum.ln()
        })
    }

    /// Where the candidate's number lies in its distribution: the chance of a smaller one and half that of the same. Its
    /// expectation without a change is one half, for samples of any sizes.
    pub(crate) fn position(&self) -> f64 {
        if self.baseline.1 == 0 || self.candidate.1 == 0 {
            return 0.5;
        }
        let (low, chances) = self.weights();
        let at = (self.candidate.0 - low) as usize;
        let sum: f64 = chances.iter().sum();
        ((chances[..at].iter().sum::<f64>() + 0.5 * chances[at]) / sum).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EFFECTS: [f64; 4] = [0.06, 0.12, 0.22, 0.4];
    const ODDS: [f64; 4] = [1.4, 2.0, 4.0, 12.0];

    /// Every way in which `m` of the buckets may be the candidate's, the others being the baseline's.
    fn ways(buckets: &[i16], m: usize) -> Vec<[Histogram; 2]> {
        let of = |mask: u32, side: u32| {
            let own = buckets.iter().enumerate().filter(|(at, _)| mask >> at & 1 == side);
            Histogram::from_parts(0, 0.0, 0.0, 0.0, own.map(|(_, &bucket)| (bucket, 1)))
        };
        (0..1u32 << buckets.len())
            .filter(|mask| mask.count_ones() as usize == m)
            .map(|mask| [of(mask, 0), of(mask, 1)])
            .collect()
    }

    fn ln_factor(ranks: &Ranks, effect: f64) -> f64 {
        ranks.ln_factors(&ranks.tilts([effect]))[0]
    }

    fn mean(of: impl Iterator<Item = f64>) -> f64 {
        let (sum, count) = of.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
        sum / count
    }

    #[test]
    fn a_factor_of_ranks_averages_to_one_over_all_orders_and_to_no_more_with_ties() {
        for (n, m) in [(1, 1), (1, 5), (5, 1), (2, 3), (4, 4), (3, 6), (8, 3), (5, 6)] {
            for ties in [1, 2, 3, 20] {
                let buckets: Vec<i16> = (0..n + m).map(|at| at as i16 / ties).collect();
                let all: Vec<Ranks> = ways(&buckets, m).iter().map(|[b, c]| Ranks::of(b, c, 0)).collect();
                assert!(mean(all.iter().map(Ranks::effect)).abs() < 1e-12);
                for effect in EFFECTS {
                    let average = mean(all.iter().map(|ranks| ln_factor(ranks, effect).exp()));
                    assert!(average <= 1.0 + 1e-9, "{n} {m} {ties} {effect}: {average}");
                    assert!(ties > 1 || average > 1.0 - 1e-9, "{n} {m} {effect}: {average}");
                }
            }
        }
    }

    #[test]
    fn ranks_of_histograms_are_those_of_pairs() {
        let (b, c) = ([3i16, 3, 5, 9], [2i16, 3, 6, 6, 9]);
        let of = |buckets: &[i16], zeros| Histogram::from_parts(zeros, 0.0, 0.0, 0.0, buckets.iter().map(|&b| (b, 1)));
        for down in [0, 1, 3] {
            // Zeros lie below every bucket.
            let value = |c: i16| c - down;
            let pairs: f64 = c
                .iter()
                .flat_map(|&c| b.iter().map(move |&b| (value(c), b)))
                .map(|(c, b)| f64::from(u8::from(c > b)) + 0.5 * f64::from(u8::from(c == b)))
                .sum();
            let zeros = 0.5 * 2.0 * 3.0 + 5.0 * 2.0;
            assert_eq!(Ranks::of(&of(&b, 2), &of(&c, 3), down).slower_pairs, pairs + zeros);
        }
    }

    #[test]
    fn the_sum_over_many_requests_is_that_of_its_terms() {
        for (n, m) in [(17u64, 17u64), (17, 900), (60, 60), (400, 30), (3000, 3000)] {
            for effect in EFFECTS {
                let ranks = Ranks {
                    slower_pairs: 0.5 * (n * m) as f64,
                    baseline: n,
                    candidate: m,
                };
                let half = 6.0 * effect / (n + m + 1) as f64;
                let (fewer, more) = (n.min(m), n.max(m));
                let exact: f64 = (1..=fewer)
                    .map(|i| ln_sinhc((more + i) as f64 * half) - ln_sinhc(i as f64 * half))
                    .sum();
                let off = ln_factor(&ranks, effect) + exact;
                assert!(off.abs() < 1e-3, "{n} {m} {effect}: {off}");
            }
        }
    }

    /// Chance and numbers above of every way, by counting.
    #[test]
    fn a_factor_of_counts_is_the_ratio_of_the_noncentral_distribution_to_the_central() {
        for (n, m, above) in [
            (1u64, 1u64, 1u64),
            (3, 2, 2),
            (4, 5, 3),
            (6, 2, 7),
            (2, 7, 5),
            (5, 5, 0),
            (5, 5, 10),
        ] {
            let buckets: Vec<i16> = (0..n + m).map(|at| i16::from(at < above)).collect();
            let all: Vec<Counts> = ways(&buckets, m as usize)
                .iter()
                .map(|[b, c]| Counts {
                    baseline: (b.count_above(0), b.count()),
                    candidate: (c.count_above(0), c.count()),
                })
                .collect();
            for (at, odds) in ODDS.into_iter().enumerate() {
                let weight = |counts: &Counts| odds.powi(counts.candidate.0 as i32);
                let average_weight = mean(all.iter().map(weight));
                for counts in &all {
                    let factor = counts.ln_factors(ODDS)[at].exp();
                    assert!((factor - weight(counts) / average_weight).abs() < 1e-9 * factor);
                }
                assert!((mean(all.iter().map(|c| c.ln_factors(ODDS)[at].exp())) - 1.0).abs() < 1e-9);
            }
            assert!(
                (mean(all.iter().map(Counts::position)) - 0.5).abs() < 1e-9,
                "{n} {m} {above}"
            );
        }
    }

    #[test]
    fn more_requests_above_never_say_less() {
        for (n, m) in [(3u64, 8u64), (40, 10), (500, 500)] {
            let counts = (0..=m).map(|k| Counts {
                baseline: (n / 3, n),
                candidate: (k, m),
            });
            let all: Vec<_> = counts.collect();
            assert!(all.windows(2).all(|w| w[1].position() >= w[0].position() - 1e-12));
        }
    }

    /// Without ties the mean is one half for samples of any sizes. With ties and unequal sizes it may be more: what moves the
    /// candidate down by a bucket, as every caller does, decides ties against it and makes up for that.
    #[test]
    fn a_position_of_ranks_averages_to_one_half_and_to_no_more_once_ties_are_decided() {
        let position =
            |buckets: &[i16], m, down| mean(ways(buckets, m).iter().map(|[b, c]| Ranks::of(b, c, down).position()));
        for (n, m) in [(1, 2), (2, 1), (3, 6), (7, 3), (1, 9), (9, 1), (5, 5)] {
            let distinct: Vec<i16> = (0..(n + m) as i16).collect();
            assert!((position(&distinct, m, 0) - 0.5).abs() < 1e-9, "{n} {m}");
            for ties in [2, 3, 6, 20] {
                let tied: Vec<i16> = distinct.iter().map(|at| at / ties).collect();
                assert!(position(&tied, m, 1) <= 0.5 + 1e-9, "{n} {m} {ties}");
            }
        }
        assert!(position(&[0, 0, 1], 2, 0) > 0.52);
    }
}
