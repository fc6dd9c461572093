//! The latency verdict on simulated traffic: false alarms, delay, and what must never change it.

use crate::support::{Noise, NoiseState, Random, Route};
use emberline_analysis::{
    alert_state::{AlertConfig, AlertPhase, AlertState},
    latency::{LatencyConfig, LatencyOutcome, LatencyVerdict, LatencyWindow, estimate_quantile},
    latency_watch::{LatencyWatch, judge_latency},
};
use emberline_model::{alert::ComparisonMode, histogram::Histogram};
use proptest::prelude::*;

/// Windows of both releases, live together.
fn windows(route: &Route, count: usize, seed: u64) -> (Vec<LatencyWindow>, Vec<LatencyWindow>) {
    let (mut random, mut state) = (Random::new(seed), NoiseState::default());
    (0..count)
        .map(|at| {
            let [b, c] = route.window(at, &mut state, &mut random);
            let start = at as i64 * 10;
            (
                LatencyWindow { start, histogram: b },
                LatencyWindow { start, histogram: c },
            )
        })
        .unzip()
}

fn judge(route: &Route, count: usize, seed: u64) -> LatencyVerdict {
    let (baseline, candidate) = windows(route, count, seed);
    judge_latency(&baseline, &candidate, &LatencyConfig::default())
}

/// Watches with a false alarm, of `runs`.
fn false_alarms(route: Route, runs: u64) -> usize {
    route.operate(runs, 60, &LatencyConfig::default()).1.len()
}

#[test]
fn without_a_change_nothing_is_stated() {
    for requests in [3.0, 50.0, 400.0] {
        for median in [0.0015, 0.020] {
            let alarms = false_alarms(
                Route {
                    median,
                    requests,
                    ..Route::default()
                },
                60,
            );
            assert_eq!(alarms, 0, "{requests} requests, {median} s");
        }
    }
}

#[test]
fn noise_that_hits_both_releases_cancels() {
    for noise in [Noise::SharedBursts, Noise::SharedDrift] {
        assert_eq!(
            false_alarms(
                Route {
                    median: 0.020,
                    noise,
                    ..Route::default()
                },
                60
            ),
            0,
            "{noise:?}"
        );
    }
}

#[test]
fn bursts_of_one_window_that_hit_one_release_do_not_fire() {
    assert!(
        false_alarms(
            Route {
                median: 0.020,
                noise: Noise::OwnBursts,
                ..Route::default()
            },
            100
        ) <= 2
    );
    assert!(
        false_alarms(
            Route {
                median: 0.020,
                noise: Noise::OwnStalls,
                ..Route::default()
            },
            100
        ) <= 2
    );
}

/// At the edge of what is tested (a candidate slower by what is not tested) the rate must still be near alpha; with a larger
/// alpha, and nothing that keeps evidence from being stated, there is enough to count.
#[test]
fn the_false_alarm_rate_is_kept_at_the_edge_of_what_is_tested() {
    let config = LatencyConfig {
        alpha: 0.05,
        block_alpha: 0.05,
        floor_relative: 0.0,
        floor_seconds: 0.0,
        wander_errors: 0.0,
        ..LatencyConfig::default()
    };
    // A bucket is 2.2 %.
    let route = Route {
        median: 0.020,
        spread: 0.4,
        ..Route::default()
    };
    let share = |factor: f64| Route { factor, ..route }.operate(100, 60, &config).0;
    assert!(share(1.02) <= 0.08);
    // Not because nothing ever fires: a little above the edge it does.
    assert!(share(1.15) > 0.9);
}

#[test]
fn a_gross_slowdown_is_stated_within_two_minutes() {
    for noise in [Noise::None, Noise::SharedBursts, Noise::SharedDrift, Noise::OwnJitter] {
        let route = Route {
            added: 0.004,
            noise,
            ..Route::default()
        };
        let (share, fired) = route.operate(200, 18, &LatencyConfig::default());
        assert!(share > 0.97, "{noise:?}: {share}");
        // No bad half minute carries it.
        assert!(fired[0] >= 4, "{noise:?}: {fired:?}");
        assert!(fired[fired.len() * 9 / 10] <= 12, "{noise:?}: {fired:?}");
    }
}

#[test]
fn the_evidence_shows_both_releases() {
    let verdict = judge(
        &Route {
            added: 0.004,
            ..Route::default()
        },
        10,
        1,
    );
    assert_eq!(verdict.outcome, LatencyOutcome::Slower);
    assert_eq!(verdict.mode, ComparisonMode::Concurrent);
    assert_eq!((verdict.fired_at_window, verdict.since_window), (Some(50), Some(10)));
    assert!(verdict.e_value_ln_peak >= verdict.e_value_ln_needed);
    assert_eq!(verdict.windows_skipped, 1);
    assert_eq!(verdict.windows_used, 9);
    assert_eq!(verdict.judged.len(), 9);
    let shift = verdict.shift_seconds.unwrap();
    assert!((shift - 0.004).abs() < 0.000_4, "{shift}");
    assert!((verdict.mean_shift_seconds.unwrap() - 0.004).abs() < 0.000_3);
    for q in &verdict.quantiles {
        let (b, c) = (q.baseline.unwrap(), q.candidate.unwrap());
        assert!(b.low.unwrap() <= b.value && b.value <= b.high.unwrap());
        assert!(b.high.unwrap() < c.low.unwrap(), "{q:?}");
        assert!(q.exceedances as f64 > q.expected && q.exceedances <= q.requests);
    }
    assert_eq!(verdict.n_candidate, verdict.candidate.count());
    assert!(estimate_quantile(&verdict.candidate, 0.99).is_some());
}

#[test]
fn a_faster_candidate_is_said_to_be_faster() {
    let verdict = judge(
        &Route {
            median: 0.020,
            factor: 0.5,
            ..Route::default()
        },
        60,
        3,
    );
    assert_eq!(verdict.outcome, LatencyOutcome::Faster);
    assert!(verdict.shift_seconds.unwrap() < -0.008);
    assert_eq!(
        AlertState::replay(&verdict, &AlertConfig::default()).phase,
        AlertPhase::Inactive
    );
}

#[test]
fn too_few_requests_are_said_to_be_too_few() {
    let route = Route {
        requests: 1.0,
        added: 0.004,
        ..Route::default()
    };
    let verdict = judge(&route, 6, 1);
    let LatencyOutcome::TooFewSamples { needed_requests } = verdict.outcome else {
        panic!("{verdict:?}")
    };
    assert!((20..500).contains(&needed_requests), "{needed_requests}");
    // The same traffic for longer is enough, because windows are joined.
    assert_eq!(judge(&route, 120, 1).outcome, LatencyOutcome::Slower);
    let nothing = judge_latency(&[], &[], &LatencyConfig::default());
    assert_eq!(nothing.outcome, LatencyOutcome::TooFewSamples { needed_requests: 20 });
    assert_eq!(nothing.fired_at_window, None);
}

#[test]
fn one_window_however_loud_is_not_enough() {
    for count in [50.0, 5000.0] {
        let verdict = judge(
            &Route {
                requests: count,
                factor: 100.0,
                ..Route::default()
            },
            2,
            9,
        );
        assert_ne!(verdict.outcome, LatencyOutcome::Slower);
        assert!(verdict.e_value_ln_peak < verdict.e_value_ln_needed);
    }
}

#[test]
fn releases_one_after_the_other_are_compared_and_said_to_be() {
    let (old, _) = windows(
        &Route {
            median: 0.020,
            ..Route::default()
        },
        40,
        4,
    );
    let shifted = |route: &Route| {
        let mut new = windows(route, 40, 5).1;
        new.iter_mut().for_each(|w| w.start += 400);
        judge_latency(&old, &new, &LatencyConfig::default())
    };
    let slower = shifted(&Route {
        median: 0.020,
        factor: 1.5,
        ..Route::default()
    });
    assert_eq!(
        (slower.outcome, slower.mode),
        (LatencyOutcome::Slower, ComparisonMode::BeforeAfter)
    );
    // A bad minute carries no verdict.
    assert!(
        slower.fired_at_window.unwrap() >= 400 + 110,
        "{:?}",
        slower.fired_at_window
    );
    // The reference is counted once, not once per window.
    let all_of_it: u64 = old.iter().map(|w| w.histogram.count()).sum();
    assert_eq!(slower.n_baseline, all_of_it);
    assert_eq!(
        shifted(&Route {
            median: 0.020,
            ..Route::default()
        })
        .outcome,
        LatencyOutcome::NoChange
    );
}

/// The level wanders by 30 %: with the pooled bound alone every third watch would state a slowdown.
#[test]
fn a_baseline_that_wanders_by_itself_raises_the_threshold_of_before_and_after() {
    let stated = |route: Route| {
        let config = LatencyConfig::default();
        (0..60)
            .filter(|&seed| route.watch_replaced(60, seed, &config).is_some())
            .count()
    };
    let wandering = Route {
        median: 0.020,
        noise: Noise::SharedDrift,
        ..Route::default()
    };
    assert!(stated(wandering) <= 11);
    assert!(
        stated(Route {
            factor: 2.0,
            ..wandering
        }) >= 40
    );
}

#[test]
fn a_slowdown_that_begins_late_is_dated() {
    let verdict = judge(
        &Route {
            median: 0.020,
            factor: 2.0,
            from: 40,
            ..Route::default()
        },
        100,
        2,
    );
    assert_eq!(verdict.outcome, LatencyOutcome::Slower);
    assert!((400..=900).contains(&verdict.fired_at_window.unwrap()));
    assert!(
        (380..=410).contains(&verdict.since_window.unwrap()),
        "{:?}",
        verdict.since_window
    );
}

#[test]
fn a_slowdown_that_goes_away_is_not_stated() {
    let slow = windows(
        &Route {
            median: 0.020,
            factor: 3.0,
            ..Route::default()
        },
        4,
        6,
    );
    let calm = windows(
        &Route {
            median: 0.020,
            ..Route::default()
        },
        40,
        6,
    );
    let joined = |slow: &[LatencyWindow], calm: &[LatencyWindow]| -> Vec<LatencyWindow> {
        slow.iter().chain(&calm[4..]).cloned().collect()
    };
    let (baseline, candidate) = (joined(&slow.0, &calm.0), joined(&slow.1, &calm.1));
    let verdict = judge_latency(&baseline, &candidate, &LatencyConfig::default());
    assert_eq!(verdict.outcome, LatencyOutcome::NoChange);
    let state = AlertState::replay(&verdict, &AlertConfig::default());
    assert_eq!((state.phase, state.has_fired), (AlertPhase::Inactive, false));
}

#[test]
fn durations_of_zero_and_clamped_ones_do_no_harm() {
    let window = |start, value: u64| {
        let mut histogram = Histogram::new();
        (0..50).for_each(|_| histogram.record_ns(value));
        LatencyWindow { start, histogram }
    };
    for value in [0, u64::MAX] {
        let all: Vec<_> = (0..60).map(|w| window(w * 10, value)).collect();
        assert_eq!(
            judge_latency(&all, &all, &LatencyConfig::default()).outcome,
            LatencyOutcome::NoChange
        );
    }
}

/// Two days of a quiet route: what is kept does not grow, and what begins then is found, dated and shown as on the first day.
#[test]
fn a_watch_of_days_stays_small_and_still_finds_what_begins() {
    const DAYS: usize = 2 * 8640;
    let route = Route {
        median: 0.020,
        requests: 4.0,
        factor: 2.0,
        from: DAYS,
        ..Route::default()
    };
    let (mut random, mut state) = (Random::new(7), NoiseState::default());
    let mut watch = LatencyWatch::new(LatencyConfig::default());
    let (mut most, mut found) = (0, None);
    for at in 0..DAYS + 240 {
        let [baseline, candidate] = route.window(at, &mut state, &mut random);
        watch.push(at as i64 * 10, &baseline, &candidate);
        watch.take_judged();
        if at % 100 == 0 && at < DAYS {
            most = most.max(watch.bytes());
        }
        assert!(watch.stated_at().is_none() || at > DAYS, "stated at {at}");
        if watch.stated_at().is_some() && found.is_none() {
            found = Some(watch.verdict());
        }
    }
    assert!(most < 8_500, "{most} bytes");
    let verdict = found.expect("a slowdown after two days");
    let begins = DAYS as i64 * 10;
    let (since, fired) = (verdict.since_window.unwrap(), verdict.fired_at_window.unwrap());
    assert!((begins - 60..=begins + 60).contains(&since), "{since}");
    assert!((begins + 120..begins + 2_400).contains(&fired), "{fired}");
    let median = &verdict.quantiles[0];
    let times = median.candidate.unwrap().value / median.baseline.unwrap().value;
    assert!((1.75..2.3).contains(&times), "{times}");
    assert!(verdict.n_candidate >= 20 && verdict.last_baseline_window == Some(fired));
}

fn any_route() -> impl Strategy<Value = Route> {
    (0usize..7, 1.0f64..80.0, 0.8f64..2.5, 0usize..10).prop_map(|(noise, requests, factor, from)| Route {
        median: 0.005,
        requests,
        factor,
        from,
        noise: crate::support::NOISES[noise],
        ..Route::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_verdict_never_depends_on_later_windows(route in any_route(), seed in 0u64..1000, gap in 0usize..20) {
        let (mut baseline, candidate) = windows(&route, 30, seed);
        // Some runs lose the baseline half way, so both modes occur.
        baseline.truncate(30 - gap);
        let whole = judge_latency(&baseline, &candidate, &LatencyConfig::default());
        let mut earlier: Option<i64> = None;
        for end in 0..=30 {
            let upto = |w: &[LatencyWindow]| w.iter().filter(|w| w.start < end * 10).cloned().collect::<Vec<_>>();
            let part = judge_latency(&upto(&baseline), &upto(&candidate), &LatencyConfig::default());
            prop_assert_eq!(&part.judged[..], &whole.judged[..part.judged.len()]);
            if part.outcome == LatencyOutcome::Slower {
                prop_assert_eq!(whole.outcome, LatencyOutcome::Slower);
                prop_assert_eq!(part.fired_at_window, whole.fired_at_window);
                prop_assert_eq!(part.since_window, whole.since_window);
                earlier = earlier.or(Some(end * 10 - 10));
            }
        }
        if whole.outcome == LatencyOutcome::Slower {
            prop_assert_eq!(earlier, whole.fired_at_window);
        }
    }

    #[test]
    fn a_restart_repeats_the_verdict(route in any_route(), seed in 0u64..1000) {
        let (baseline, candidate) = windows(&route, 25, seed);
        let mut watch = LatencyWatch::new(LatencyConfig::default());
        for (b, c) in baseline.iter().zip(&candidate) {
            watch.push(b.start, &b.histogram, &c.histogram);
        }
        prop_assert_eq!(watch.verdict(), judge_latency(&baseline, &candidate, &LatencyConfig::default()));
    }

    #[test]
    fn instances_and_windows_may_come_in_any_order(route in any_route(), seed in 0u64..1000) {
        let (a, b) = (windows(&route, 20, seed), windows(&route, 20, seed + 5000));
        let chain = |x: &[LatencyWindow], y: &[LatencyWindow]| x.iter().chain(y).cloned().collect::<Vec<_>>();
        let reversed = |mut all: Vec<LatencyWindow>| { all.reverse(); all };
        let config = LatencyConfig::default();
        let one = judge_latency(&chain(&a.0, &b.0), &chain(&a.1, &b.1), &config);
        let other = judge_latency(&reversed(chain(&b.0, &a.0)), &chain(&b.1, &a.1), &config);
        prop_assert_eq!(&one.judged, &other.judged);
        prop_assert_eq!((one.outcome, one.fired_at_window, &one.quantiles), (other.outcome, other.fired_at_window, &other.quantiles));
    }

    #[test]
    fn slowing_every_request_never_lowers_the_evidence(route in any_route(), seed in 0u64..1000) {
        let (baseline, candidate) = windows(&route, 15, seed);
        let slowed: Vec<LatencyWindow> = candidate
            .iter()
            .map(|w| {
                let h = &w.histogram;
                let buckets = h.buckets().iter().map(|&(index, n)| (index + 16, n));
                let histogram = Histogram::from_parts(h.zero_count(), h.sum() * 1.5, h.min() * 1.5, h.max() * 1.5, buckets);
                LatencyWindow { start: w.start, histogram }
            })
            .collect();
        let config = LatencyConfig::default();
        let (plain, slower) = (judge_latency(&baseline, &candidate, &config), judge_latency(&baseline, &slowed, &config));
        for (p, s) in plain.judged.iter().zip(&slower.judged) {
            prop_assert!(s.e_value_ln >= p.e_value_ln - 1e-9);
        }
    }
}
