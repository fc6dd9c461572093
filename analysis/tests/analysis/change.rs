//! One cost per request of two releases, by windows written down.

use emberline_analysis::change::{CostComparison, CostConfig, CostWindow, ExposureWindow, Sides, compare_cost};
use emberline_model::comparison::Judgement;

fn exposures(windows: usize, each: f64) -> Vec<ExposureWindow> {
    (0..windows)
        .map(|w| ExposureWindow {
            start: w as i64 * 10,
            exposure: each,
        })
        .collect()
}

fn costs(samples: &[u64]) -> Vec<CostWindow> {
    samples
        .iter()
        .enumerate()
        .map(|(w, &n)| CostWindow {
            start: w as i64 * 10,
            cost: n as f64 * 1e7,
            samples: n,
        })
        .collect()
}

fn compare(baseline: &[u64], candidate: &[u64]) -> CostComparison {
    let (eb, ec) = (exposures(baseline.len(), 50.0), exposures(candidate.len(), 50.0));
    let (cb, cc) = (costs(baseline), costs(candidate));
    compare_cost(
        Sides {
            baseline: &eb,
            candidate: &ec,
        },
        Sides {
            baseline: &cb,
            candidate: &cc,
        },
        &CostConfig::default(),
    )
}

#[test]
fn two_windows_suffice_for_a_huge_effect() {
    let change = compare(&[0, 0], &[21, 19]);
    assert!(change.grew(), "{change:?}");
    assert!((change.delta - 40.0 * 1e7 / 100.0).abs() < 1e-6);
    assert!(change.low > 0.0 && change.high > change.delta);
    assert_eq!(change.ratio(), None);
    // Nothing seen is not known to be nothing.
    assert!(change.baseline.standard_error > 0.0);
    assert!(compare(&[20, 20], &[0, 0]).shrank());
}

#[test]
fn equal_sides_are_no_change_and_few_samples_are_not_judged() {
    assert_eq!(compare(&[20, 22, 18], &[21, 19, 20]).judgement(), Judgement::NoChange);
    assert_eq!(compare(&[1, 0], &[9, 3]).judgement(), Judgement::TooFewSamples);
    assert_eq!(compare(&[], &[50, 60]).judgement(), Judgement::TooFewSamples);
    assert_eq!(compare(&[], &[]).p_value, 1.0);
}

#[test]
fn windows_that_differ_widely_widen_the_interval() {
    let calm = compare(&[20; 10], &[30; 10]);
    let bursty = compare(&[2, 90, 0, 3, 60, 1, 0, 40, 2, 2], &[1, 130, 2, 0, 3, 90, 70, 2, 1, 1]);
    assert!(calm.grew() && calm.dispersion == 1.0);
    assert!(!bursty.grew() && bursty.dispersion > 5.0, "{bursty:?}");
}

#[test]
fn cost_without_requests_in_its_window_is_left_out() {
    let exposures = exposures(2, 50.0);
    let rows = costs(&[10, 10, 500]);
    let both = Sides {
        baseline: exposures.as_slice(),
        candidate: exposures.as_slice(),
    };
    let change = compare_cost(
        both,
        Sides {
            baseline: &rows,
            candidate: &rows,
        },
        &CostConfig::default(),
    );
    assert_eq!(change.candidate.samples, 20);
    assert_eq!(change.delta, 0.0);
}
