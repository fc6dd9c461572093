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
