//! That the evidence is that of fair bets: over every order in which some requests may come, it averages to no more than 1.
//! Exact, by counting.

use emberline_analysis::{latency::LatencyConfig, latency_watch::LatencyWatch};
use emberline_model::histogram::Histogram;

/// The next order of some things that may be alike, as in a dictionary; false after the last.
fn next_order(of: &mut [u8]) -> bool {
    let Some(at) = of.windows(2).rposition(|pair| pair[0] < pair[1]) else {
        return false;
    };
    let with = of.iter().rposition(|&value| value > of[at]).unwrap_or(at);
    of.swap(at, with);
    of[at + 1..].reverse();
    true
}

/// Averages of the e-values of requests and of blocks after each window, over all orders of `durations`: two in a window, of
/// which the second is the candidate's.
fn averages(config: &LatencyConfig, mut durations: Vec<u8>) -> Vec<[f64; 2]> {
    let one = |value: u8| {
        let mut histogram = Histogram::new();
        histogram.record_ns(u64::from(value) * 10_000_000);
        histogram
    };
    let values: Vec<Histogram> = (0..=10).map(one).collect();
    durations.sort_unstable();
    let (mut sums, mut orders) = (vec![[0.0; 2]; durations.len() / 2], 0.0);
    loop {
        let mut watch = LatencyWatch::new(config.clone());
        for (at, window) in durations.chunks_exact(2).enumerate() {
            let [baseline, candidate] = [0, 1].map(|side| &values[usize::from(window[side])]);
            watch.push(at as i64 * 10, baseline, candidate);
            let verdict = watch.verdict();
            sums[at][0] += verdict.e_value_ln.exp();
            sums[at][1] += verdict.block_e_value_ln.exp();
        }
        orders += 1.0;
        if !next_order(&mut durations) {
            return sums.iter().map(|sum| sum.map(|of| of / orders)).collect();
        }
    }
}

/// A watch without earlier windows, whose first thresholds come from what it judged before, and whose windows are joined: the
/// case in which a threshold that moved with the windows it is used on would show.
#[test]
fn the_evidence_averages_to_no_more_than_one_over_all_orders() {
    let (two, three) = (
        vec![1, 1, 1, 1, 1, 1, 1, 5, 5, 5, 5, 5, 5, 5],
        vec![1, 1, 1, 3, 3, 3, 7, 7, 7, 7],
    );
    for (stratum, durations) in [(1, two.clone()), (2, two.clone()), (3, two), (2, three)] {
        let config = LatencyConfig {
            min_stratum_requests: stratum,
            min_requests: 1,
            skip_first_windows: 0,
            tested_relative: 0.0,
            ..LatencyConfig::default()
        };
        for (at, [requests, blocks]) in averages(&config, durations).into_iter().enumerate() {
            assert!(requests <= 1.0 + 1e-9, "strata of {stratum}, window {at}: {requests}");
            assert!(
                blocks <= 1.0 + 1e-9,
                "strata of {stratum}, window {at}, blocks: {blocks}"
            );
            // Not because nothing is counted.
            assert!(requests > 0.5, "strata of {stratum}, window {at}: {requests}");
        }
    }
}
