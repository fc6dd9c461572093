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
    if squares <= 0.0 {
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
