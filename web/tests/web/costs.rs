//! What a request costs, and who counts it.

use emberline_model::{Component, Side};
use serde_json::Value;

use crate::support::{QUOTE, QUOTES, World, find, release, shop, sum, window};

#[tokio::test]
async fn cost_per_request_times_requests_is_cpu_per_route() {
    let world = World::new(shop()).await;
    let page = world.json("/api/v1/service?service=checkout&from=now-2m").await;
    let routes = page["routes"].as_array().unwrap();
    assert_eq!(routes.len(), 6, "two routes and what has no label, of two releases");
    for row in routes.iter().filter(|row| row["route"] != "(none)") {
        let cpu = row["cpu_ns_per_request"].as_f64().unwrap() * row["complete_requests"].as_f64().unwrap();
        assert!((cpu - row["complete_cpu_ns"].as_f64().unwrap()).abs() < 1.0, "{row}");
        assert_eq!(row["complete_cpu_ns"], row["cpu_ns"], "every window is complete");
        assert_eq!(row["complete_requests"], row["requests"]);
    }
    let quote = find(&page["routes"], &[("route", QUOTE), ("version", "v2")]);
    assert_eq!(quote["requests"], 6 * QUOTES);
    assert_eq!(quote["error_ratio"], 0.1);
    // The same cost stands in the comparison, in the profile and in the release's figures.
    let diff = world
        .json("/api/v1/diff?service=checkout&from=now-2m&route=/quote/%7Bid%7D")
        .await;
    assert_eq!(diff["candidate"]["value"], quote["cpu_ns_per_request"]);
    let profile = world
        .json("/api/v1/profile?service=checkout&version=v2&from=now-2m&route=/quote/%7Bid%7D")
        .await;
    assert_eq!(profile["cost"]["per_request"], quote["cpu_ns_per_request"]);
    assert_eq!(profile["requests"], quote["requests"]);
    let all = world.json("/api/v1/diff?service=checkout&from=now-2m").await;
    let newest = &page["releases"][0];
    assert_eq!(newest["version"], "v2");
    assert_eq!(newest["cpu_ns_per_request"], all["candidate"]["value"]);
    let of_release: i64 = routes
        .iter()
        .filter(|r| r["version"] == "v2")
        .map(|r| r["cpu_ns"].as_i64().unwrap())
        .sum();
    assert_eq!(newest["cpu_ns"], of_release);
}

#[tokio::test]
async fn a_window_without_its_profile_does_not_divide() {
    let mut windows = shop();
    let lost = window("checkout", "v2", Component::Application, 9)
        .requests(Side::Server, QUOTE, Some(release("frontend", "v1")), 1000, 0)
        .without_profile();
    windows.push(lost.done());
    let world = World::new(windows).await;
    let page = world.json("/api/v1/service?service=checkout&from=now-2m").await;
    let quote = find(&page["routes"], &[("route", QUOTE), ("version", "v2")]);
    assert_eq!(quote["requests"], 6 * QUOTES + 1000);
    assert_eq!(quote["complete_requests"], 6 * QUOTES);
    let newest = &page["releases"][0];
    assert_eq!(
        (&newest["windows"], &newest["complete_windows"]),
        (&7.into(), &6.into())
    );
    let point = page["series"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&point["requests"], point["cpu_ns_per_request"].is_null()),
        (&1000.into(), true)
    );
    let diff = world
        .json("/api/v1/diff?service=checkout&from=now-2m&route=/quote/%7Bid%7D")
        .await;
    assert_eq!(diff["candidate"]["requests"], 6 * QUOTES);
}

#[tokio::test]
async fn requests_that_the_application_and_its_proxy_both_count_are_counted_once() {
    let caller = Some(release("frontend", "v1"));
    let application = window("checkout", "v1", Component::Application, 0)
        .requests(Side::Server, QUOTE, caller.clone(), 10, 0)
        .stack(Some(Side::Server), QUOTE, &["main", "shop::quote"], 5_000_000, 5);
    let proxy = window("checkout", "v1", Component::Proxy, 0)
        .requests(Side::Server, QUOTE, caller, 10, 0)
        .stack(
            Some(Side::Server),
            QUOTE,
            &["main", "emberline_proxy::serve"],
            1_000_000,
            1,
        );
    let world = World::new(vec![application.done(), proxy.done()]).await;
    let page = world.json("/api/v1/service?service=checkout&from=now-2m").await;
    assert_eq!(page["releases"][0]["requests"], 10);
    assert_eq!(page["releases"][0]["component"], "application");
    assert_eq!(page["series"][0]["requests"], 10);
    let of = |component| find(&page["routes"], &[("route", QUOTE), ("component", component)]);
    assert_eq!(
        (&of("application")["requests"], &of("application")["cpu_ns_per_request"]),
        (&10.into(), &500_000.0.into())
    );
    assert_eq!(
        (&of("proxy")["requests"], &of("proxy")["cpu_ns_per_request"]),
        (&10.into(), &100_000.0.into())
    );
    let topology = world.json("/api/v1/topology?from=now-2m").await;
    assert_eq!(
        find(&topology["edges"], &[("destination", "shop/checkout@v1")])["requests"],
        10
    );
}

#[tokio::test]
async fn a_service_that_only_a_proxy_reports_costs_what_its_proxy_costs() {
    let world = World::new(shop()).await;
    let releases = world.json("/api/v1/releases?service=cart&from=now-2m").await;
    let cart = &releases["releases"][0];
    assert_eq!(cart["component"], "proxy");
    // Four requests of each release of checkout: one release in two windows and two in six.
    assert_eq!(cart["requests"], 4 * (2 + 2 * 6));
    let expected = 8.0 * 500_000.0 / (4.0 * 14.0);
    assert!(
        (cart["cpu_ns_per_request"].as_f64().unwrap() - expected).abs() < 1e-6,
        "{cart}"
    );
}

#[tokio::test]
async fn windows_add_up_to_the_release() {
    let world = World::new(shop()).await;
    let page = world.json("/api/v1/service?service=checkout&from=now-2m").await;
    for version in ["v1", "v2"] {
        let points: Vec<_> = page["series"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|p| p["version"] == version)
            .collect();
        let release = find(&page["releases"], &[("version", version)]);
        let sum_of = |field: &str| points.iter().map(|p| p[field].as_i64().unwrap()).sum::<i64>();
        assert_eq!(points.len() as u64, release["windows"].as_u64().unwrap());
        for field in ["requests", "errors", "cpu_ns"] {
            assert_eq!(sum_of(field), release[field].as_i64().unwrap(), "{version} {field}");
        }
    }
}

#[tokio::test]
async fn services_say_what_lives_and_what_it_serves() {
    let world = World::new(shop()).await;
    let services = world.json("/api/v1/services?from=now-2m").await;
    let names: Vec<&str> = services["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["service"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["cart", "checkout", "frontend"]);
    let checkout = find(&services["services"], &[("service", "checkout")]);
    assert_eq!(checkout["releases"][0]["version"], "v2");
    assert_eq!(
        sum(&checkout["releases"], "first_seen_ms"),
        2 * crate::support::BASE_S * 1000 + 20_000
    );
    // 14 windows of 25 requests over 80 s.
    assert_eq!(checkout["requests_per_second"], 14.0 * 25.0 / 80.0);
    assert!((checkout["error_ratio"].as_f64().unwrap() - 2.0 / 25.0).abs() < 1e-12);
    assert!((checkout["p99_ms"].as_f64().unwrap() - 20.0).abs() < 0.3);
    // The last window ended 40 s before now: nothing is live now, and everything was at its end.
    assert_eq!(checkout["live_versions"].as_array().unwrap().len(), 0);
    let then = world
        .json(&format!(
            "/api/v1/services?from=now-2m&to={}",
            crate::support::BASE_S + 90
        ))
        .await;
    assert_eq!(
        find(&then["services"], &[("service", "checkout")])["live_versions"],
        serde_json::json!(["v2", "v1"])
    );
}

#[tokio::test]
async fn a_long_range_is_told_in_few_points_and_loses_nothing() {
    let mut windows = shop();
    // Every minute from 20 hours before on, and then one a few seconds beside the grid.
    let earlier = (1..=1200).map(|minutes| window("checkout", "v1", Component::Application, -6 * minutes));
    windows.extend(earlier.map(|w| w.requests(Side::Server, QUOTE, None, 2, 1).done()));
    let mut beside = window("checkout", "v1", Component::Application, -6 * 600 + 2).done();
    beside.start_unix_s += 7;
    windows.push(beside);
    let world = World::new(windows).await;
    let minutes = world.json("/api/v1/service?service=checkout&from=now-2m").await;
    let day = world.json("/api/v1/service?service=checkout&from=now-24h").await;
    assert_eq!((&minutes["step_s"], &day["step_s"]), (&10.into(), &900.into()));
    let points = |page: &Value, version: &str| -> Vec<Value> {
        let series = page["series"].as_array().unwrap();
        series.iter().filter(|p| p["version"] == version).cloned().collect()
    };
    let sum_of = |points: &[Value], field: &str| points.iter().map(|p| p[field].as_i64().unwrap()).sum::<i64>();
    let v1 = points(&day, "v1");
    assert_eq!(v1.len(), 20 * 4 + 1);
    assert_eq!(v1[0]["observed_s"], 150, "of 900, and of 15 windows");
    let release = find(&day["releases"], &[("version", "v1")]);
    for field in ["requests", "errors", "cpu_ns"] {
        assert_eq!(sum_of(&v1, field), release[field].as_i64().unwrap(), "{field}");
    }
    assert_eq!(sum_of(&v1, "observed_s"), 10 * release["windows"].as_i64().unwrap());
    for version in ["v1", "v2"] {
        // What the two minutes hold starts within one step.
        let (short, long) = (points(&minutes, version), points(&day, version).pop().unwrap());
        assert_eq!(long["start_ms"], crate::support::BASE_S * 1000);
        for field in ["requests", "errors", "cpu_ns", "observed_s"] {
            assert_eq!(long[field], sum_of(&short, field), "{version} {field}");
        }
        // Of all requests, not of windows.
        let release = find(&minutes["releases"], &[("version", version)]);
        for field in ["p50_ms", "p99_ms", "cpu_ns_per_request"] {
            assert_eq!(long[field], release[field], "{version} {field}");
        }
    }
}

#[tokio::test]
async fn a_long_range_with_minutes_of_data_shows_its_windows() {
    let world = World::new(shop()).await;
    let minutes = world.json("/api/v1/service?service=checkout&from=now-2m").await;
    for from in ["now-24h", "0"] {
        let page = world
            .json(&format!("/api/v1/service?service=checkout&from={from}"))
            .await;
        assert_eq!(page["step_s"], 10);
        assert_eq!(page["series"], minutes["series"]);
    }
}
