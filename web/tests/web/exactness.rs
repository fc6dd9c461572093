//! No display limit changes a number.

use serde_json::Value;

use crate::support::{World, find, shop, sum, total};

const DIFF: &str = "/api/v1/diff?service=checkout&from=now-2m";
const PROFILE: &str = "/api/v1/profile?service=checkout&version=v2&from=now-2m";

#[tokio::test]
async fn self_values_add_up_to_the_total_at_every_limit_and_the_table_stays() {
    let world = World::new(shop()).await;
    let whole = world.json(&format!("{DIFF}&limit=0")).await;
    for limit in ["1", "2", "16", "1024", "0"] {
        let diff = world.json(&format!("{DIFF}&limit={limit}")).await;
        assert_eq!(diff["functions"], whole["functions"], "limit {limit}");
        for (side, summary) in [("a", "baseline"), ("b", "candidate")] {
            let expected = diff[summary]["total"].as_i64().unwrap();
            assert!(expected > 0);
            assert_eq!(
                sum(&diff["functions"], &format!("raw_self_{side}")),
                expected,
                "table, limit {limit}"
            );
            assert_eq!(
                total(&diff["tree"][format!("self_{side}")]),
                expected,
                "tree, limit {limit}"
            );
            assert_eq!(diff["tree"][format!("total_{side}")][0], expected);
        }
    }
    let cut = world.json(&format!("{DIFF}&limit=1")).await;
    assert!(
        cut["tree"]["kind"].as_array().unwrap().contains(&Value::from(1)),
        "a cut node is shown"
    );

    let whole = world.json(&format!("{PROFILE}&limit=0")).await;
    for limit in ["1", "2", "16", "1024", "0"] {
        let profile = world.json(&format!("{PROFILE}&limit={limit}")).await;
        assert_eq!(profile["functions"], whole["functions"], "limit {limit}");
        assert_eq!(sum(&profile["functions"], "self"), profile["total"].as_i64().unwrap());
        assert_eq!(total(&profile["tree"]["self"]), profile["total"].as_i64().unwrap());
    }
}

#[tokio::test]
async fn rows_cut_from_the_table_keep_their_sums() {
    let world = World::new(shop()).await;
    let whole = world.json(DIFF).await;
    let cut = world.json(&format!("{DIFF}&functions_limit=2")).await;
    assert_eq!(cut["functions"].as_array().unwrap().len(), 2);
    assert_eq!(
        cut["functions_cut"]["count"],
        whole["functions"].as_array().unwrap().len() - 2
    );
    for side in ["a", "b"] {
        let shown = sum(&cut["functions"], &format!("raw_self_{side}"));
        let left_out = cut["functions_cut"][format!("self_{side}")].as_i64().unwrap();
        assert_eq!(shown + left_out, sum(&whole["functions"], &format!("raw_self_{side}")));
    }
    // Nodes of functions that are not in the table point nowhere.
    let places = cut["tree"]["function"].as_array().unwrap();
    assert!(places.iter().all(|p| (-1..2).contains(&p.as_i64().unwrap())));
    let profile = world.json(&format!("{PROFILE}&functions_limit=1")).await;
    let shown = sum(&profile["functions"], "self") + profile["functions_cut"]["self"].as_i64().unwrap();
    assert_eq!(shown, profile["total"].as_i64().unwrap());
}

#[tokio::test]
async fn the_newest_release_is_compared_with_the_one_before_and_the_guilty_function_is_named() {
    let world = World::new(shop()).await;
    let diff = world.json(&format!("{DIFF}&route=/quote/%7Bid%7D")).await;
    assert_eq!(
        (
            diff["baseline"]["version"].as_str(),
            diff["candidate"]["version"].as_str()
        ),
        (Some("v1"), Some("v2"))
    );
    assert_eq!(diff["component"], "application");
    assert_eq!(diff["judgement"], "changed");
    let guilty = find(&diff["functions"], &[("name", "shop::price_basket")]);
    assert_eq!(diff["guilty"], guilty["id"]);
    assert!(diff["summary"].as_str().unwrap().contains("shop::price_basket"));
    // v1 served eight windows and v2 six; the divisor is the requests of each side's own windows.
    assert_eq!(diff["baseline"]["requests"], 8 * 20);
    assert_eq!(diff["candidate"]["requests"], 6 * 20);
    let row_of_node = |node: usize| diff["tree"]["function"][node].as_i64().unwrap();
    let names = diff["tree"]["names"].as_array().unwrap();
    for node in 1..diff["tree"]["depth"].as_array().unwrap().len() {
        let name = &names[diff["tree"]["name"][node].as_u64().unwrap() as usize];
        assert_eq!(
            &diff["functions"][row_of_node(node) as usize]["name"],
            name,
            "node {node} points to its row"
        );
    }
    let kinds: Vec<i64> = diff["tree"]["kind"]
        .as_array()
        .unwrap()
        .iter()
        .map(|k| k.as_i64().unwrap())
        .collect();
    assert_eq!(kinds[0], 3);
    assert!(
        kinds.contains(&2) && kinds.contains(&4) && kinds.contains(&0),
        "{kinds:?}"
    );
}

#[tokio::test]
async fn per_changes_divisors_and_never_raw_values() {
    let world = World::new(shop()).await;
    let request = world.json(&format!("{DIFF}&per=request")).await;
    for per in ["second", "total"] {
        let other = world.json(&format!("{DIFF}&per={per}")).await;
        for side in ["baseline", "candidate"] {
            assert_eq!(other[side]["total"], request[side]["total"]);
            assert_ne!(other[side]["divisor"], request[side]["divisor"]);
        }
        for row in other["functions"].as_array().unwrap() {
            let same = find(&request["functions"], &[("id", row["id"].as_str().unwrap())]);
            for field in ["raw_self_a", "raw_self_b", "raw_total_a", "raw_total_b"] {
                assert_eq!(row[field], same[field]);
            }
        }
    }
    let total = world.json(&format!("{DIFF}&per=total")).await;
    assert_eq!(total["baseline"]["divisor"], 1.0);
}

#[tokio::test]
async fn one_release_before_and_after_is_compared_over_two_ranges() {
    let world = World::new(shop()).await;
    let base = crate::support::BASE_S;
    let address = format!(
        "/api/v1/diff?service=checkout&baseline=v1&candidate=v1&baseline_from={base}&baseline_to={}&candidate_from={}&candidate_to={}",
        base + 30,
        base + 30,
        base + 80
    );
    let diff = world.json(&address).await;
    assert_eq!(
        (&diff["baseline"]["windows"], &diff["candidate"]["windows"]),
        (&3.into(), &5.into())
    );
    assert_eq!(diff["judgement"], "no_change");
}

#[tokio::test]
async fn the_functions_endpoint_holds_the_same_tables() {
    let world = World::new(shop()).await;
    let diff = world.json(DIFF).await;
    let functions = world.json("/api/v1/functions?service=checkout&from=now-2m").await;
    assert_eq!(functions["functions"], diff["functions"]);
    assert_eq!(functions["candidate"], diff["candidate"]);
    assert_eq!(functions["unit"], diff["unit"]);
    let profile = world.json(PROFILE).await;
    let functions = world
        .json("/api/v1/functions?service=checkout&version=v2&from=now-2m")
        .await;
    assert_eq!(functions["functions"], profile["functions"]);
    assert_eq!(functions["total"], profile["total"]);
}

#[tokio::test]
async fn a_profile_can_be_narrowed_to_a_route_a_side_and_what_has_no_label() {
    let world = World::new(shop()).await;
    let part = |query: &str| format!("{PROFILE}&{query}");
    let all = world.json(PROFILE).await["total"].as_i64().unwrap();
    let quote = world.json(&part("route=/quote/%7Bid%7D")).await["total"]
        .as_i64()
        .unwrap();
    let health = world.json(&part("route=/health")).await["total"].as_i64().unwrap();
    let none = world.json(&part("route=(none)")).await["total"].as_i64().unwrap();
    assert_eq!(quote + health + none, all);
    assert_eq!(none, 6 * 700_000);
    assert_eq!(
        world.json(&part("side=server")).await["total"].as_i64().unwrap(),
        quote + health
    );
    let one = world.json(&part("instance=checkout-v2-0")).await;
    assert_eq!(one["total"], all);
    assert_eq!(one["query"]["instance"], "checkout-v2-0");
    // Recursion counts once, and unresolved addresses lower the ratio of what is named.
    assert_eq!(
        find(&one["functions"], &[("name", "shop::tax")])["total"],
        6 * 3_000_001
    );
    let ratio = one["resolved_ratio"].as_f64().unwrap();
    assert!((ratio - (1.0 - 6.0 * 900_000.0 / all as f64)).abs() < 1e-9, "{ratio}");
}
