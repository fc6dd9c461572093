//! Merges, series, callers and labels: what a selector selects, exactly.

use emberline_model::{Component, Side};
use http::StatusCode;
use proptest::prelude::*;
use serde_json::Value;

use crate::support::{QUOTE, World, find, shop, sum, total, window};

/// An address with parameters, percent-encoded.
fn address(path: &str, parameters: &[(&str, &str)]) -> String {
    let encode = |text: &str| -> String {
        text.bytes()
            .map(|b| match b {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(b).to_string(),
                other => format!("%{other:02x}"),
            })
            .collect()
    };
    let pairs: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", encode(value)))
        .collect();
    format!("{path}?from=now-2m&{}", pairs.join("&"))
}

async fn ask(world: &World, path: &str, parameters: &[(&str, &str)]) -> Value {
    world.json(&address(path, parameters)).await
}

async fn merged(world: &World, selector: &str) -> Value {
    ask(world, "/api/v1/merge", &[("selector", selector)]).await
}

async fn profile_total(world: &World, query: &str) -> i64 {
    let profile = world.json(&format!("/api/v1/profile?from=now-2m&{query}")).await;
    profile["total"].as_i64().unwrap()
}

#[tokio::test]
async fn a_selector_selects_what_it_says() {
    let world = World::new(shop()).await;
    let v1 = profile_total(&world, "service=checkout&version=v1").await;
    let v2 = profile_total(&world, "service=checkout&version=v2").await;
    let front = profile_total(&world, "service=frontend").await;
    let cart = profile_total(&world, "service=cart").await;
    let quote = profile_total(&world, "service=checkout&version=v2&route=/quote/%7Bid%7D").await;
    let unlabelled = profile_total(&world, "service=checkout&version=v2&route=(none)").await;
    assert!(v1 != v2 && quote > 0 && unlabelled > 0);
    for (selector, expected) in [
        ("", v1 + v2 + front + cart),
        ("{}", v1 + v2 + front + cart),
        (r#"{service="checkout"}"#, v1 + v2),
        (r#"{service_name="checkout",version="v2"}"#, v2),
        (r#"{service="checkout",version!="v2"}"#, v1),
        (r#"{service=~"check.*|frontend"}"#, v1 + v2 + front),
        (r#"{service!~"check.*"}"#, front + cart),
        (r#"{service=~"check"}"#, 0),
        (r#"{component="proxy"}"#, cart),
        (r#"{component!="proxy",service=~".+"}"#, v1 + v2 + front),
        (
            r#"{service="checkout",version="v2",route="/quote/{id}",side="server"}"#,
            quote,
        ),
        (r#"{service="checkout",version="v2",route=""}"#, unlabelled),
        (r#"{service="checkout",version="v2",route!~".+"}"#, unlabelled),
        (r#"{service="checkout",version="v1",version="v2"}"#, 0),
        (r#"{service="nobody"}"#, 0),
        (
            r#"{__profile_type__="process_cpu:cpu:nanoseconds:cpu:nanoseconds",service="cart"}"#,
            cart,
        ),
        (r#"{__type__="alloc_space"}"#, 0),
        (r#"process_cpu:cpu:nanoseconds:cpu:nanoseconds{service="cart"}"#, cart),
    ] {
        let answer = merged(&world, selector).await;
        assert_eq!(answer["total"].as_i64().unwrap(), expected, "{selector}");
        assert_eq!(sum(&answer["functions"], "self"), expected, "{selector}");
        assert_eq!(total(&answer["tree"]["self"]), expected, "{selector}");
        let series = ask(
            &world,
            "/api/v1/series",
            &[("selector", selector), ("group_by", "version,route")],
        )
        .await;
        assert_eq!(sum(&series["series"], "total"), expected, "{selector}");
    }
    let folded = world
        .get(&address(
            "/api/v1/merge",
            &[("selector", r#"{service="cart"}"#), ("format", "folded")],
        ))
        .await;
    assert!(
        folded
            .text()
            .ends_with(&format!("\nmain;emberline_proxy::copy {cart}\n"))
    );
    assert_eq!(folded.text().lines().count(), 2);
}

#[tokio::test]
async fn series_have_a_point_per_step_and_add_up() {
    let world = World::new(shop()).await;
    let question = [
        ("selector", r#"{service="checkout"}"#),
        ("group_by", "version"),
        ("step", "10"),
    ];
    let answer = ask(&world, "/api/v1/series", &question).await;
    assert_eq!((&answer["step_s"], &answer["aggregation"]), (&10.into(), &"sum".into()));
    let series = answer["series"].as_array().unwrap();
    assert_eq!(series.len(), 2);
    for one in series {
        let version = one["labels"][0].as_str().unwrap();
        let expected = profile_total(&world, &format!("service=checkout&version={version}")).await;
        assert_eq!(one["total"], expected);
        let values: f64 = one["values"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_f64().unwrap())
            .sum();
        assert_eq!(values as i64, expected);
        // v2 came two windows later: no point says that it was not there.
        assert_eq!(
            one["at_ms"].as_array().unwrap().len(),
            if version == "v1" { 8 } else { 6 }
        );
    }
    let wide = ask(
        &world,
        "/api/v1/series",
        &[("selector", r#"{version="v2"}"#), ("step", "1000")],
    )
    .await;
    let sums: f64 = wide["series"][0]["values"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_f64().unwrap())
        .sum();
    let average = [
        ("selector", r#"{version="v2"}"#),
        ("step", "1000"),
        ("aggregation", "average"),
    ];
    let average = ask(&world, "/api/v1/series", &average).await;
    let averages: Vec<f64> = average["series"][0]["values"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_f64().unwrap())
        .collect();
    assert_eq!(averages.len(), 1);
    assert!((averages[0] - sums / 6.0).abs() < 1.0, "{averages:?} {sums}");

    let cut = [("group_by", "service,version"), ("series_limit", "1")];
    let cut = ask(&world, "/api/v1/series", &cut).await;
    let whole = merged(&world, "").await;
    assert_eq!(cut["series"].as_array().unwrap().len(), 1);
    assert_eq!(cut["series_cut"]["count"], 3);
    assert_eq!(
        cut["series"][0]["total"].as_i64().unwrap() + cut["series_cut"]["total"].as_i64().unwrap(),
        whole["total"].as_i64().unwrap()
    );
}

#[tokio::test]
async fn callers_and_callees_add_up_to_the_functions_total() {
    let world = World::new(shop()).await;
    let selector = r#"{service="checkout",version="v2"}"#;
    let whole = merged(&world, selector).await;
    for row in whole["functions"].as_array().unwrap() {
        for limit in ["0", "1"] {
            // Addresses without a name are in the table, too, and are found by their id.
            let question = [
                ("selector", selector),
                ("function", row["id"].as_str().unwrap()),
                ("limit", limit),
            ];
            let answer = ask(&world, "/api/v1/callers", &question).await;
            assert_eq!(&answer["function"], row);
            for side in ["callers", "callees"] {
                assert_eq!(
                    sum(&answer[side], "value"),
                    row["total"].as_i64().unwrap(),
                    "{row} {side}"
                );
                assert_eq!(sum(&answer[side], "samples"), row["samples"].as_i64().unwrap());
                let tree = &answer[format!("{side}_tree")];
                assert_eq!(total(&tree["self"]), row["total"].as_i64().unwrap());
            }
        }
    }
    let tax = ask(
        &world,
        "/api/v1/callers",
        &[("selector", selector), ("function", "shop::tax")],
    )
    .await;
    assert_eq!(
        tax["function"]["total"],
        6 * 3_000_001,
        "tax calls itself: each stack counts once"
    );
    assert_eq!(tax["callers"][0]["name"], "shop::quote");
    assert_eq!(tax["callees"][0]["name"], "shop::tax");
    let main = ask(
        &world,
        "/api/v1/callers",
        &[("selector", selector), ("function", "main")],
    )
    .await;
    assert_eq!(
        (&main["callers"][0]["name"], &main["callers"][0]["id"]),
        (&"(none)".into(), &Value::Null)
    );

    let unknown = world
        .get(&address("/api/v1/callers", &[("function", "shop::taxx")]))
        .await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert!(unknown.text().contains("`shop::tax`"), "{}", unknown.text());
}

#[tokio::test]
async fn labels_and_their_values_are_those_of_the_samples() {
    let world = World::new(shop()).await;
    let values = |answer: &Value| -> Vec<String> {
        let values = answer["values"].as_array().unwrap().iter();
        values.map(|v| v["value"].as_str().unwrap().to_owned()).collect()
    };
    let services = ask(&world, "/api/v1/label_values", &[("label", "service_name")]).await;
    assert_eq!(values(&services), ["cart", "checkout", "frontend"]);
    let question = [
        ("label", "route"),
        ("selector", r#"{service="checkout",version=~"v.*"}"#),
    ];
    assert_eq!(
        values(&ask(&world, "/api/v1/label_values", &question).await),
        ["", "/health", QUOTE]
    );
    let labels = ask(&world, "/api/v1/labels", &[("selector", r#"{service="checkout"}"#)]).await;
    for (name, count) in [
        ("component", 1),
        ("instance", 2),
        ("namespace", 1),
        ("route", 2),
        ("side", 1),
        ("version", 2),
    ] {
        assert_eq!(find(&labels["labels"], &[("name", name)])["values"], count, "{name}");
    }
    let types = ask(&world, "/api/v1/profile_types", &[]).await;
    assert_eq!(types["profile_types"].as_array().unwrap().len(), 1);
    assert_eq!(types["profile_types"][0]["unit"], "nanoseconds");
    let none = ask(&world, "/api/v1/profile_types", &[("selector", r#"{version="v3"}"#)]).await;
    assert_eq!(none["profile_types"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn what_makes_the_store_grow_is_counted_per_service() {
    let world = World::new(shop()).await;
    let answer = world.json("/api/v1/cardinality?from=now-2m").await;
    let checkout = find(&answer["services"], &[("service", "checkout")]);
    assert_eq!(answer["services"][0], *checkout, "the most rows first");
    for (field, expected) in [("versions", 2), ("instances", 2), ("routes", 2), ("profile_types", 1)] {
        assert_eq!(checkout[field], expected, "{field}");
    }
    // Six stacks, of which one is an address that differs between the builds; 8 windows of v1 and 6 of v2.
    assert_eq!(checkout["stacks"], 7);
    assert_eq!(checkout["rows"], 6 * 14);
    // Three label sets of each release.
    assert_eq!(checkout["series"], 6);
    assert_eq!(answer["rows"], sum(&answer["services"], "rows"));
    assert!(answer["stored_bytes"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn wrong_selectors_are_refused_with_the_place_or_the_name() {
    let world = World::new(shop()).await;
    for (parameters, code, said) in [
        (("selector", "{service=checkout}"), "bad_selector", "character 10"),
        (("selector", r#"{service=~"("}"#), "bad_selector", "unclosed group"),
        (("selector", r#"{sevice="checkout"}"#), "unknown_label", "`service`"),
        (("profile_type", "heap"), "unknown_profile_type", "process_cpu"),
    ] {
        for path in ["/api/v1/merge", "/api/v1/series"] {
            let answer = world.get(&address(path, &[parameters])).await;
            assert!(answer.status.is_client_error(), "{path} {parameters:?}");
            assert_eq!(answer.json()["error"]["code"], code, "{path} {parameters:?}");
            assert!(answer.text().contains(said), "{}", answer.text());
        }
    }
    for (parameters, code) in [
        (("group_by", "versio"), "unknown_label"),
        (("group_by", "__type__"), "bad_parameter"),
        (("step", "-1"), "bad_parameter"),
    ] {
        let answer = world.get(&address("/api/v1/series", &[parameters])).await;
        assert_eq!(answer.json()["error"]["code"], code, "{parameters:?}");
    }
}

/// Names as an attacker would choose them are names.
#[tokio::test]
async fn sql_in_a_selector_is_text() {
    let hostile = [
        "' OR 1=1 --",
        "x'; DROP TABLE series; --",
        "a\"b",
        "%",
        "_",
        "\\",
        "?",
        "$1",
        "naïve\u{1F525}",
    ];
    let windows = hostile.iter().enumerate().map(|(at, name)| {
        window(name, "v1", Component::Application, 0)
            .stack(Some(Side::Server), name, &["main"], 1 << at, 1)
            .done()
    });
    let world = World::new(windows.collect()).await;
    for (at, name) in hostile.iter().enumerate() {
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        let pattern: String = name.chars().map(|c| format!("\\x{{{:x}}}", u32::from(c))).collect();
        for selector in [
            format!("{{service=\"{quoted}\"}}"),
            format!("{{route=\"{quoted}\"}}"),
            format!("{{service=~\"{pattern}\"}}"),
            format!("{{service=~\".*\",route!=\"\",route=~\"{pattern}\"}}"),
        ] {
            assert_eq!(merged(&world, &selector).await["total"], 1 << at, "{selector}");
        }
        let others = merged(&world, &format!("{{service!=\"{quoted}\"}}")).await;
        assert_eq!(others["total"], (1 << hostile.len()) - 1 - (1 << at), "{name}");
    }
    let all = merged(&world, "").await;
    assert_eq!(all["total"], (1 << hostile.len()) - 1, "nothing was dropped");
}

#[test]
fn any_selector_is_answered_or_refused_as_the_askers_mistake() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let world = runtime.block_on(World::new(shop()));
    let config = ProptestConfig::with_cases(64);
    proptest!(config, |(
        name in prop::sample::select(vec!["service", "route", "version", "side", "component", "__name__", "nope"]),
        operator in prop::sample::select(vec!["=", "!=", "=~", "!~", "=="]),
        value in "[ -~é'\"\\\\%;]{0,16}",
    )| {
        let selector = format!("{{{name}{operator}\"{value}\"}}");
        let answer = runtime.block_on(world.get(&address("/api/v1/merge", &[("selector", &selector)])));
        let fine = answer.status == StatusCode::OK || answer.status == StatusCode::BAD_REQUEST;
        prop_assert!(fine, "{selector}: {} {}", answer.status, answer.text());
    });
}

/// Large trees are looked at piece by piece.
#[tokio::test]
async fn what_was_cut_is_there_when_asked_for() {
    let world = World::new(shop()).await;
    let questions = [
        (
            "/api/v1/profile?service=checkout&version=v2&from=now-2m",
            "self",
            "total",
        ),
        ("/api/v1/diff?service=checkout&from=now-2m", "self_b", "total_b"),
        ("/api/v1/merge?from=now-2m", "self", "total"),
    ];
    for (question, own, all) in questions {
        let whole = world.json(&format!("{question}&limit=0")).await;
        assert!(
            whole["tree"]["node"].as_array().unwrap().iter().all(|n| n == ""),
            "nothing is cut"
        );
        let mut parts = 0;
        for limit in 0..8 {
            let shown = world.json(&format!("{question}&limit={limit}")).await;
            let tree = &shown["tree"];
            for (at, node) in tree["node"].as_array().unwrap().iter().enumerate() {
                assert_eq!(tree["kind"][at] == 1, node != "", "cut nodes name what to ask for");
                if node == "" {
                    continue;
                }
                parts += 1;
                // A cut node stands right behind its parent.
                let parent = at - 1;
                let address = format!("{question}&node={}&limit=", node.as_str().unwrap());
                for limit in [0, 1, 3] {
                    let part = world.json(&format!("{address}{limit}")).await;
                    assert_eq!(part["tree"][all][0], tree[all][parent]);
                    assert_eq!(part["tree"]["depth"][0], 0);
                    assert_eq!(total(&part["tree"][own]), tree[all][parent].as_i64().unwrap());
                    assert_eq!(part["functions"], whole["functions"], "the table is the whole's");
                }
            }
        }
        assert!(parts > 8, "{question}: {parts}");
        let unknown = world.get(&format!("{question}&node=0123456789abcdef")).await;
        assert_eq!(
            (unknown.status.as_u16(), &unknown.json()["error"]["code"]),
            (404, &"unknown_node".into())
        );
        let file = world
            .get(&format!("{question}&node=0123456789abcdef&format=folded"))
            .await;
        assert_eq!(file.json()["error"]["code"], "bad_parameter", "a file holds the whole");
        let bad = world.get(&format!("{question}&node=x")).await;
        assert_eq!(
            (bad.status.as_u16(), &bad.json()["error"]["code"]),
            (400, &"bad_parameter".into())
        );
    }
}
