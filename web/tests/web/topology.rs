//! The call graph.

use std::collections::BTreeMap;

use emberline_model::alert::AlertStatus;

use crate::support::{BASE_S, QUOTE, QUOTES, World, alert, find, shop};

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
