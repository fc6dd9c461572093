//! How far the mean of a level strays by itself in some blocks of time.
//!
//! Guarantee: what blocks show by chance, because they have few requests, is no wandering.

/// A level of one block of time, and the variance it has by chance.
pub(crate) type Level = (f64, f64);

/// Blocks that are compared with those after them.
const LAGS: usize = 8;
/// Shares of a wandering level that are left after a block, per alternative: memories of one, three and fifteen minutes.
const KEEPS: [f64; 3] = [0.6, 0.85, 0.967];
/// So many standard errors of what noise alone shows are taken off.
const CHANCE: f64 = 0.5;
/// What was seen for a few lengths of its memory was seen so many times at least.
const LEAST_FREEDOM: f64 = 3.0;
/// A difference wanders by so many times the variance that so many blocks of it show, at most: of a slow one they show a part.
const SHOWN: f64 = 3.0;
const ENOUGH_BLOCKS: f64 = 8.0;
/// Rounds in which the wandering of the mean itself, which is taken off, is put back.
const ROUNDS: usize = 3;

/// How restless a level is, from block to block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Restless {
    /// Variance of what lasts for more than a block, per alternative.
    wanders: [f64; KEEPS.len()],
    /// In how many independent stretches of time it was seen, about.
    freedom: [f64; KEEPS.len()],
    /// How many times as much as by chance blocks vary besides; at least 1. Sessions do this.
    apart: f64,
    /// Variance of blocks, and how many there were.
    seen: (f64, f64),
}

impl Restless {
    /// Of blocks that follow one another; each of `parts` has a mean of its own, and needs three blocks.
    ///
    /// Source: a first-order autoregression under noise, by moments: Box and Jenkins, "Time Series Analysis", 2.1 and 3.2. Its memory is
    /// not estimated: half an hour has too few of the long ones, so the worst of three is taken.
    pub(crate) fn of(parts: &[&[Level]]) -> Restless {
        let (mut squares, mut chance, mut count, mut degrees) = (0.0, 0.0, 0.0, 0.0);
        let (mut products, mut pairs) = ([0.0; LAGS], [0.0; LAGS]);
        for levels in parts.iter().filter(|levels| levels.len() >= 3) {
            let n = levels.len() as f64;
            let mean = levels.iter().map(|level| level.0).sum::<f64>() / n;
            squares += levels.iter().map(|level| (level.0 - mean).powi(2)).sum::<f64>();
            chance += levels.iter().map(|level| level.1).sum::<f64>();
            (count, degrees) = (count + n, degrees + n - 1.0);
            for lag in 0..LAGS.min(levels.len() - 1) {
                let both = levels.iter().zip(&levels[lag + 1..]);
                products[lag] += both.map(|(a, b)| (a.0 - mean) * (b.0 - mean)).sum::<f64>();
                pairs[lag] += n - (lag + 1) as f64;
            }
        }
        let mut restless = Restless {
            wanders: [0.0; KEEPS.len()],
            freedom: [LEAST_FREEDOM; KEEPS.len()],
            apart: 1.0,
            seen: (0.0, count),
        };
        // Levels are shares: less than this is rounding.
        if squares <= 1e-12 * count || chance == 0.0 {
            return restless;
        }
        let seen = squares / degrees;
        restless.seen.0 = seen;
        let many = parts.iter().filter(|levels| levels.len() >= 3).count() as f64;
        for (at, keep) in KEEPS.into_iter().enumerate() {
            let power = |lag: usize| keep.powi(lag as i32 + 1);
            let squared: f64 = (0..LAGS).map(|lag| power(lag).powi(2)).sum();
            let error = seen / (count * squared).sqrt();
            let mut wander = 0.0;
            for _ in 0..ROUNDS {
                let of_mean = (seen - wander).max(0.0) * many / count + wander * share_of_mean(keep, count / many);
                let covariance = |lag: usize| {
                    if pairs[lag] > 0.0 {
                        products[lag] / pairs[lag] + of_mean
                    } else {
                        0.0
                    }
                };
                let fitted = (0..LAGS).map(|lag| covariance(lag) * power(lag)).sum::<f64>() / squared;
                wander = (fitted - CHANCE * error).clamp(0.0, seen + of_mean);
            }
            restless.wanders[at] = wander;
            restless.freedom[at] = (count * (1.0 - keep) / (1.0 + keep)).max(LEAST_FREEDOM);
        }
        let most = restless.wanders.into_iter().fold(0.0, f64::max);
        restless.apart = ((seen - most) / (chance / count)).max(1.0);
        restless
    }

    /// Variance of what lasts, in the mean of so many blocks; `unsure` over the number of times that it was seen is added.
    pub(crate) fn of_mean(&self, blocks: f64, unsure: f64) -> f64 {
        let of = |at: usize| (1.0 + unsure / self.freedom[at]) * self.wanders[at] * share_of_mean(KEEPS[at], blocks);
        (0..KEEPS.len()).map(of).fold(0.0, f64::max)
    }

    /// The share of this wandering that a difference may have, of which this is one side: what both sides share does not show in it.
    /// 1 before enough blocks of it were seen.
    pub(crate) fn share_in(&self, difference: &Restless) -> f64 {
        let most = 2.0 * self.wanders.into_iter().fold(0.0, f64::max);
        match difference.seen {
            (seen, blocks) if blocks >= ENOUGH_BLOCKS => (SHOWN * seen / most).min(1.0),
            _ => 1.0,
        }
    }

    /// How many times as much as by chance blocks vary besides.
    pub(crate) fn apart(&self) -> f64 {
        self.apart
    }
}

/// Share of the variance of what lasts that is left in the mean of so many blocks.
fn share_of_mean(keep: f64, blocks: f64) -> f64 {
    let (k, n) = (keep, blocks.max(1.0));
    let sum = (1.0 + k) / (1.0 - k) - 2.0 * k * (1.0 - k.powf(n)) / (n * (1.0 - k).powi(2));
    (sum / n).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCKS: usize = 60;

    /// Numbers around 0 with variance 1, the same in every run.
    fn noise(seed: u64) -> impl FnMut() -> f64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        move || {
            let twelve = (0..12).map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (state >> 11) as f64 / (1u64 << 53) as f64
            });
            twelve.sum::<f64>() - 6.0
        }
    }

    /// Levels with a chance of their own each and a level that wanders, so much of which is left after a block.
    fn levels(seed: u64, chance: f64, wander: f64, keep: f64) -> Vec<Level> {
        let mut next = noise(seed);
        let mut level = next();
        (0..BLOCKS)
            .map(|_| {
                level = keep * level + (1.0 - keep * keep).sqrt() * next();
                (chance.sqrt() * next() + wander.sqrt() * level, chance)
            })
            .collect()
    }

    fn mean(of: impl Fn(u64) -> f64) -> f64 {
        (0..200).map(&of).sum::<f64>() / 200.0
    }

    #[test]
    fn what_wanders_is_seen_and_noise_is_not() {
        for keep in [0.6, 0.85, 0.967] {
            for blocks in [12.0, 60.0] {
                let truth = 4.0 * share_of_mean(keep, blocks);
                let seen = mean(|seed| Restless::of(&[&levels(seed, 1.0, 4.0, keep)]).of_mean(blocks, 20.0));
                assert!(seen > 0.8 * truth, "{keep} {blocks}: {seen} of {truth}");
                let missed = mean(|seed| {
                    let seen = Restless::of(&[&levels(seed, 1.0, 4.0, keep)]).of_mean(blocks, 20.0);
                    f64::from(u8::from(seen < 0.3 * truth))
                });
                assert!(missed < 0.1, "{keep} {blocks}: {missed}");
            }
        }
        // Of noise no more than the variance that it has itself, most of the time.
        let of_noise = |seed| Restless::of(&[&levels(seed, 1.0, 0.0, 0.0)]).of_mean(12.0, 0.0);
        let none = mean(|seed| f64::from(u8::from(of_noise(seed) < 1.0 / 12.0)));
        assert!(none > 0.5, "{none}");
    }

    /// Blocks that lie further apart than by chance, without a memory, are noise of more than chance.
    #[test]
    fn what_has_no_memory_counts_as_noise() {
        let apart = mean(|seed| {
            let wide = levels(seed, 9.0, 0.0, 0.0);
            let levels: Vec<Level> = wide.iter().map(|level| (level.0, 1.0)).collect();
            Restless::of(&[&levels]).apart()
        });
        assert!((6.0..9.5).contains(&apart), "{apart}");
        let alternating: Vec<Level> = (0..24).map(|at| (if at % 2 == 0 { 0.1 } else { -0.1 }, 0.01)).collect();
        let restless = Restless::of(&[&alternating]);
        assert_eq!((restless.of_mean(10.0, 0.0), restless.apart() >= 1.0), (0.0, true));
    }

    #[test]
    fn parts_have_means_of_their_own_and_few_blocks_say_nothing() {
        let (low, high) = (vec![(0.0, 1e-6); 10], vec![(0.3, 1e-6); 10]);
        let quiet = |restless: Restless| (restless.of_mean(5.0, 0.0), restless.apart());
        assert_eq!(quiet(Restless::of(&[&low, &high])), (0.0, 1.0));
        // A step within one part is wandering.
        assert!(Restless::of(&[&[low.clone(), high].concat()]).of_mean(5.0, 0.0) > 0.01);
        assert_eq!(quiet(Restless::of(&[&low[..2]])), (0.0, 1.0));
        assert_eq!(quiet(Restless::of(&[])), (0.0, 1.0));
    }

    /// Two sides that wander together differ by noise alone, and two that wander apart differ by both.
    #[test]
    fn what_both_sides_share_is_not_in_their_difference() {
        let share = |is_shared: bool, seed: u64| {
            let (a, b) = (levels(seed, 1.0, 9.0, 0.967), levels(seed + 1_000, 1.0, 9.0, 0.967));
            let noise = levels(seed + 2_000, 2.0, 0.0, 0.0);
            let apart = a.iter().zip(&b).map(|(a, b)| (a.0 - b.0, 2.0));
            let difference: Vec<Level> = if is_shared { noise } else { apart.collect() };
            Restless::of(&[&a]).share_in(&Restless::of(&[&difference[..20]]))
        };
        let together = mean(|seed| share(true, seed));
        let apart = mean(|seed| share(false, seed));
        assert!(together < 0.7 && apart > 0.85, "{together} {apart}");
        // A few blocks of a difference show nothing.
        let a = levels(1, 1.0, 9.0, 0.967);
        assert_eq!(Restless::of(&[&a]).share_in(&Restless::of(&[&a[..4]])), 1.0);
    }

    /// By adding up all pairs of blocks.
    #[test]
    fn the_share_of_the_mean_is_that_of_its_pairs() {
        for keep in KEEPS {
            for n in [1usize, 2, 7, 60] {
                let pairs = (0..n).flat_map(|a| (0..n).map(move |b| keep.powi(a.abs_diff(b) as i32)));
                let exact = pairs.sum::<f64>() / (n * n) as f64;
                assert!((share_of_mean(keep, n as f64) - exact).abs() < 1e-9, "{keep} {n}");
            }
        }
    }
}
