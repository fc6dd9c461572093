//! The few statistical functions the verdicts need.
//!
//! Guarantees: pure, deterministic, no allocation beyond the result. Special functions come from `statrs`. Wrong on
//! purpose: above 10,000 observations the ranks of an order-statistic interval come from the normal approximation,
//! moved outward by two ranks, because the incomplete beta function converges slowly there; the interval is then wider
//! than needed by less than 0.1 % of the observations.

use statrs::function::{
    beta::{beta_reg, inv_beta_reg},
    erf::{erfc, erfc_inv},
    gamma::ln_gamma,
};

/// Observations up to which binomial probabilities are computed exactly.
const EXACT_BINOMIAL_LIMIT: u64 = 10_000;

/// `ln(exp(a) + exp(b))` without overflow; either may be minus infinity.
pub fn ln_add_exp(a: f64, b: f64) -> f64 {
    let (high, low) = if a >= b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY {
        high
    } else {
        high + (low - high).exp().ln_1p()
    }
}

/// P(Z <= z) of the standard normal distribution.
pub fn normal_cdf(z: f64) -> f64 {
    0.5 * erfc(-z / std::f64::consts::SQRT_2)
}

/// The `p`-quantile of the standard normal distribution, `p` in 0..1 exclusive.
pub fn normal_quantile(p: f64) -> f64 {
    -std::f64::consts::SQRT_2 * erfc_inv(2.0 * p)
}

/// P(Binomial(n, p) <= k).
pub fn binomial_cdf(k: u64, n: u64, p: f64) -> f64 {
    if k >= n {
        return 1.0;
    }
    if p <= 0.0 {
        return 1.0;
    }
    if p >= 1.0 {
        return 0.0;
    }
    if n <= EXACT_BINOMIAL_LIMIT {
        // P(X <= k) = I_{1-p}(n-k, k+1), NIST DLMF 8.17.5.
        return beta_reg((n - k) as f64, (k + 1) as f64, 1.0 - p);
    }
    let (mean, deviation) = (n as f64 * p, (n as f64 * p * (1.0 - p)).sqrt());
    normal_cdf((k as f64 + 0.5 - mean) / deviation)
}

/// Rank (1-based) of the order statistic that is at or above the `q`-quantile with at least `confidence`, whatever the
/// distribution; `None` if `n` observations are too few for such a bound to exist.
///
/// Source: the distribution-free interval for a quantile, David and Nagaraja, "Order Statistics", 7.1.
pub fn upper_rank(n: u64, q: f64, confidence: f64) -> Option<u64> {
    if n > EXACT_BINOMIAL_LIMIT {
        let rank = (normal_rank(n, q, normal_quantile(confidence)) + 3.0).ceil();
        return (rank <= n as f64).then_some(rank.max(1.0) as u64);
    }
    // The smallest rank whose binomial probability of being below the quantile is small enough.
    let (mut low, mut high) = (1, n + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        if middle <= n && binomial_below(middle, n, q) < confidence {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    (low <= n).then_some(low)
}

/// Rank (1-based) of the order statistic that is at or below the `q`-quantile with at least `confidence`; `None` if `n`
/// observations are too few for such a bound to exist.
pub fn lower_rank(n: u64, q: f64, confidence: f64) -> Option<u64> {
    if n > EXACT_BINOMIAL_LIMIT {
        let rank = (normal_rank(n, q, -normal_quantile(confidence)) - 2.0).floor();
        return (rank >= 1.0).then_some(rank as u64);
    }
    let (mut low, mut high) = (0, n);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if binomial_below(middle, n, q) <= 1.0 - confidence {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    (low >= 1).then_some(low)
}

/// P(Binomial(n, q) <= rank - 1): the probability that the order statistic of this rank is at or above the quantile.
fn binomial_below(rank: u64, n: u64, q: f64) -> f64 {
    // With rank = n the cdf below n is 1 - q^n; `binomial_cdf` covers it because rank - 1 < n.
    binomial_cdf(rank - 1, n, q)
}

fn normal_rank(n: u64, q: f64, z: f64) -> f64 {
    n as f64 * q + z * (n as f64 * q * (1.0 - q)).sqrt()
}

/// Two-sided p-value of a Student t statistic with `degrees` degrees of freedom (which may be fractional).
pub fn student_two_sided(t: f64, degrees: f64) -> f64 {
    if !t.is_finite() {
        return if t.is_nan() { 1.0 } else { 0.0 };
    }
    if degrees > 1e6 {
        return erfc(t.abs() / std::f64::consts::SQRT_2);
    }
    // P(|T| > t) = I_x(v/2, 1/2) with x = v / (v + t^2), NIST DLMF 8.17 and the definition of T.
    beta_reg(0.5 * degrees, 0.5, degrees / (degrees + t * t))
}

/// The `t` that the absolute value of a Student t variable exceeds with probability `1 - confidence`.
pub fn student_critical(confidence: f64, degrees: f64) -> f64 {
    let tail = 1.0 - confidence;
    if degrees > 1e6 {
        return normal_quantile(1.0 - 0.5 * tail);
    }
    let x = inv_beta_reg(0.5 * degrees, 0.5, tail);
    (degrees * (1.0 - x) / x).sqrt()
}

/// Natural logarithm of the likelihood ratio of two beta-binomial distributions whose parameters add up to the
/// same sum: `successes` of `trials`, under (`a1`, `b1`) against (`a0`, `b0`).
pub fn ln_beta_binomial_ratio(successes: u64, trials: u64, null: (f64, f64), alternative: (f64, f64)) -> f64 {
    // Binomial coefficients and the gamma functions of a + b cancel.
    let (k, rest) = (successes as f64, (trials - successes) as f64);
    let rising = |start: f64, by: f64| ln_gamma(start + by) - ln_gamma(start);
    rising(alternative.0, k) + rising(alternative.1, rest) - rising(null.0, k) - rising(null.1, rest)
}

/// Natural logarithm of the number of ways to choose `k` of `n`.
pub fn ln_choose(n: u64, k: u64) -> f64 {
    let ln_factorial = |of: u64| ln_gamma(of as f64 + 1.0);
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// Benjamini–Hochberg adjusted p-values, in the given order: calling everything with an adjusted value of at most `x` a
/// change keeps the expected share of false positives among them at `x`.
///
/// Source: Benjamini and Hochberg, J. R. Stat. Soc. B 57 (1995).
pub fn benjamini_hochberg(p_values: &[f64]) -> Vec<f64> {
    let count = p_values.len();
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![1.0; count];
    let mut smallest: f64 = 1.0;
    for (rank, &index) in order.iter().enumerate().rev() {
        smallest = smallest.min(p_values[index] * count as f64 / (rank + 1) as f64);
        adjusted[index] = smallest;
    }
    adjusted
}

/// Which of many e-values (given as natural logarithms) to accept so that the expected share of false positives is at
/// most `alpha`, however they depend on each other: the e-BH procedure.
///
/// Source: Wang and Ramdas, "False discovery rate control with e-values", J. R. Stat. Soc. B 84 (2022).
pub fn e_benjamini_hochberg(ln_e_values: &[f64], alpha: f64) -> Vec<bool> {
    let count = ln_e_values.len();
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| ln_e_values[b].total_cmp(&ln_e_values[a]));
    let enough = |rank: usize| (count as f64 / ((rank + 1) as f64 * alpha)).ln();
    let accepted = (0..count)
        .rev()
        .find(|&rank| ln_e_values[order[rank]] >= enough(rank))
        .map_or(0, |rank| rank + 1);
    let mut answer = vec![false; count];
    order.iter().take(accepted).for_each(|&index| answer[index] = true);
    answer
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_least_observations_for_an_upper_bound_match_the_published_ones() {
        // n for a 97.5 % upper bound: ln 0.025 / ln q, rounded up.
        for (q, least) in [(0.5, 6), (0.9, 36), (0.99, 368)] {
            assert_eq!(upper_rank(least - 1, q, 0.975), None, "{q}");
            assert_eq!(upper_rank(least, q, 0.975), Some(least), "{q}");
        }
        assert_eq!(upper_rank(0, 0.5, 0.9), None);
        assert_eq!(lower_rank(0, 0.5, 0.9), None);
    }

    #[test]
    fn ranks_of_a_median_interval_match_the_textbook() {
        // 95 % interval of a median of 20: order statistics 6 and 15 (David and Nagaraja).
        assert_eq!(
            (lower_rank(20, 0.5, 0.975), upper_rank(20, 0.5, 0.975)),
            (Some(6), Some(15))
        );
        // The two formulas meet at the limit.
        let (exact, rough) = (
            upper_rank(10_000, 0.9, 0.995).unwrap(),
            upper_rank(10_001, 0.9, 0.995).unwrap(),
        );
        assert!(rough >= exact && rough - exact < 6, "{exact} {rough}");
        let (exact, rough) = (
            lower_rank(10_000, 0.9, 0.995).unwrap(),
            lower_rank(10_001, 0.9, 0.995).unwrap(),
        );
        assert!(rough <= exact && exact - rough < 6, "{exact} {rough}");
    }

    #[test]
    fn distributions_match_tables() {
        for (t, degrees, p) in [
            (2.228_138_852, 10.0, 0.05),
            (12.706_204_74, 1.0, 0.05),
            (1.959_963_985, 1e9, 0.05),
        ] {
            assert!((student_two_sided(t, degrees) - p).abs() < 1e-7, "{t} {degrees}");
            assert!((student_critical(1.0 - p, degrees) - t).abs() < 1e-5, "{degrees}");
        }
        assert!((normal_cdf(1.644_853_627) - 0.95).abs() < 1e-9);
        assert!((normal_quantile(0.975) - 1.959_963_985).abs() < 1e-6);
        assert!((binomial_cdf(49, 50, 0.9) - (1.0 - 0.9f64.powi(50))).abs() < 1e-12);
        assert!((binomial_cdf(0, 3, 0.5) - 0.125).abs() < 1e-12);
    }

    #[test]
    fn adjusted_p_values_match_a_worked_example() {
        let adjusted = benjamini_hochberg(&[0.04, 0.01, 0.03, 0.5]);
        for (got, want) in adjusted.iter().zip([0.16 / 3.0, 0.04, 0.16 / 3.0, 0.5]) {
            assert!((got - want).abs() < 1e-12, "{adjusted:?}");
        }
        assert!(benjamini_hochberg(&[]).is_empty());
    }

    #[test]
    fn e_values_are_accepted_together() {
        // Two of four: 4 / (2 * 0.05) = 40; a single one would need 80.
        assert_eq!(
            e_benjamini_hochberg(&[41f64.ln(), 0.0, 45f64.ln(), 0.0], 0.05),
            [true, false, true, false]
        );
        assert_eq!(e_benjamini_hochberg(&[41f64.ln(), 0.0, 0.0, 0.0], 0.05), [false; 4]);
    }

    /// Chance of `k` of `m` under a beta-binomial distribution.
    fn beta_binomial_pmf(k: u64, m: u64, a: f64, b: f64) -> f64 {
        let ln_choose = ln_gamma(m as f64 + 1.0) - ln_gamma(k as f64 + 1.0) - ln_gamma((m - k) as f64 + 1.0);
        let ln_beta = |x: f64, y: f64| ln_gamma(x) + ln_gamma(y) - ln_gamma(x + y);
        (ln_choose + ln_beta(a + k as f64, b + (m - k) as f64) - ln_beta(a, b)).exp()
    }

    proptest! {
        #[test]
        fn the_likelihood_ratio_averages_to_one_without_a_change_and_never_falls(
            n in 1u64..80, m in 1u64..80, q in 0.05f64..0.95, step in 0.05f64..0.95,
        ) {
            let rank = ((q * n as f64).ceil() as u64).clamp(1, n);
            let null = ((n - rank + 1) as f64, rank as f64);
            let share = null.0 / (n + 1) as f64;
            let a = (share + (1.0 - share) * step) * (n + 1) as f64;
            let alternative = (a, (n + 1) as f64 - a);
            let ratios: Vec<f64> = (0..=m).map(|k| ln_beta_binomial_ratio(k, m, null, alternative)).collect();
            let mean: f64 = (0..=m).map(|k| beta_binomial_pmf(k, m, null.0, null.1) * ratios[k as usize].exp()).sum();
            prop_assert!((mean - 1.0).abs() < 1e-6, "{mean}");
            prop_assert!(ratios.windows(2).all(|w| w[1] >= w[0] - 1e-9));
        }

        #[test]
        fn adjusting_keeps_the_order_and_never_lowers(p_values in prop::collection::vec(0.0f64..=1.0, 0..60)) {
            let adjusted = benjamini_hochberg(&p_values);
            for i in 0..p_values.len() {
                prop_assert!(adjusted[i] >= p_values[i] - 1e-12 && adjusted[i] <= 1.0);
                for j in 0..p_values.len() {
                    prop_assert!(p_values[i] > p_values[j] || adjusted[i] <= adjusted[j] + 1e-12);
                }
            }
        }

        #[test]
        fn a_quantile_interval_is_ordered(n in 1u64..30_000, q in 0.01f64..0.99) {
            if let (Some(low), Some(high)) = (lower_rank(n, q, 0.975), upper_rank(n, q, 0.975)) {
                prop_assert!(1 <= low && low < high && high <= n);
            }
        }
    }
}
