//! The call graph.

use std::collections::BTreeMap;

use emberline_model::{Component, Side, WorkloadWindow, alert::AlertStatus};

use crate::support::{BASE_S, QUOTE, QUOTES, World, alert, find, release, shop, window};

#[tokio::test]
async fn counts_are_exact_and_a_side_nobody_reported_is_null() {
    let world = World::new(shop()).await;
    let topology = world.json("/api/v1/topology?from=now-2m").await;
    let edges: BTreeMap<&str, &serde_json::Value> = topology["edges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["id"].as_str().unwrap(), e))
        .collect();
    let ids: Vec<&str> = edges.keys().copied().collect();
    assert_eq!(
        ids,
        [
            "external -> shop/checkout@v1",
            "external -> shop/checkout@v2",
            "external -> shop/frontend@v1",
            "shop/checkout@v1 -> shop/cart@v1",
            "shop/checkout@v2 -> shop/cart@v1",
            "shop/checkout@v2 -> shop/payment@v1",
            "shop/frontend@v1 -> shop/checkout@v1",
            "shop/frontend@v1 -> shop/checkout@v2",
        ]
    );
    let both = edges["shop/frontend@v1 -> shop/checkout@v2"];
    assert_eq!(
        both["requests"],
        6 * QUOTES,
        "the callee's count goes before the caller's"
    );
    assert_eq!(
        (&both["server"]["requests"], &both["client"]["requests"]),
        (&(6 * QUOTES).into(), &(6 * (QUOTES + 1)).into())
    );
    assert_eq!(
        (&both["server"]["errors"], &both["client"]["errors"]),
        (&12.into(), &0.into())
    );
    assert_eq!(both["routes"][0]["route"], QUOTE);
    assert_eq!(both["protocol"], "http/1.1");
    let one_sided = edges["shop/checkout@v2 -> shop/payment@v1"];
    assert!(one_sided["server"].is_null());
    assert_eq!(
        (&one_sided["requests"], &one_sided["client"]["errors"]),
        (&18.into(), &6.into())
    );
    let from_outside = edges["external -> shop/frontend@v1"];
    assert!(from_outside["client"].is_null());
    assert_eq!(from_outside["requests"], 2 * (QUOTES + 1) + 6 * (2 * QUOTES + 1));

    // A node counts what it served, and a silent one what its callers say.
    assert_eq!(
        find(&topology["nodes"], &[("id", "shop/checkout@v2")])["requests"],
        6 * (QUOTES + 5)
    );
    assert_eq!(find(&topology["nodes"], &[("id", "shop/payment@v1")])["requests"], 18);
    let external = find(&topology["nodes"], &[("id", "external")]);
    assert_eq!((&external["kind"], &external["x"]), (&"external".into(), &0.0.into()));
    // Every edge but those of cycles goes to the right.
    let x = |id: &serde_json::Value| {
        find(&topology["nodes"], &[("id", id.as_str().unwrap())])["x"]
            .as_f64()
            .unwrap()
    };
    assert!(edges.values().all(|e| x(&e["source"]) < x(&e["destination"])));
}

#[tokio::test]
async fn quantiles_of_a_node_come_from_the_merged_histogram() {
    let world = World::new(shop()).await;
    let topology = world.json("/api/v1/topology?from=now-2m").await;
    // 20 requests of 1..20 ms and 5 of 1..5 ms: the 13th of 25 is 8 ms. A mean of the routes' medians would be 6.5.
    let p50 = find(&topology["nodes"], &[("id", "shop/checkout@v1")])["p50_ms"]
        .as_f64()
        .unwrap();
    assert!((p50 - 8.0).abs() < 0.1, "{p50}");
}

#[tokio::test]
async fn cards_stay_where_they_are_when_asked_again() {
    let world = World::new(shop()).await;
    let first = world
        .json(&format!("/api/v1/topology?from={BASE_S}&to={}", BASE_S + 80))
        .await;
    let again = world
        .json(&format!("/api/v1/topology?from={BASE_S}&to={}", BASE_S + 80))
        .await;
    assert_eq!(first, again);
    assert_eq!(first["complete"], true);
    assert_eq!(world.json("/api/v1/topology?from=now-2m").await["complete"], false);
}

#[tokio::test]
async fn a_release_with_a_firing_alert_is_marked() {
    let world = World::new(shop()).await;
    world.state.alerts.replace(vec![alert(AlertStatus::Firing)]);
    let topology = world.json("/api/v1/topology?from=now-2m").await;
    for node in topology["nodes"].as_array().unwrap() {
        assert_eq!(node["alert"], node["id"] == "shop/checkout@v2", "{node}");
    }
}

#[tokio::test]
async fn a_namespace_shows_its_own_and_their_neighbours() {
    let world = World::new(shop()).await;
    let shop = world.json("/api/v1/topology?from=now-2m&namespace=shop").await;
    assert_eq!(shop["nodes"].as_array().unwrap().len(), 6);
    let other = world.json("/api/v1/topology?from=now-2m&namespace=other").await;
    assert_eq!(other["nodes"].as_array().unwrap().len(), 0);
    let nothing = world.json("/api/v1/topology?from=1000&to=2000").await;
    assert_eq!(nothing["edges"].as_array().unwrap().len(), 0);
}

/// A service calls a database, a third party and a service that is down: none of them has a proxy that reports.
fn without_proxies() -> Vec<WorkloadWindow> {
    let to = |route: &str, count, errors, destination: &str, protocol: &str| {
        let (destination, protocol) = (destination.to_owned(), protocol.to_owned());
        window("shop", "v1", Component::Proxy, 1)
            .requests(Side::Client, route, None, count, errors)
            .of_which(|series| {
                series.destination = destination;
                series.protocol = protocol;
            })
            .done()
    };
    vec![
        to("tcp", 4, 0, "postgres", "tcp"),
        to("/pay", 5, 0, "payments", "http/1.1"),
        // All of its requests failed.
        to("/checkout", 5, 5, "checkout", "http/1.1"),
        to("/old", 2, 0, "", "http/1.1"),
        // An SDK that calls a service of Kubernetes says its namespace.
        to("/book", 3, 0, "billing/ledger", "http/1.1"),
    ]
}

#[tokio::test]
async fn destinations_without_a_proxy_are_nodes_with_their_names_and_one_that_is_down_has_its_errors() {
    let world = World::new(without_proxies()).await;
    let topology = world.json("/api/v1/topology?from=now-2m").await;
    let nodes: Vec<(&str, &str)> = topology["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| (n["id"].as_str().unwrap(), n["kind"].as_str().unwrap()))
        .collect();
    assert_eq!(
        nodes,
        [
            ("shop/shop@v1", "service"),
            ("billing/ledger", "destination"),
            ("shop/checkout", "destination"),
            ("shop/payments", "destination"),
            ("shop/postgres", "destination"),
            ("unknown destination", "external"),
        ]
    );
    let down = find(&topology["edges"], &[("id", "shop/shop@v1 -> shop/checkout")]);
    assert_eq!(
        (&down["requests"], &down["client"]["errors"], &down["server"]),
        (&5.into(), &5.into(), &serde_json::Value::Null)
    );
    let card = find(&topology["nodes"], &[("id", "shop/checkout")]);
    assert_eq!((&card["requests"], &card["error_ratio"]), (&5.into(), &1.0.into()));
    assert_eq!(
        (&card["served"], &card["called"]["errors"]),
        (&serde_json::Value::Null, &5.into())
    );
    assert_eq!((&card["service"], &card["version"]), (&"checkout".into(), &"".into()));
    assert_eq!(
        find(&topology["edges"], &[("id", "shop/shop@v1 -> shop/postgres")])["protocol"],
        "tcp"
    );
    // The same with a filter on their callers' namespace, and not without.
    let inside = world.json("/api/v1/topology?from=now-2m&namespace=shop").await;
    assert_eq!(inside["nodes"].as_array().unwrap().len(), 6);
    let beside = world.json("/api/v1/topology?from=now-2m&namespace=billing").await;
    assert_eq!(beside["edges"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_card_says_what_it_reports_and_what_its_callers_report() {
    let payment = release("payment", "v1");
    let world = World::new(vec![
        // The caller made nine requests, of which two never arrived.
        window("shop", "v1", Component::Proxy, 1)
            .requests(Side::Client, "/pay", Some(payment.clone()), 9, 2)
            .done(),
        window("payment", "v1", Component::Proxy, 1)
            .requests(Side::Server, "/pay", Some(release("shop", "v1")), 7, 0)
            .requests(Side::Server, "/pay", None, 3, 1)
            .done(),
        // Another one reached it not once.
        window("cart", "v1", Component::Proxy, 1)
            .requests(Side::Client, "/pay", Some(payment), 4, 4)
            .done(),
    ])
    .await;
    let topology = world.json("/api/v1/topology?from=now-2m").await;
    let card = find(&topology["nodes"], &[("id", "shop/payment@v1")]);
    let (served, called) = (&card["served"], &card["called"]);
    assert_eq!((&served["requests"], &served["errors"]), (&10.into(), &1.into()));
    assert_eq!((&called["requests"], &called["errors"]), (&13.into(), &6.into()));
    assert_eq!(card["requests"], 7 + 3 + 4, "each caller's requests once");
}

#[tokio::test]
async fn requests_that_were_given_up_count_and_are_no_errors_and_no_latency() {
    let world = World::new(vec![
        window("shop", "v1", Component::Proxy, 1)
            .requests(Side::Server, "/a", None, 3, 0)
            .requests(Side::Server, "/a", None, 90, 0)
            .of_which(|series| (series.status, series.error) = (499, false))
            .done(),
    ])
    .await;
    let topology = world.json("/api/v1/topology?from=now-2m").await;
    let edge = &topology["edges"][0];
    assert_eq!(
        (
            &edge["requests"],
            &edge["server"]["given_up"],
            &edge["server"]["errors"]
        ),
        (&93.into(), &90.into(), &0.into())
    );
    // Of 1, 2 and 3 ms; the patience of those that left reached 90 ms.
    let p99 = edge["server"]["p99_ms"].as_f64().unwrap();
    assert!((p99 - 3.0).abs() < 0.1, "{p99}");
}

#[tokio::test]
async fn open_connections_show_as_they_go_with_their_bytes() {
    let open = |index, count, open: u64| {
        window("shop", "v1", Component::Proxy, index)
            .requests(Side::Client, "tcp", None, 1, 0)
            .of_which(|series| {
                series.destination = "redis".to_owned();
                series.protocol = "tcp".to_owned();
                series.open = open;
                series.streaming_s = 4.5;
                if count == 0 {
                    series.duration = emberline_model::Histogram::new();
                }
            })
            .done()
    };
    let world = World::new(vec![open(5, 0, 2), open(6, 0, 3)]).await;
    let edges = |topology: &serde_json::Value| topology["edges"].as_array().unwrap().clone();
    let found = edges(&world.json("/api/v1/topology?from=now-2m").await);
    assert_eq!(found.len(), 1, "an edge without a finished connection");
    let (edge, client) = (&found[0], &found[0]["client"]);
    assert_eq!(edge["destination"], "shop/redis");
    assert_eq!(
        (&edge["requests"], &edge["open"], &client["open"]),
        (&0.into(), &3.into(), &3.into())
    );
    assert_eq!(
        (&client["request_bytes"], &client["response_bytes"]),
        (&20.into(), &40.into())
    );
    assert_eq!(client["streaming_seconds"], 9.0);
    assert!(client["p50_ms"].is_null());
    // The last window says what is open at the end.
    let closed = World::new(vec![open(5, 0, 2), open(6, 2, 0)]).await;
    let found = edges(&closed.json("/api/v1/topology?from=now-2m").await);
    assert_eq!((&found[0]["requests"], &found[0]["open"]), (&1.into(), &0.into()));
}

#[tokio::test]
async fn services_made_up_without_end_leave_those_that_last_in_the_picture() {
    let mut windows = shop();
    let made_up = (0..1_200).map(|number| {
        let window = window(&format!("a-{number:04}"), "v1", Component::Proxy, 4);
        window.requests(Side::Server, "/", None, 1, 0).done()
    });
    windows.extend(made_up);
    let world = World::new(windows).await;
    let topology = world.json("/api/v1/topology?from=now-2m").await;
    let left_out = topology["left_out"].as_u64().unwrap();
    assert!(left_out > 200, "{left_out}");
    let nodes = topology["nodes"].as_array().unwrap();
    let shown = |service: &str| nodes.iter().any(|node| node["service"] == service);
    for service in ["frontend", "checkout", "cart", "payment"] {
        assert!(shown(service), "{service}");
    }
    let services = world.json("/api/v1/services?from=now-2m").await;
    assert_eq!(services["left_out"], 0);
    assert_eq!(services["services"].as_array().unwrap().len() as u64, left_out + 1_000);
    let hidden = (0..1_200)
        .map(|number| format!("a-{number:04}"))
        .find(|name| !shown(name))
        .unwrap();
    let named = world
        .json(&format!("/api/v1/releases?service={hidden}&from=now-2m"))
        .await;
    assert_eq!(
        named["releases"][0]["requests"], 1,
        "who is left out can be asked for by name"
    );
}
