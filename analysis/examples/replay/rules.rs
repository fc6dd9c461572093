//! The usual rules, for comparison: each looks once a minute at all requests so far and keeps what it has said.

use emberline_analysis::statistics::{binomial_cdf, normal_quantile};

/// What a rule looks at: durations in seconds of all requests so far, and their medians by minute.
pub(crate) struct Seen<'a> {
    pub(crate) baseline: &'a [f64],
    pub(crate) candidate: &'a [f64],
    pub(crate) minutes: [&'a [f64]; 2],
    /// Minutes since the candidate began.
    pub(crate) minute: usize,
}

pub(crate) const NAMES: [&str; 4] = ["mean +5 %", "p95 +10 %", "Mann-Whitney", "Kayenta-like"];

/// Which rules fire now.
pub(crate) fn fire(seen: &Seen<'_>) -> [bool; NAMES.len()] {
    let enough = |least: usize| seen.baseline.len().min(seen.candidate.len()) >= least;
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
    [
        enough(20) && mean(seen.candidate) > 1.05 * mean(seen.baseline),
        enough(20) && quantile(seen.candidate, 0.95) > 1.10 * quantile(seen.baseline, 0.95),
        enough(10) && mann_whitney(seen.baseline, seen.candidate) > normal_quantile(0.995),
        seen.minute.is_multiple_of(5) && kayenta_like(seen.minutes[0], seen.minutes[1]),
    ]
}

pub(crate) fn quantile(of: &[f64], q: f64) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// The standard score of the Mann–Whitney statistic; positive when the second sample is slower.
fn mann_whitney(baseline: &[f64], candidate: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> = baseline.iter().map(|&v| (v, false)).collect();
    all.extend(candidate.iter().map(|&v| (v, true)));
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (n, m) = (baseline.len() as f64, candidate.len() as f64);
    let (mut ranks, mut ties, mut at) = (0.0, 0.0, 0);
    while at < all.len() {
        let end = at + all[at..].iter().take_while(|v| v.0 == all[at].0).count();
        let (size, slow) = ((end - at) as f64, all[at..end].iter().filter(|v| v.1).count() as f64);
        ranks += slow * (at as f64 + 0.5 * (size + 1.0));
        ties += size * size * size - size;
        at = end;
    }
    let all = n + m;
    let u = ranks - 0.5 * m * (m + 1.0);
    let variance = n * m / 12.0 * (all + 1.0 - ties / (all * (all - 1.0)));
    if variance > 0.0 {
        (u - 0.5 * n * m) / variance.sqrt()
    } else {
        0.0
    }
}

/// The judge of Kayenta: Mann–Whitney with the Hodges–Lehmann 98 % interval on medians by minute, high when it lies above
/// a quarter of the estimate's deviation and the ratio of means is above 1.1.
fn kayenta_like(baseline: &[f64], candidate: &[f64]) -> bool {
    if baseline.len().min(candidate.len()) < 5 {
        return false;
    }
    let mut differences: Vec<f64> = candidate
        .iter()
        .flat_map(|c| baseline.iter().map(move |b| c - b))
        .collect();
    differences.sort_by(f64::total_cmp);
    let (n, m) = (baseline.len() as f64, candidate.len() as f64);
    let half = normal_quantile(0.99) * (n * m * (n + m + 1.0) / 12.0).sqrt();
    let low = (0.5 * n * m - half).floor();
    if low < 0.0 {
        return false;
    }
    let estimate = differences[differences.len() / 2];
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
    differences[low as usize] > 0.25 * estimate.abs() && mean(candidate) > 1.1 * mean(baseline)
}

/// The 95 % interval of a share, by Clopper and Pearson.
pub(crate) fn interval(hits: usize, of: usize) -> (f64, f64) {
    let (k, n) = (hits as u64, of as u64);
    let solve = |wanted: &dyn Fn(f64) -> bool| {
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..50 {
            let middle = 0.5 * (low + high);
            if wanted(middle) { low = middle } else { high = middle }
        }
        low
    };
    let low = if k == 0 {
        0.0
    } else {
        solve(&|p| 1.0 - binomial_cdf(k - 1, n, p) < 0.025)
    };
    let high = if k == n {
        1.0
    } else {
        solve(&|p| binomial_cdf(k, n, p) > 0.025)
    };
    (low, high)
}
