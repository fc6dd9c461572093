//! How far a level wanders by itself, and how much blocks of time have in common.
//!
//! Guarantee: what a span shows by chance, because it has few requests, counts for nothing.

/// Differences between spans that are needed to know how far they wander.
const LEAST_DEGREES: f64 = 3.0;

/// A level of one span of time, and the variance it has by chance.
pub(crate) type Level = (f64, f64);

/// Standard deviation of what `levels` differ by beyond chance (a standard error) and share with their neighbours, 0 when there
/// is nothing; `None` with too few of them. Each of `parts` is a stretch with a mean of its own. What differs
/// from span to span without memory, as bursts and sessions do, averages out and is left to the evidence of blocks.
///
/// Source: the variance between groups by moments, DerSimonian and Laird, Control. Clin. Trials 7 (1986); the covariance of
/// neighbours with its correction for the mean, Box and Jenkins, "Time Series Analysis", 2.1.
pub(crate) fn wander(parts: &[&[Level]]) -> Option<f64> {
    let (mut squares, mut products, mut chance, mut degrees) = (0.0, 0.0, 0.0, 0.0);
    for levels in parts.iter().filter(|levels| levels.len() >= 2) {
        let mean = levels.iter().map(|level| level.0).sum::<f64>() / levels.len() as f64;
        let freedom = (levels.len() - 1) as f64;
        let of_part: f64 = levels.iter().map(|level| (level.0 - mean).powi(2)).sum();
        squares += of_part;
        products += levels
            .windows(2)
            .map(|pair| (pair[0].0 - mean) * (pair[1].0 - mean))
            .sum::<f64>();
        products += of_part / levels.len() as f64;
        chance += levels.iter().map(|level| level.1).sum::<f64>() / levels.len() as f64 * freedom;
        degrees += freedom;
    }
    (degrees >= LEAST_DEGREES).then(|| {
        let by_chance = chance / degrees * (1.0 + (2.0 / degrees).sqrt());
        let beyond = squares / degrees - by_chance;
        beyond.min(products / degrees).max(0.0).sqrt()
    })
}

/// How many times as much the mean of `levels` varies as if each were on its own, beyond chance (a standard error), and at least 1.
///
/// Source: the long-run variance with Bartlett's weights, Newey and West, Econometrica 55 (1987).
pub(crate) fn likeness(parts: &[&[Level]], lags: usize) -> f64 {
    let (mut squares, mut count) = (0.0, 0.0);
    let mut products = vec![0.0; lags];
    for levels in parts.iter().filter(|levels| levels.len() >= 3) {
        let mean = levels.iter().map(|level| level.0).sum::<f64>() / levels.len() as f64;
        squares += levels.iter().map(|level| (level.0 - mean).powi(2)).sum::<f64>();
        count += levels.len() as f64;
        for (lag, sum) in products.iter_mut().enumerate() {
            let later = levels.iter().skip(lag + 1);
            *sum += levels
                .iter()
                .zip(later)
                .map(|(a, b)| (a.0 - mean) * (b.0 - mean))
                .sum::<f64>();
        }
    }
    // Levels are shares: less than this is rounding.
    if squares <= 1e-12 * count {
        return 1.0;
    }
    let weight = |lag: usize| 1.0 - (lag + 1) as f64 / (lags + 1) as f64;
    let sum: f64 = products
        .iter()
        .enumerate()
        .map(|(lag, product)| weight(lag) * product / squares)
        .sum();
    let error = 2.0 * ((0..lags).map(|lag| weight(lag).powi(2)).sum::<f64>() / count).sqrt();
    (1.0 + 2.0 * sum - error).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A level that goes up and down slowly, so far.
    fn slow(amplitude: f64, chance: f64) -> Vec<Level> {
        (0..24)
            .map(|at| (amplitude * (f64::from(at) * 0.5).sin(), chance))
            .collect()
    }

    #[test]
    fn what_wanders_further_is_never_said_to_wander_less() {
        let of = |amplitude, chance| wander(&[&slow(amplitude, chance)]).unwrap_or_default();
        let further: Vec<f64> = (0..20).map(|at| of(f64::from(at) * 0.01, 1e-4)).collect();
        assert!(further.windows(2).all(|w| w[1] >= w[0]), "{further:?}");
        assert!(further[0] == 0.0 && further[19] > 0.1, "{further:?}");
        // What chance explains is no wandering.
        let by_chance: Vec<f64> = (0..20).map(|at| of(0.1, f64::from(at) * 5e-4)).collect();
        assert!(by_chance.windows(2).all(|w| w[1] <= w[0]), "{by_chance:?}");
        assert_eq!(by_chance[19], 0.0);
    }

    #[test]
    fn what_has_no_memory_does_not_wander_and_parts_have_means_of_their_own() {
        let alternating: Vec<Level> = (0..24).map(|at| (if at % 2 == 0 { 0.1 } else { -0.1 }, 1e-6)).collect();
        assert_eq!(wander(&[&alternating]), Some(0.0));
        // A step between two parts is what is looked for, and not wandering; within one part it is.
        let (low, high) = (vec![(0.0, 1e-6); 10], vec![(0.3, 1e-6); 10]);
        assert_eq!(wander(&[&low, &high]), Some(0.0));
        assert!(wander(&[&[low.clone(), high].concat()]).unwrap_or_default() > 0.1);
        assert_eq!(wander(&[&low[..3]]), None);
    }

    #[test]
    fn blocks_that_hang_together_are_alike_and_others_are_not() {
        assert!(likeness(&[&slow(0.1, 0.0)], 4) > 2.0);
        let alternating: Vec<Level> = (0..24).map(|at| (f64::from(at % 2), 0.0)).collect();
        assert_eq!(likeness(&[&alternating], 4), 1.0);
        assert_eq!(likeness(&[&[(0.2, 0.0); 9]], 4), 1.0);
        assert_eq!(likeness(&[], 4), 1.0);
    }
}
