//! Trees as typed arrays say what the JSON of the same question says, in fewer bytes.

use json_slabs::{ParsedFile, SlabPlaceholder};
use serde_json::Value;

use crate::support::{Answer, World, shop};

/// A tree as a program reads it from typed arrays.
struct Tree {
    root: Value,
    depth: Vec<u32>,
    name: Vec<u32>,
    kind: Vec<u8>,
    own: Vec<Vec<f64>>,
}

fn slab(value: &Value) -> SlabPlaceholder {
    SlabPlaceholder(value["$s"].as_u64().unwrap() as usize)
}

fn read(answer: &Answer, sides: &[&str]) -> Tree {
    assert_eq!(answer.header("content-type"), "application/vnd.emberline.columns");
    let file = ParsedFile::parse(&answer.body).unwrap();
    let root: Value = serde_json::from_slice(file.root_json_bytes()).unwrap();
    let tree = &root["tree"];
    let scale = tree["scale"].as_f64().unwrap();
    let own = |name: &&str| {
        let values: Vec<u32> = file.read(slab(&tree[*name])).unwrap();
        values.into_iter().map(|value| f64::from(value) * scale).collect()
    };
    Tree {
        depth: file.read(slab(&tree["depth"])).unwrap(),
        name: file.read(slab(&tree["name"])).unwrap(),
        kind: file.read(slab(&tree["kind"])).unwrap(),
        own: sides.iter().map(own).collect(),
        root,
    }
}

/// Totals from preorder, depth and self values.
fn totals(depth: &[u32], own: &[f64]) -> Vec<f64> {
    let mut totals = own.to_vec();
    let mut open: Vec<usize> = Vec::new();
    for at in 0..depth.len() {
        open.truncate(depth[at] as usize);
        open.iter().for_each(|&above| totals[above] += own[at]);
        open.push(at);
    }
    totals
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[tokio::test]
async fn typed_arrays_hold_the_tree_of_the_json_answer() {
    let world = World::new(shop()).await;
    for (question, sides) in [
        ("/api/v1/merge?from=now-2m", [("self", "total")].as_slice()),
        ("/api/v1/merge?from=now-2m&limit=4", &[("self", "total")]),
        ("/api/v1/profile?service=checkout&from=now-2m", &[("self", "total")]),
        (
            "/api/v1/diff?service=checkout&from=now-2m",
            &[("self_a", "total_a"), ("self_b", "total_b")],
        ),
        (
            "/api/v1/diff?service=checkout&from=now-2m&limit=3",
            &[("self_a", "total_a"), ("self_b", "total_b")],
        ),
    ] {
        let json = world.json(question).await;
        let answer = world.get(&format!("{question}&format=columns")).await;
        let columns = read(&answer, &sides.iter().map(|side| side.0).collect::<Vec<_>>());
        let tree = &json["tree"];
        for (side, own) in sides.iter().zip(&columns.own) {
            assert_eq!(own, &numbers(&tree[side.0]), "{question} {}", side.0);
            assert_eq!(
                totals(&columns.depth, own),
                numbers(&tree[side.1]),
                "{question} {}",
                side.1
            );
        }
        let as_numbers = |column: &[u32]| column.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        assert_eq!(as_numbers(&columns.depth), numbers(&tree["depth"]));
        assert_eq!(as_numbers(&columns.name), numbers(&tree["name"]));
        assert_eq!(
            columns.kind.iter().map(|&v| f64::from(v)).collect::<Vec<_>>(),
            numbers(&tree["kind"])
        );
        assert_eq!(columns.root["tree"]["names"], tree["names"]);
        // Everything beside the tree is the same.
        for (name, value) in json.as_object().unwrap().iter().filter(|(name, _)| *name != "tree") {
            assert_eq!(&columns.root[name], value, "{question} {name}");
        }
        let cut: Vec<&str> = tree["node"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_str().unwrap())
            .filter(|n| !n.is_empty())
            .collect();
        assert_eq!(columns.root["tree"]["cut"]["node"].as_array().unwrap().len(), cut.len());
        // What was cut is asked for by its node, in the same form.
        if let Some(node) = cut.first() {
            let part = format!("{}&node={node}&limit=0", question.split("&limit").next().unwrap());
            let json = world.json(&part).await;
            let answer = world.get(&format!("{part}&format=columns")).await;
            let columns = read(&answer, &[sides[0].0]);
            assert_eq!(columns.own[0], numbers(&json["tree"][sides[0].0]));
        }
    }
}

#[tokio::test]
async fn the_accept_header_asks_for_typed_arrays_too() {
    let world = World::new(shop()).await;
    let request = http::Request::get("/api/v1/merge?from=now-2m")
        .header("accept", "application/vnd.emberline.columns")
        .body(axum::body::Body::empty())
        .unwrap();
    let answer = world.send(request).await;
    assert!(!read(&answer, &["self"]).depth.is_empty());
}
