//! Totals in time: each window of a process is counted once, in the bucket its total lies in.

use emberline_model::Component;
use serde_json::{Value, json};

use crate::support::{BASE_S, World, shop, window};

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[tokio::test]
async fn windows_of_processes_are_counted_by_their_totals() {
    let mut windows = Vec::new();
    for (index, instance, values) in [
        (0, "a", [600, 424]),
        (0, "b", [1000, 24]),
        (0, "c", [4000, 97]),
        (2, "a", [1, 1]),
    ] {
        let mut window = window("checkout", "v1", Component::Application, index)
            .stack(None, "", &["main", "x"], values[0], 1)
            .stack(None, "", &["main", "y"], values[1], 1)
            .done();
        window.workload.instance = instance.to_owned();
        windows.push(window);
    }
    let world = World::new(windows).await;
    let map = world.json("/api/v1/heatmap?from=now-2m&step=20").await;
    let at = |s: i64| (BASE_S + s) * 1000;
    assert_eq!(map["step_s"], 20);
    assert_eq!(map["at_ms"], json!([at(0), at(0), at(20)]));
    assert_eq!(map["count"], json!([2, 1, 1]));
    assert_eq!(map["value"], json!([2048, 4097, 2]));
    assert_eq!(
        (&map["windows"], &map["most"], &map["total"]),
        (&json!(4), &json!(2), &json!(6147))
    );
    // Buckets from 2 to 4096, four for each doubling.
    let bounds = numbers(&map["bounds"]);
    assert_eq!(bounds.len(), 4 * 11 + 1);
    let of_cell = |cell: usize| bounds[map["bucket"][cell].as_u64().unwrap() as usize];
    assert_eq!([of_cell(0), of_cell(1), of_cell(2)], [1024.0, 4096.0, 2.0]);
    assert!(bounds.is_sorted());
}

#[tokio::test]
async fn heat_maps_add_up_to_the_merge_of_the_same_question() {
    let world = World::new(shop()).await;
    for selector in [
        "",
        "{service=\"checkout\"}",
        "{route=\"/health\"}",
        "{service=~\"c.*\",side=\"server\"}",
        "{service=\"none\"}",
    ] {
        let encoded: String = selector.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let merged = world
            .json(&format!("/api/v1/merge?from=now-2m&selector={encoded}"))
            .await;
        let map = world
            .json(&format!("/api/v1/heatmap?from=now-2m&selector={encoded}"))
            .await;
        assert_eq!(map["total"], merged["total"], "{selector}");
        let counted: f64 = numbers(&map["count"]).iter().sum();
        assert_eq!(map["windows"].as_f64().unwrap(), counted);
        let bounds = numbers(&map["bounds"]);
        for (cell, count) in numbers(&map["count"]).into_iter().enumerate() {
            let mean = map["value"][cell].as_f64().unwrap() / count;
            let bucket = map["bucket"][cell].as_u64().unwrap() as usize;
            assert!(
                mean >= bounds[bucket] * 0.999_999 && mean < bounds[bucket] * 1.19,
                "{mean} {}",
                bounds[bucket]
            );
        }
    }
    let unknown = world
        .get("/api/v1/heatmap?from=now-2m&profile_type=process_cpu:cpu")
        .await;
    assert_eq!(
        (unknown.status.as_u16(), &unknown.json()["error"]["code"]),
        (404, &json!("unknown_profile_type"))
    );
}
