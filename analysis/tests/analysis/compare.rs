//! The whole comparison: exact sums, the guilty function, and words for what cannot be judged.

use std::sync::{Arc, LazyLock};

use emberline_analysis::compare::{CompareOptions, compare};
use emberline_model::{
    Histogram, ProfileType, Release,
    comparison::{Judgement, Per, SideData, WindowCost},
    resolve::{FunctionInfo, ResolvedStacks},
};
use proptest::prelude::*;

const NAMES: [&str; 6] = [
    "tokio::runtime::run",
    "shop::handle::{{closure}}",
    "shop::price",
    "core::num::wrapping_mul",
    "shop::render",
    "shop::price::{{closure}}",
];

/// Stacks by number, leaf first, as indices into `NAMES`.
const STACKS: [&[u32]; 4] = [&[3, 5, 2, 1, 0], &[4, 1, 0], &[1, 0], &[0]];

fn resolved() -> Arc<ResolvedStacks> {
    resolved_as(&NAMES)
}

fn resolved_as(names: &[&str]) -> Arc<ResolvedStacks> {
    let functions = names.iter().enumerate().map(|(at, name)| FunctionInfo {
        id: at as u64 + 100,
        name: (*name).to_owned(),
        module: "shop".to_owned(),
        file: String::new(),
        unresolved: false,
    });
    let stacks = STACKS.iter().enumerate();
    Arc::new(ResolvedStacks {
        functions: functions.map(Arc::new).collect(),
        stacks: stacks.map(|(at, s)| (at as u64, s.iter().copied())).collect(),
    })
}

/// Each window: samples of each stack; 10 ms of CPU a sample, 50 requests a window.
fn side(version: &str, windows: &[[u64; 4]]) -> SideData {
    let mut latency = Histogram::new();
    (0..50 * windows.len() as u64).for_each(|n| latency.record_ns(1_000_000 + n * 10_000));
    let window = |(at, counts): (usize, &[u64; 4])| WindowCost {
        start_unix_s: at as i64 * 10,
        windows: 1,
        requests: 50.0,
        instance_seconds: 10.0,
        stacks: counts
            .iter()
            .enumerate()
            .filter(|c| *c.1 > 0)
            .map(|(s, &n)| (s as u64, n as i64 * 10_000_000, n))
            .collect(),
    };
    SideData {
        release: Release {
            namespace: String::new(),
            service: "shop".to_owned(),
            version: version.to_owned(),
        },
        from_unix_s: 0,
        to_unix_s: windows.len() as i64 * 10,
        windows: windows.iter().enumerate().map(window).collect(),
        latency,
        coverage: Default::default(),
        is_gauge: false,
        has_stacks_of_routes: true,
        resolved: resolved(),
        build_ids: Vec::new(),
    }
}

static CPU: LazyLock<ProfileType> = LazyLock::new(ProfileType::cpu);

fn options(per: Per) -> CompareOptions<'static> {
    CompareOptions {
        profile_type: &CPU,
        per,
        route: Some("/quote/{id}"),
        whole_service: false,
        tree_limit: Some(3),
        own: &[],
    }
}

#[test]
fn the_application_function_that_grew_is_named_not_its_leaf_nor_its_closure_nor_its_callers() {
    let baseline = side("v1", &[[0, 5, 3, 1], [1, 6, 2, 1]]);
    let candidate = side("v2", &[[22, 6, 2, 1], [19, 5, 3, 2]]);
    let answer = compare(&baseline, &candidate, options(Per::Request));
    assert_eq!(answer.judgement, Judgement::Changed);
    assert_eq!(answer.guilty.as_ref().unwrap().name, "shop::price");
    assert!(answer.summary.contains("shop::price"), "{}", answer.summary);
    assert!(
        answer.summary.contains("per request on /quote/{id}"),
        "{}",
        answer.summary
    );
    assert_eq!(answer.latency.unwrap().baseline_n, 100);
}

/// Frames outermost first; in the second release the last one takes three times as long.
fn grown(stack: [&'static str; 4], own: &[String]) -> (emberline_model::alert::GuiltyFunction, String) {
    // Only these places of the stacks are used: the caller's stack, and another function below it.
    let names = [stack[0], stack[1], stack[2], stack[3], "other", "unused"];
    let named = |version: &str, windows: &[[u64; 4]]| {
        let mut side = side(version, windows);
        let stacks: [&[u32]; 4] = [&[3, 2, 1, 0], &[4, 1, 0], &[1, 0], &[0]];
        let mut resolved = (*resolved_as(&names)).clone();
        resolved.stacks = stacks
            .iter()
            .enumerate()
            .map(|(at, s)| (at as u64, s.iter().copied()))
            .collect();
        let functions = resolved.functions.iter_mut().map(Arc::make_mut);
        functions.for_each(|f| f.module.clear());
        side.resolved = Arc::new(resolved);
        side
    };
    let baseline = named("v1", &[[20, 20, 0, 0], [21, 19, 0, 0], [19, 20, 0, 0]]);
    let candidate = named("v2", &[[60, 20, 0, 0], [62, 19, 0, 0], [58, 20, 0, 0]]);
    let options = CompareOptions {
        own,
        ..options(Per::Request)
    };
    let answer = compare(&baseline, &candidate, options);
    (answer.guilty.expect("three times as much"), answer.summary)
}

#[test]
fn the_application_function_is_named_in_every_language_with_the_runtime_function_it_calls() {
    for (stack, name, callee) in [
        (
            [
                "runtime.main",
                "main.handle",
                "github.com/shop/price.Total",
                "encoding/json.Unmarshal",
            ],
            "github.com/shop/price.Total",
            Some("encoding/json.Unmarshal"),
        ),
        (
            [
                "java/lang/Thread.run",
                "io/shop/Api.handle",
                "io/shop/Price.total",
                "java/util/HashMap.get",
            ],
            "io/shop/Price.total",
            Some("java/util/HashMap.get"),
        ),
        (
            ["node", "handle", "parseBasket", "v8::internal::JsonParser::Parse"],
            "parseBasket",
            Some("v8::internal::JsonParser::Parse"),
        ),
        (
            [
                "<module>",
                "handle",
                "validate_basket",
                "pydantic_core::validators::model::validate",
            ],
            "validate_basket",
            Some("pydantic_core::validators::model::validate"),
        ),
        (
            [
                "std::rt::lang_start",
                "shop::handle",
                "shop::price",
                "core::num::wrapping_mul",
            ],
            "shop::price",
            None,
        ),
        (["main", "handle", "price", "malloc"], "price", Some("malloc")),
    ] {
        let (guilty, summary) = grown(stack, &[]);
        assert_eq!(
            (guilty.name.as_str(), guilty.callee.as_deref(), guilty.library),
            (name, callee, false)
        );
        let words = match callee {
            Some(callee) => format!("100 % of it under `{name}`, in `{callee}`."),
            None => format!("100 % of it under `{name}`."),
        };
        assert!(summary.ends_with(&words), "{summary}");
    }
}

#[test]
fn what_is_set_as_own_code_is_named() {
    let stack = [
        "java/lang/Thread.run",
        "io/shop/Api.handle",
        "io/grpc/Stub.call",
        "io/grpc/Codec.read",
    ];
    assert_eq!(grown(stack, &[]).0.name, "io/shop/Api.handle");
    let (guilty, _) = grown(stack, &["io.grpc.".to_owned()]);
    assert_eq!((guilty.name.as_str(), guilty.callee), ("io/grpc/Codec.read", None));
}

#[test]
fn bytes_and_time_that_passes_are_judged_as_cpu_is() {
    let baseline = side("v1", &[[0, 5, 3, 1], [1, 6, 2, 1]]);
    let candidate = side("v2", &[[22, 6, 2, 1], [19, 5, 3, 2]]);
    for (profile_type, words) in [
        (
            "memory:alloc_space:bytes:space:bytes",
            "+4.10 MB memory alloc_space per request",
        ),
        ("wall:wall:nanoseconds:wall:nanoseconds", "+4.10 ms wall per request"),
    ] {
        let profile_type = ProfileType(profile_type.to_owned());
        let options = CompareOptions {
            profile_type: &profile_type,
            ..options(Per::Request)
        };
        let answer = compare(&baseline, &candidate, options);
        assert_eq!(answer.guilty.unwrap().name, "shop::price");
        assert!(answer.summary.starts_with(words), "{}", answer.summary);
    }
}

#[test]
fn a_function_that_was_renamed_is_compared_with_what_it_was() {
    let windows = |price: u64, render: u64| [[price, render, 6, 2]; 6];
    let of = |after: u64| {
        compare(
            &side("v1", &windows(20, 0)),
            &side("v2", &windows(0, after)),
            options(Per::Request),
        )
    };
    let dearer = of(40);
    let guilty = dearer.guilty.unwrap();
    assert_eq!(
        (guilty.name.as_str(), guilty.formerly.as_deref()),
        ("shop::render", Some("shop::price"))
    );
    assert!(
        dearer
            .summary
            .ends_with("100 % of it under `shop::render` (formerly `shop::price`)."),
        "{}",
        dearer.summary
    );
    let note = dearer.cost_shift.unwrap();
    assert!(
        note.contains("shop::price is now shop::render and costs 100 % more"),
        "{note}"
    );
    // 120 samples a side are too few to say that the cost is the same.
    let renamed = of(21);
    assert_eq!(renamed.guilty, None);
    let note = renamed.cost_shift.unwrap();
    assert!(
        note.starts_with("Cost moved between functions: shop::price is now shop::render (cost between −"),
        "{note}"
    );
}

#[test]
fn equal_releases_are_not_said_to_differ() {
    let windows = [[5, 6, 2, 1], [6, 5, 3, 1], [4, 6, 2, 2]];
    let answer = compare(&side("v1", &windows), &side("v2", &windows), options(Per::Request));
    assert_eq!(answer.judgement, Judgement::NoChange);
    assert!(answer.guilty.is_none());
}

#[test]
fn too_few_samples_are_an_answer() {
    let answer = compare(
        &side("v1", &[[1, 0, 0, 0]]),
        &side("v2", &[[2, 0, 0, 0]]),
        options(Per::Request),
    );
    assert_eq!(answer.judgement, Judgement::TooFewSamples);
    assert!(
        answer.summary.starts_with("Too few samples to judge"),
        "{}",
        answer.summary
    );
}

#[test]
fn a_stack_the_dictionary_lost_keeps_its_cost() {
    let mut baseline = side("v1", &[[5, 6, 2, 1]]);
    baseline.windows[0].stacks.push((999, 70_000_000, 7));
    let answer = compare(&baseline, &side("v2", &[[5, 6, 2, 1]]), options(Per::Total));
    let unknown = answer.functions.iter().find(|f| f.name == "[unknown]").unwrap();
    assert_eq!((unknown.raw_self_a, unknown.raw_self_b), (70_000_000, 0));
    assert!(answer.baseline.resolved_ratio < 1.0);
}

proptest! {
    #[test]
    fn self_costs_add_up_and_cost_times_divisor_is_cpu(
        a in prop::collection::vec(prop::array::uniform4(0u64..9), 1..5),
        b in prop::collection::vec(prop::array::uniform4(0u64..9), 1..5),
        per in prop::sample::select(vec![Per::Request, Per::Second, Per::Total]),
    ) {
        let answer = compare(&side("v1", &a), &side("v2", &b), options(per));
        for (summary, of) in [
            (&answer.baseline, (|f| (f.raw_self_a, f.self_a)) as fn(&emberline_model::comparison::FunctionRow) -> (i64, f64)),
            (&answer.candidate, |f| (f.raw_self_b, f.self_b)),
        ] {
            let exact: i64 = answer.functions.iter().map(|f| of(f).0).sum();
            prop_assert_eq!(exact, summary.total);
            let divided: f64 = answer.functions.iter().map(|f| of(f).1).sum();
            prop_assert!((divided * summary.divisor - summary.total as f64).abs() <= 1e-6 * summary.total as f64 + 1e-6);
            prop_assert!((summary.value * summary.divisor - summary.total as f64).abs() <= 1e-6 * summary.total as f64 + 1e-6);
        }
        let rest = compare(&side("v1", &a), &side("v2", &b), CompareOptions { tree_limit: None, ..options(per) });
        prop_assert_eq!(rest.functions, answer.functions);
    }
}
