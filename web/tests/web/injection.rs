//! Whatever text comes in a question: it is answered or refused, never run, and never a fault of the server (SQL in
//! names and values, regular expressions that explode, limits that are no numbers).

use std::sync::OnceLock;

use proptest::prelude::*;
use tokio::runtime::Runtime;

use crate::support::{World, shop};

const HOSTILE: [&str; 16] = [
    "'; DROP TABLE series; --",
    "\") UNION SELECT 1, 2 --",
    "x' OR '1'='1",
    "service) OR 1=1 --",
    "read_parquet('/etc/passwd')",
    "?",
    "$1",
    "%",
    "\0",
    "\u{feff}",
    "..%2f..%2fetc",
    "-1",
    "18446744073709551616",
    "1e400",
    "NaN",
    "{",
];

/// Parameters that take text of the asker's choice, and the addresses that know them.
const QUESTIONS: [(&str, &[&str]); 13] = [
    (
        "/api/v1/merge",
        &[
            "selector",
            "profile_type",
            "limit",
            "functions_limit",
            "node",
            "format",
            "from",
            "to",
        ],
    ),
    (
        "/api/v1/series",
        &[
            "selector",
            "profile_type",
            "group_by",
            "step",
            "aggregation",
            "series_limit",
        ],
    ),
    ("/api/v1/heatmap", &["selector", "profile_type", "step", "from"]),
    (
        "/api/v1/exemplars",
        &["trace_id", "span_id", "selector", "exemplars_limit"],
    ),
    ("/api/v1/callers", &["selector", "function"]),
    ("/api/v1/labels", &["selector", "from"]),
    ("/api/v1/label_values", &["label", "selector"]),
    ("/api/v1/profile_types", &["selector"]),
    (
        "/api/v1/profile",
        &[
            "service",
            "version",
            "namespace",
            "instance",
            "route",
            "component",
            "side",
        ],
    ),
    (
        "/api/v1/diff",
        &["service", "baseline", "candidate", "route", "per", "profile_type"],
    ),
    ("/api/v1/functions", &["service", "route", "functions_limit"]),
    (
        "/pyroscope/render",
        &["query", "from", "until", "groupBy", "maxNodes", "aggregation"],
    ),
    ("/pyroscope/label-values", &["label"]),
];

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// What is always asked along, so that the parameter that is tried is what decides.
fn rest(path: &str, tried: &str) -> String {
    let mut rest = String::new();
    let mut add = |name: &str, value: &str| {
        if name != tried {
            rest.push_str(&format!("&{name}={value}"));
        }
    };
    match path {
        "/api/v1/profile" | "/api/v1/diff" | "/api/v1/functions" => add("service", "checkout"),
        "/api/v1/callers" => add("function", "main"),
        "/api/v1/label_values" | "/pyroscope/label-values" => add("label", "version"),
        "/pyroscope/render" => add("query", "process_cpu:cpu:nanoseconds:cpu:nanoseconds%7B%7D"),
        _ => {}
    }
    if !path.starts_with("/pyroscope/") {
        add("from", "now-2m");
    }
    rest
}

/// A world that is made once, with the runtime it lives in.
fn world() -> &'static (Runtime, World) {
    static WORLD: OnceLock<(Runtime, World)> = OnceLock::new();
    WORLD.get_or_init(|| {
        let runtime = Runtime::new().unwrap();
        let world = runtime.block_on(World::new(shop()));
        (runtime, world)
    })
}

fn status(address: &str) -> u16 {
    let (runtime, world) = world();
    let answer = runtime.block_on(world.get(address));
    if answer.status.as_u16() >= 400 {
        assert!(answer.body.len() < 4096, "a refusal is a sentence: {address}");
    }
    answer.status.as_u16()
}

#[test]
fn hostile_texts_are_refused_or_find_nothing() {
    for (path, parameters) in QUESTIONS {
        for parameter in parameters {
            for text in HOSTILE {
                let address = format!("{path}?{parameter}={}{}", encoded(text), rest(path, parameter));
                let status = status(&address);
                assert!(status == 200 || (400..500).contains(&status), "{status}: {address}");
            }
        }
        for text in HOSTILE {
            for (operator, quoted) in [("=", true), ("!=", true), ("=~", true), ("!~", true), ("=", false)] {
                let quoted = match quoted {
                    true => format!("{text:?}"),
                    false => text.to_owned(),
                };
                for selector in [
                    format!("{{service{operator}{quoted}}}"),
                    format!("{{{text}{operator}\"x\"}}"),
                ] {
                    // All read selectors alike; one of them is enough.
                    if path != "/api/v1/merge" {
                        continue;
                    }
                    let address = format!("{path}?selector={}{}", encoded(&selector), rest(path, "selector"));
                    let status = status(&address);
                    assert!(status == 200 || (400..500).contains(&status), "{status}: {address}");
                }
            }
        }
    }
    // The tables are still there.
    let (runtime, world) = world();
    let merged = runtime.block_on(world.json("/api/v1/merge?from=now-2m"));
    assert!(merged["total"].as_i64().unwrap() > 0);
}

#[test]
fn regular_expressions_cannot_explode() {
    for pattern in [
        "(a+)+$",
        "(x+x+)+y",
        "(\\w{200}){200}",
        "((a{50}){50}){50}",
        &"(".repeat(900),
        &".*".repeat(400),
        &"a?".repeat(500),
    ] {
        let selector = encoded(&format!("{{service=~`{pattern}`}}"));
        let status = status(&format!("/api/v1/merge?from=now-2m&selector={selector}"));
        assert!(status == 200 || status == 400, "{status}: {pattern}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// From text to the engine and back: whatever a selector holds, the answer is one or a refusal.
    #[test]
    fn any_selector_is_answered_or_refused(
        text in "\\PC{0,40}",
        label in prop::sample::select(vec!["service", "version", "route", "side", "component", "instance", "__name__", "other"]),
        operator in prop::sample::select(vec!["=", "!=", "=~", "!~"]),
        pieces in prop::collection::vec(prop::sample::select(vec!["{", "}", "\"", "'", "`", "\\", "=", "~", "!", ",", "a", ".*", "(", "|", ")", ";", "--", "?"]), 0..12),
    ) {
        let value = text.replace('\\', "\\\\").replace('"', "\\\"");
        for selector in [format!("{{{label}{operator}\"{value}\"}}"), pieces.concat(), format!("{{{}}}", pieces.concat()), text] {
            let status = status(&format!("/api/v1/merge?from=now-2m&limit=1&selector={}", encoded(&selector)));
            prop_assert!(status == 200 || status == 400 || status == 404, "{status}: {selector}");
        }
    }
}
