//! The second witness: it counts blocks of time and not requests.
//!
//! Within a block requests may cling together as they like: what counts is only where the candidate's requests lie among
//! the baseline's, as one number between 0 and 1 whose expectation without a change is one half. A block multiplies the
//! evidence by less than two, so a bad minute says no more than a few blocks, and what lasts says what all of them do.
//!
//! Guarantee: if, given the earlier blocks, the two releases are alike in a block (their requests may hang together inside
//! it), the expectation of a factor is at most 1. Source: a bet on a bounded number whose mean is known, Waudby-Smith and Ramdas, "Estimating
//! means of bounded random variables by betting", J. R. Stat. Soc. B 86 (2024), section 3.
//!
//! Wrong on purpose: a level that wanders for longer than a block is one accident and counts as several ([`crate::wander`]
//! is there for it); and where the traffic is split unevenly, the expectation is one half only as far as requests are
//! independent or what hangs together is symmetric.

use crate::e_process::ALTERNATIVES;

/// Shares of the evidence that are bet on "slower".
const STAKES: [f64; ALTERNATIVES] = [0.25, 0.5, 0.8, 0.98];

/// Logarithms of the factors of a block in which the candidate lies at `position` (0 to 1) among the baseline.
pub(crate) fn ln_factors(position: f64) -> [f64; ALTERNATIVES] {
    STAKES.map(|stake| (stake * (2.0 * position - 1.0)).ln_1p())
}

/// The same for one stake, the largest: what is gross shows in every block.
pub(crate) fn ln_factors_of_gross(position: f64) -> [f64; ALTERNATIVES] {
    [ln_factors(position)[ALTERNATIVES - 1]; ALTERNATIVES]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e_process::EProcess;

    /// Over all signs of a block a factor averages to 1, and whatever comes the evidence stays a positive number.
    #[test]
    fn factors_average_to_one_over_both_signs_and_are_never_negative() {
        for distance in [0.0, 0.1, 0.3, 0.5] {
            let (above, below) = (ln_factors(0.5 + distance), ln_factors(0.5 - distance));
            for (up, down) in above.into_iter().zip(below) {
                assert!((0.5 * (up.exp() + down.exp()) - 1.0).abs() < 1e-12);
                assert!(down.is_finite() && up < std::f64::consts::LN_2);
            }
        }
        let all: Vec<_> = (0..=100).map(|at| ln_factors(f64::from(at) / 100.0)).collect();
        assert!(all.windows(2).all(|w| w[0].iter().zip(w[1]).all(|(a, b)| *a < b)));
    }

    /// Every sequence of eleven blocks that lie at one end or the other: the mean of the mixture is 1 after each of them, and
    /// no more of them than promised ever reach a bound.
    #[test]
    fn the_evidence_of_exchangeable_blocks_averages_to_one() {
        const BLOCKS: u32 = 11;
        for distance in [0.5, 0.35] {
            let (mut sum, mut reached) = (0.0, 0u32);
            for signs in 0..1u32 << BLOCKS {
                let mut process = EProcess::new(2);
                for block in 0..BLOCKS {
                    let side = if signs >> block & 1 == 1 { distance } else { -distance };
                    // The second feature is another, that goes along.
                    process.step([ln_factors(0.5 + side), ln_factors(0.5 + 0.4 * side)]);
                }
                let value = process.ln_value().exp();
                assert!(value.is_finite() && value > 0.0);
                sum += value;
                reached += u32::from(process.ln_peak() >= 20f64.ln());
            }
            let all = f64::from(1u32 << BLOCKS);
            assert!((sum / all - 1.0).abs() < 1e-9, "{}", sum / all);
            assert!(reached > 0 && f64::from(reached) / all <= 0.05, "{reached}");
        }
    }
}
