//! The function table, cost shifts and the guilty function on simulated profiles.

use crate::support::{COST_PER_SAMPLE, FIRST_LEAF, HANDLER, Profiled};
use emberline_analysis::{
    attribution::{Finding, find_guilty},
    change::{CostConfig, ExposureWindow, Sides},
    cost_shift::find_moved,
    functions::{FunctionReport, FunctionSeries, FunctionWindow, compare_functions},
};
use emberline_model::comparison::{Confidence, FunctionState, Judgement};
use proptest::prelude::*;

fn report_of(exposures: &Sides<Vec<ExposureWindow>>, functions: &[FunctionSeries]) -> FunctionReport {
    let sides = Sides {
        baseline: exposures.baseline.as_slice(),
        candidate: exposures.candidate.as_slice(),
    };
    compare_functions(sides, functions, &CostConfig::default())
}

fn simulate(profiled: Profiled, seed: u64) -> FunctionReport {
    let (exposures, functions) = profiled.draw(seed);
    report_of(&exposures, &functions)
}

const CALM: Profiled = Profiled {
    windows: 10,
    requests: 50.0,
    leaves: 100,
    samples_per_request: 2.0,
    burstiness: 0.0,
    changed: None,
    factor: 1.0,
};

/// A route built by hand: per function (id, library, callers, self samples of each side, total samples of each side),
/// the same in each of `windows` windows of 50 requests.
type Built<'a> = (u64, bool, &'a [u64], [u64; 2], [u64; 2]);

fn build(windows: usize, functions: &[Built<'_>]) -> FunctionReport {
    let starts = || (0..windows).map(|w| w as i64 * 10);
    let exposures = || {
        starts()
            .map(|start| ExposureWindow { start, exposure: 50.0 })
            .collect::<Vec<_>>()
    };
    let series: Vec<FunctionSeries> = functions
        .iter()
        .map(|&(function, is_library, callers, own, total)| {
            let rows = |side: usize| {
                starts()
                    .map(|start| FunctionWindow {
                        start,
                        self_cost: own[side] as f64 * COST_PER_SAMPLE,
                        total_cost: total[side] as f64 * COST_PER_SAMPLE,
                        self_samples: own[side],
                        total_samples: total[side],
                    })
                    .collect()
            };
            FunctionSeries {
                function,
                is_library,
                callers: callers.to_vec(),
                baseline: rows(0),
                candidate: rows(1),
            }
        })
        .collect();
    report_of(
        &Sides {
            baseline: exposures(),
            candidate: exposures(),
        },
        &series,
    )
}

fn named(report: &FunctionReport) -> u64 {
    match find_guilty(report) {
        Finding::Function(guilty) => guilty.function,
        other => panic!("{other:?}"),
    }
}

const RUNTIME: u64 = 1;
const SERVE: u64 = 2;
const PRICE_BASKET: u64 = 3;
const WRAPPING_MUL: u64 = 4;
const OTHER: u64 = 5;

#[test]
fn the_application_function_is_named_and_not_its_library_leaf_or_its_callers() {
    let report = build(
        2,
        &[
            (RUNTIME, true, &[], [2, 2], [8, 30]),
            (SERVE, false, &[RUNTIME], [1, 1], [6, 28]),
            (PRICE_BASKET, false, &[SERVE], [1, 4], [2, 24]),
            (WRAPPING_MUL, true, &[PRICE_BASKET], [1, 20], [1, 20]),
            (OTHER, false, &[SERVE], [3, 3], [3, 3]),
        ],
    );
    assert_eq!(report.route.judgement(), Judgement::Changed);
    assert_eq!(named(&report), PRICE_BASKET);
    let Finding::Function(guilty) = find_guilty(&report) else {
        panic!()
    };
    assert!((guilty.share - 1.0).abs() < 1e-9 && !guilty.is_library);
}

#[test]
fn a_new_function_found_in_two_windows_is_named() {
    let report = build(
        2,
        &[
            (RUNTIME, true, &[], [3, 3], [7, 27]),
            (SERVE, false, &[RUNTIME], [4, 4], [4, 24]),
            (PRICE_BASKET, false, &[SERVE], [0, 20], [0, 20]),
        ],
    );
    let change = report.function(PRICE_BASKET).unwrap();
    assert_eq!(
        (change.state, change.total_cost.confidence),
        (FunctionState::New, Confidence::Strong)
    );
    assert_eq!(named(&report), PRICE_BASKET);
}

#[test]
fn equal_totals_are_told_apart_by_their_calls() {
    // Everything below SERVE is inlined library code: no self time tells SERVE from PRICE_BASKET.
    let report = build(
        4,
        &[
            (SERVE, false, &[], [0, 0], [5, 25]),
            (PRICE_BASKET, false, &[SERVE], [0, 0], [5, 25]),
            (WRAPPING_MUL, true, &[PRICE_BASKET], [5, 25], [5, 25]),
        ],
    );
    assert_eq!(named(&report), PRICE_BASKET);
}

/// By the samples of both sides in a window.
fn below_serve(functions: &[(u64, [u64; 2])]) -> FunctionReport {
    let total = |side: usize| 4 + functions.iter().map(|f| f.1[side]).sum::<u64>();
    let (before, after) = (total(0), total(1));
    let mut built: Vec<Built> = vec![
        (RUNTIME, true, &[], [1, 1], [before + 1, after + 1]),
        (SERVE, false, &[RUNTIME], [4, 4], [before, after]),
    ];
    built.extend(functions.iter().map(|&(id, own)| (id, false, &[SERVE][..], own, own)));
    build(6, &built)
}

#[test]
fn culprits_of_unlike_size_are_named_by_the_function_that_calls_them() {
    let report = below_serve(&[(PRICE_BASKET, [20, 120]), (OTHER, [20, 70])]);
    assert_eq!(named(&report), SERVE);
}

#[test]
fn a_growth_of_many_is_spread_over_what_lies_below_their_caller() {
    let below = |report: &FunctionReport| match find_guilty(report) {
        Finding::Spread { below, factor } => (below.map(|b| b.function), factor),
        other => panic!("{other:?}"),
    };
    let alike: Vec<(u64, [u64; 2])> = (10..20).map(|id| (id, [20, 40])).collect();
    let (function, factor) = below(&below_serve(&alike));
    assert_eq!(function, Some(SERVE));
    assert!((factor.unwrap() - 404.0 / 204.0).abs() < 1e-9);
    // Three of ten hold the growth: not each grew.
    let some: Vec<(u64, [u64; 2])> = (10..20).map(|id| (id, [20, if id < 13 { 80 } else { 20 }])).collect();
    assert_eq!(below(&below_serve(&some)), (Some(SERVE), None));
}

#[test]
fn nobody_is_named_for_what_another_function_lost() {
    let report = below_serve(&[(PRICE_BASKET, [20, 60]), (OTHER, [60, 25])]);
    assert!(report.function(PRICE_BASKET).unwrap().total_cost.grew());
    assert!(matches!(find_guilty(&report), Finding::CostShift { .. }));
    // A third of it is no reason.
    let report = below_serve(&[(PRICE_BASKET, [20, 80]), (OTHER, [60, 40])]);
    assert_eq!(named(&report), PRICE_BASKET);
}

#[test]
fn library_code_is_named_when_nothing_else_explains_the_growth() {
    let report = build(
        6,
        &[
            (RUNTIME, true, &[], [2, 2], [12, 42]),
            (WRAPPING_MUL, true, &[RUNTIME], [5, 35], [5, 35]),
            (SERVE, false, &[RUNTIME], [5, 5], [5, 5]),
        ],
    );
    let Finding::Function(guilty) = find_guilty(&report) else {
        panic!()
    };
    assert!(guilty.is_library && guilty.function == WRAPPING_MUL);
}

#[test]
fn a_rename_is_a_cost_shift_and_no_regression() {
    let report = build(
        6,
        &[
            (SERVE, false, &[], [5, 5], [25, 25]),
            (PRICE_BASKET, false, &[SERVE], [20, 0], [20, 0]),
            (OTHER, false, &[SERVE], [0, 20], [0, 20]),
        ],
    );
    let moved = find_moved(&report);
    assert_eq!((moved.len(), moved[0].from, moved[0].to), (1, PRICE_BASKET, OTHER));
    assert_eq!(find_guilty(&report), Finding::CostShift { moved });
}

#[test]
fn a_renamed_function_is_not_blamed_for_a_regression_elsewhere() {
    const RENAMED: u64 = 6;
    let report = build(
        6,
        &[
            (SERVE, false, &[], [5, 5], [30, 50]),
            (PRICE_BASKET, false, &[SERVE], [5, 25], [5, 25]),
            (OTHER, false, &[SERVE], [20, 0], [20, 0]),
            (RENAMED, false, &[SERVE], [0, 20], [0, 20]),
        ],
    );
    assert_eq!(named(&report), PRICE_BASKET);
    // A move that made it three times as costly is a regression, and the new name is the one to look at.
    let report = build(
        6,
        &[
            (SERVE, false, &[], [5, 5], [25, 65]),
            (OTHER, false, &[SERVE], [20, 0], [20, 0]),
            (RENAMED, false, &[SERVE], [0, 60], [0, 60]),
        ],
    );
    let Finding::Function(guilty) = find_guilty(&report) else {
        panic!()
    };
    assert_eq!((guilty.function, guilty.formerly), (RENAMED, Some(OTHER)));
    // What it was is no part of the growth.
    let of_sample = COST_PER_SAMPLE / 50.0;
    assert!((guilty.delta - 40.0 * of_sample).abs() < 1e-6 && (guilty.share - 1.0).abs() < 1e-9);
}

#[test]
fn the_caller_in_common_decides_between_two_new_names() {
    const NEAR: u64 = 7;
    const CLOSE: u64 = 8;
    let report = build(
        6,
        &[
            (SERVE, false, &[], [1, 1], [21, 41]),
            (OTHER, false, &[SERVE], [20, 0], [20, 0]),
            (NEAR, false, &[SERVE], [0, 19], [0, 19]),
            (CLOSE, false, &[RUNTIME], [0, 20], [0, 20]),
        ],
    );
    assert_eq!(find_moved(&report)[0].to, NEAR);
}

#[test]
fn waiting_is_not_blamed_on_a_function() {
    assert_eq!(find_guilty(&simulate(CALM, 1)), Finding::Undecided);
    let long = Profiled { windows: 60, ..CALM };
    assert_eq!(find_guilty(&simulate(long, 1)), Finding::NoGrowth);
    let starved = Profiled {
        samples_per_request: 0.01,
        windows: 3,
        ..CALM
    };
    assert_eq!(find_guilty(&simulate(starved, 1)), Finding::TooFewSamples);
    assert_eq!(find_guilty(&report_of(&Sides::default(), &[])), Finding::TooFewSamples);
}

#[test]
fn without_a_change_few_functions_are_called_changed() {
    for (burstiness, windows) in [(0.0, 2), (0.0, 10), (0.3, 4), (0.3, 20)] {
        let profiled = Profiled {
            burstiness,
            windows,
            ..CALM
        };
        let reports: Vec<FunctionReport> = (0..200).map(|seed| simulate(profiled, seed)).collect();
        let with_false = reports.iter().filter(|r| {
            r.functions
                .iter()
                .any(|f| f.total_cost.confidence == Confidence::Strong)
        });
        // 5 % of reports may have one; 200 reports leave room for chance.
        let share = with_false.count() as f64 / 200.0;
        assert!(share <= 0.09, "burstiness {burstiness}, {windows} windows: {share}");
    }
}

#[test]
fn a_function_that_costs_more_is_found_and_named() {
    let found = |profiled: Profiled, leaf: u64| {
        (0..100)
            .filter(|&seed| simulate(profiled, seed).function(leaf).unwrap().total_cost.grew())
            .count()
    };
    let hottest = Profiled {
        changed: Some(0),
        factor: 2.0,
        ..CALM
    };
    assert!(found(hottest, FIRST_LEAF) >= 99);
    assert!(
        found(
            Profiled {
                changed: Some(9),
                factor: 3.0,
                ..CALM
            },
            FIRST_LEAF + 9
        ) >= 80
    );
    let named = (0..100).filter(|&seed| {
        matches!(find_guilty(&simulate(Profiled { factor: 3.0, ..hottest }, seed)), Finding::Function(g) if g.function == FIRST_LEAF)
    });
    assert!(named.count() >= 90);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn contributions_and_self_costs_add_up(seed in 0u64..100_000, windows in 1usize..6, factor in 0.2f64..4.0) {
        let report = simulate(Profiled { windows, leaves: 30, changed: Some(1), factor, ..CALM }, seed);
        let sum = |of: fn(&emberline_analysis::functions::FunctionChange) -> f64| report.functions.iter().map(of).sum::<f64>();
        let scale = report.route.candidate.rate.max(1.0);
        prop_assert!((sum(|f| f.self_cost.candidate.rate) - report.route.candidate.rate).abs() < 1e-9 * scale);
        prop_assert!((sum(|f| f.self_cost.delta) - report.route.delta).abs() < 1e-9 * scale);
        if report.route.delta.abs() > 1e-6 * scale {
            prop_assert!((sum(|f| f.contribution) - 1.0).abs() < 1e-6);
        }
        let handler = report.function(HANDLER).unwrap();
        prop_assert!((handler.total_cost.delta - report.route.delta).abs() < 1e-9 * scale);
    }

    #[test]
    fn swapping_the_sides_mirrors_the_report(seed in 0u64..100_000, factor in 0.3f64..3.0) {
        let (exposures, functions) = Profiled { leaves: 30, changed: Some(2), factor, ..CALM }.draw(seed);
        let report = report_of(&exposures, &functions);
        let swapped: Vec<FunctionSeries> = functions
            .into_iter()
            .map(|f| FunctionSeries { baseline: f.candidate, candidate: f.baseline, ..f })
            .collect();
        let mirror = report_of(&Sides { baseline: exposures.candidate, candidate: exposures.baseline }, &swapped);
        for f in &report.functions {
            let m = mirror.function(f.function).unwrap();
            prop_assert!((f.total_cost.delta + m.total_cost.delta).abs() < 1e-6);
            prop_assert!((f.total_cost.p_value - m.total_cost.p_value).abs() < 1e-9);
            prop_assert_eq!(f.total_cost.confidence, m.total_cost.confidence);
        }
    }

    #[test]
    fn order_of_rows_and_functions_does_not_matter(seed in 0u64..100_000) {
        let (exposures, functions) = Profiled { leaves: 20, windows: 4, changed: Some(0), factor: 2.0, ..CALM }.draw(seed);
        let report = report_of(&exposures, &functions);
        let mut shuffled = functions;
        shuffled.reverse();
        for f in &mut shuffled {
            f.baseline.reverse();
            f.candidate.reverse();
        }
        let again = report_of(&exposures, &shuffled);
        let ids = |r: &FunctionReport| r.functions.iter().map(|f| (f.function, f.state)).collect::<Vec<_>>();
        prop_assert_eq!(ids(&report), ids(&again));
        let name = |finding| if let Finding::Function(guilty) = finding { Some(guilty.function) } else { None };
        prop_assert_eq!(name(find_guilty(&report)), name(find_guilty(&again)));
    }

    #[test]
    fn intervals_hold_their_estimates_and_values_are_ranged(seed in 0u64..100_000, windows in 0usize..5) {
        let report = simulate(Profiled { windows, leaves: 10, ..CALM }, seed);
        for cost in report.functions.iter().flat_map(|f| [&f.self_cost, &f.total_cost]).chain([&report.route]) {
            prop_assert!(cost.low <= cost.delta && cost.delta <= cost.high);
            prop_assert!((0.0..=1.0).contains(&cost.p_value) && cost.p_value <= cost.q_value + 1e-12 && cost.q_value <= 1.0);
            prop_assert!(cost.dispersion >= 1.0 && cost.baseline.low <= cost.baseline.rate);
        }
    }
}
