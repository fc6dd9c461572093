//! The error verdict on simulated failures: what it finds, how soon, and how often it is wrong.

use emberline_analysis::errors::{ErrorConfig, ErrorVerdict, ErrorWindow, judge_errors};
use emberline_model::alert::ComparisonMode;

use crate::support::Random;

/// Windows `from..to` of a release whose requests fail with a chance that depends on the window.
fn windows(random: &mut Random, from: i64, to: i64, requests: u64, chance: impl Fn(i64) -> f64) -> Vec<ErrorWindow> {
    (from..to)
        .map(|n| ErrorWindow {
            start: n * 10,
            requests,
            errors: (0..requests).filter(|_| random.chance(chance(n))).count() as u64,
        })
        .collect()
}

fn judge(baseline: &[ErrorWindow], candidate: &[ErrorWindow]) -> ErrorVerdict {
    judge_errors(baseline, candidate, &ErrorConfig::default())
}

#[test]
fn a_release_that_fails_at_once_is_found_in_two_windows() {
    let mut random = Random::new(1);
    let baseline = windows(&mut random, 0, 40, 50, |_| 0.0);
    let candidate = windows(&mut random, 30, 40, 50, |_| 1.0);
    let verdict = judge(&baseline, &candidate);
    // The first is not judged.
    assert_eq!((verdict.fired_at_window, verdict.since_window), (Some(320), Some(310)));
    assert_eq!(
        (verdict.mode, verdict.candidate.share()),
        (ComparisonMode::Concurrent, 1.0)
    );
    assert!(verdict.candidate.interval().0 > 0.9 && verdict.baseline.interval().1 < 0.05);
}

#[test]
fn a_few_more_failures_are_found_later_and_fewer_than_the_floor_never() {
    let mut random = Random::new(2);
    let baseline = windows(&mut random, 0, 400, 100, |_| 0.002);
    let candidate = windows(&mut random, 30, 400, 100, |_| 0.04);
    let fired = judge(&baseline, &candidate).fired_at_window.expect("found");
    assert!(fired < 600, "{fired}");
    let candidate = windows(&mut random, 30, 400, 100, |_| 0.006);
    assert_eq!(judge(&baseline, &candidate).fired_at_window, None);
}

#[test]
fn failures_that_begin_late_are_dated() {
    let mut random = Random::new(3);
    let baseline = windows(&mut random, 0, 100, 50, |_| 0.01);
    let candidate = windows(&mut random, 10, 100, 50, |n| if n < 60 { 0.01 } else { 0.5 });
    let verdict = judge(&baseline, &candidate);
    assert_eq!(verdict.since_window, Some(600));
    assert!(verdict.fired_at_window.is_some_and(|at| at <= 640), "{verdict:?}");
}

#[test]
fn a_release_that_follows_is_compared_with_what_was() {
    let mut random = Random::new(4);
    let baseline = windows(&mut random, 0, 60, 50, |_| 0.01);
    let candidate = windows(&mut random, 60, 90, 50, |_| 0.6);
    let verdict = judge(&baseline, &candidate);
    assert_eq!(verdict.mode, ComparisonMode::BeforeAfter);
    assert!(verdict.fired_at_window.is_some_and(|at| at <= 740), "{verdict:?}");
    let quiet = windows(&mut random, 60, 90, 50, |_| 0.012);
    assert_eq!(judge(&baseline, &quiet).fired_at_window, None);
}

#[test]
fn without_a_change_nothing_is_stated() {
    for (requests, chance) in [(3, 0.3), (20, 0.0), (20, 0.05), (200, 0.002), (200, 0.5)] {
        let mut alarms = 0;
        for seed in 0..300 {
            let mut random = Random::new(seed * 31 + 7);
            // An outage of something both depend on.
            let both = |n: i64| if (100..110).contains(&n) { 0.9 } else { chance };
            let baseline = windows(&mut random, 0, 200, requests, both);
            let candidate = windows(&mut random, 20, 200, requests / 2 + 1, both);
            alarms += usize::from(judge(&baseline, &candidate).fired_at_window.is_some());
        }
        // 0.3 are expected at most.
        assert!(alarms <= 2, "{requests} requests, {chance}: {alarms} of 300");
    }
}

#[test]
fn one_window_never_carries_a_verdict() {
    let mut random = Random::new(5);
    let baseline = windows(&mut random, 0, 60, 500, |_| 0.0);
    let candidate = windows(&mut random, 10, 60, 500, |n| if n == 30 { 1.0 } else { 0.0 });
    assert_eq!(judge(&baseline, &candidate).fired_at_window, None);
    assert_eq!(judge(&[], &[]).fired_at_window, None);
}
