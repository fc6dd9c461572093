//! Exports for speedscope and the Firefox Profiler say the same as the API, stack by stack.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{World, shop};

const DIFF: &str = "/api/v1/diff?service=checkout&from=now-2m&route=/quote/%7Bid%7D";
const PROFILE: &str = "/api/v1/profile?service=checkout&version=v2&from=now-2m";

/// Value of each stack, written `outer;inner`.
type Stacks = BTreeMap<String, i64>;

fn folded(text: &str, side: usize, sides: usize) -> Stacks {
    let mut stacks = Stacks::new();
    for line in text.lines().filter(|line| !line.starts_with("# ")) {
        let words: Vec<&str> = line.rsplitn(sides + 1, ' ').collect();
        let value: i64 = words[sides - 1 - side].parse().unwrap();
        if value != 0 {
            *stacks.entry(words[sides].to_owned()).or_default() += value;
        }
    }
    stacks
}

fn of_speedscope(file: &Value, side: usize) -> Stacks {
    let profile = &file["profiles"][side];
    assert_eq!(profile["type"], "sampled");
    assert_eq!(profile["unit"], "nanoseconds");
    let (samples, weights) = (
        profile["samples"].as_array().unwrap(),
        profile["weights"].as_array().unwrap(),
    );
    assert_eq!(samples.len(), weights.len());
    let mut stacks = Stacks::new();
    for (sample, weight) in samples.iter().zip(weights) {
        let names: Vec<&str> = sample
            .as_array()
            .unwrap()
            .iter()
            .map(|frame| {
                file["shared"]["frames"][frame.as_u64().unwrap() as usize]["name"]
                    .as_str()
                    .unwrap()
            })
            .collect();
        *stacks.entry(names.join(";")).or_default() += weight.as_i64().unwrap();
    }
    assert_eq!(profile["endValue"].as_i64().unwrap(), stacks.values().sum::<i64>());
    stacks
}

/// Walks the tables as a reader does: sample → stack → frame → function → string.
fn of_firefox(file: &Value, side: usize) -> Stacks {
    assert_eq!(file["meta"]["preprocessedProfileVersion"], 48);
    let thread = &file["threads"][side];
    for table in [
        "samples",
        "stackTable",
        "frameTable",
        "funcTable",
        "resourceTable",
        "markers",
    ] {
        let length = thread[table]["length"].as_u64().unwrap() as usize;
        for (name, column) in thread[table].as_object().unwrap() {
            if let Some(column) = column.as_array() {
                assert_eq!(column.len(), length, "{table}.{name}");
            }
        }
    }
    let index = |value: &Value| value.as_u64().unwrap() as usize;
    let samples = &thread["samples"];
    assert_eq!(samples["weightType"], "tracing-ms");
    let mut stacks = Stacks::new();
    let mut last = -1.0;
    for at in 0..index(&samples["length"]) {
        let time = samples["time"][at].as_f64().unwrap();
        assert!(time > last, "times rise");
        last = time;
        let (mut names, mut stack) = (Vec::new(), samples["stack"][at].as_u64());
        while let Some(row) = stack {
            let frame = index(&thread["stackTable"]["frame"][row as usize]);
            let function = index(&thread["frameTable"]["func"][frame]);
            let name = index(&thread["funcTable"]["name"][function]);
            names.push(thread["stringArray"][name].as_str().unwrap());
            let prefix = &thread["stackTable"]["prefix"][row as usize];
            stack = prefix.as_u64();
            assert!(
                stack.is_none_or(|prefix| prefix < row),
                "a caller stands before its callees"
            );
        }
        names.reverse();
        *stacks.entry(names.join(";")).or_default() += (samples["weight"][at].as_f64().unwrap() * 1e6).round() as i64;
    }
    stacks
}

#[tokio::test]
async fn viewers_see_the_stacks_and_the_total_of_the_api() {
    let world = World::new(shop()).await;
    for limit in ["", "&limit=1"] {
        let total = world.json(&format!("{PROFILE}{limit}")).await["total"]
            .as_i64()
            .unwrap();
        let expected = folded(world.get(&format!("{PROFILE}&format=folded")).await.text(), 0, 1);
        assert_eq!(expected.values().sum::<i64>(), total);
        let speedscope = world.json(&format!("{PROFILE}{limit}&format=speedscope")).await;
        assert_eq!(of_speedscope(&speedscope, 0), expected);
        assert_eq!(speedscope["profiles"].as_array().unwrap().len(), 1);
        let firefox = world.json(&format!("{PROFILE}{limit}&format=firefox")).await;
        assert_eq!(of_firefox(&firefox, 0), expected);
    }
}

#[tokio::test]
async fn a_comparison_is_two_profiles_in_one_file() {
    let world = World::new(shop()).await;
    let diff = world.json(DIFF).await;
    let text = world.get(&format!("{DIFF}&format=folded")).await;
    let speedscope = world.json(&format!("{DIFF}&format=speedscope")).await;
    let firefox = world.json(&format!("{DIFF}&format=firefox")).await;
    for (side, name) in ["baseline", "candidate"].into_iter().enumerate() {
        let expected = folded(text.text(), side, 2);
        assert_eq!(expected.values().sum::<i64>(), diff[name]["total"].as_i64().unwrap());
        assert_eq!(of_speedscope(&speedscope, side), expected);
        assert_eq!(of_firefox(&firefox, side), expected);
        let version = diff[name]["version"].as_str().unwrap();
        assert_eq!(firefox["threads"][side]["name"], format!("checkout {version}"));
        assert_eq!(speedscope["profiles"][side]["name"], format!("checkout {version}"));
    }
}

#[tokio::test]
async fn a_profile_is_a_page_to_keep_too() {
    let world = World::new(shop()).await;
    let page = world.get(&format!("{PROFILE}&format=html")).await;
    assert_eq!(
        page.header("content-disposition"),
        "attachment; filename=\"checkout-v2.html\""
    );
    assert!(page.text().starts_with("<!doctype html>") && page.text().contains("shop::price_basket"));
}
