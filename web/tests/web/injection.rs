//! Whatever text comes in a question: it is answered or refused, never run, and never a fault of the server (SQL in
//! names and values, regular expressions that explode, limits that are no numbers).

use std::sync::OnceLock;

use axum::body::Body;
use http::Request;
use proptest::prelude::*;
use tokio::runtime::Runtime;

use crate::support::{BASE_S, NOW_S, World, shop};

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

/// The calls of Pyroscope's interface.
const CALLS: [&str; 9] = [
    "ProfileTypes",
    "LabelNames",
    "LabelValues",
    "Series",
    "SelectMergeStacktraces",
    "SelectMergeSpanProfile",
    "SelectMergeProfile",
    "SelectSeries",
    "Diff",
];

/// A question of most calls as protobuf: profile type, selector, start and end in milliseconds.
fn question_in_protobuf() -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, text) in [
        (1u8, "process_cpu:cpu:nanoseconds:cpu:nanoseconds"),
        (2, "{service=\"checkout\"}"),
    ] {
        bytes.extend([number << 3 | 2, text.len() as u8]);
        bytes.extend(text.as_bytes());
    }
    for (number, time) in [(3u8, BASE_S * 1000), (4, NOW_S * 1000)] {
        bytes.push(number << 3);
        let mut rest = time as u64;
        while rest >= 128 {
            bytes.push((rest % 128 + 128) as u8);
            rest /= 128;
        }
        bytes.push(rest as u8);
    }
    bytes
}

fn question_in_json() -> Vec<u8> {
    let json = serde_json::json!({
        "profileTypeID": "process_cpu:cpu:nanoseconds:cpu:nanoseconds", "labelSelector": "{service=\"checkout\"}",
        "start": (BASE_S * 1000).to_string(), "end": NOW_S * 1000, "groupBy": ["version"], "step": 15.0, "maxNodes": "9",
        "matchers": ["{}"], "labelNames": ["service"], "name": "version",
    });
    json.to_string().into_bytes()
}

/// HTTP status, and the one of gRPC where that was spoken.
fn call(name: &str, content_type: &str, body: Vec<u8>) -> (u16, Option<String>) {
    let (runtime, world) = world();
    let request = Request::post(format!("/querier.v1.QuerierService/{name}")).header("content-type", content_type);
    let answer = runtime.block_on(world.send(request.body(Body::from(body)).unwrap()));
    let said = answer
        .trailers
        .get("grpc-status")
        .or_else(|| answer.headers.get("grpc-status"));
    let said = said.map(|status| status.to_str().unwrap().to_owned());
    (answer.status.as_u16(), said)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The bodies of these calls come from anywhere, too.
    #[test]
    fn calls_with_any_body_are_answered_or_refused(
        name in prop::sample::select(CALLS.to_vec()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0u8..4, any::<u8>()), 0..4),
        noise in prop::collection::vec(any::<u8>(), 0..40),
        prefix in prop::option::of(prop::collection::vec(any::<u8>(), 5)),
    ) {
        let changed = |mut bytes: Vec<u8>| {
            for (at, which, byte) in &changes {
                let at = at.index(bytes.len().max(1)).min(bytes.len());
                match which {
                    0 if at < bytes.len() => bytes[at] = *byte,
                    1 => bytes.truncate(at),
                    2 => bytes.insert(at, *byte),
                    _ => drop(bytes.splice(at..at, [0xff; 10])),
                }
            }
            bytes
        };
        for (content_type, body) in [
            ("application/json", changed(question_in_json())),
            ("application/proto", changed(question_in_protobuf())),
            ("application/json", noise.clone()),
            ("application/proto", noise),
        ] {
            let (status, _) = call(name, content_type, body.clone());
            let fine = status == 200 || status == 501 || (400..500).contains(&status);
            prop_assert!(fine, "{name} {content_type} {status}: {:?}", String::from_utf8_lossy(&body));
        }
        let message = changed(question_in_protobuf());
        let honest = [&[0], (message.len() as u32).to_be_bytes().as_slice()].concat();
        let body = [prefix.unwrap_or(honest), message].concat();
        let (status, said) = call(name, "application/grpc", body);
        // 2 is unknown, 13 internal: faults of the server.
        let fault = matches!(said.as_deref(), None | Some("2" | "13"));
        prop_assert!(status == 200 && !fault, "{name} {status} {said:?}");
    }
}
