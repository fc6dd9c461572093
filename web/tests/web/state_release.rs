//! A release's beginning is stated over the API: once, by programs, and everything follows it.

use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::{
    schema,
    support::{Answer, NOW_S, World, shop},
};

async fn state(world: &World, body: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::post("/api/v1/releases");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    world.send(request.body(Body::from(body.to_owned())).unwrap()).await
}

async fn newest_first(world: &World) -> Vec<String> {
    let answer = world.json("/api/v1/releases?service=checkout&from=now-2m").await;
    let releases = answer["releases"].as_array().unwrap();
    let services = world.json("/api/v1/services?from=now-2m").await;
    let listed = services["services"].as_array().unwrap().iter();
    let listed = listed.filter(|service| service["service"] == "checkout");
    let listed: Vec<&Value> = listed.flat_map(|s| s["releases"].as_array().unwrap()).collect();
    for (one, other) in releases.iter().zip(&listed) {
        assert_eq!(one["version"], other["version"], "every list has one order");
    }
    releases
        .iter()
        .map(|r| r["version"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn what_is_stated_decides_which_release_is_new() {
    let world = World::new(shop()).await;
    assert_eq!(newest_first(&world).await, ["v2", "v1"]);
    let body = json!({"service": "checkout", "version": "v2", "namespace": "shop", "time": NOW_S - 7_200}).to_string();
    let answer = state(&world, &body, &[]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let told = answer.json();
    let expected = json!({
        "namespace": "shop", "service": "checkout", "version": "v2", "first_seen_ms": (NOW_S - 7_200) * 1000, "stated": true,
    });
    assert_eq!(told, expected);
    let document = world.json("/api/openapi.json").await;
    let operation = &document["paths"]["/api/v1/releases"]["post"];
    let described = &operation["responses"]["200"]["content"]["application/json"]["schema"];
    schema::check(&document, described, &told, "statement").unwrap();
    assert!(!operation["requestBody"]["content"]["application/json"]["schema"].is_null());

    assert_eq!(newest_first(&world).await, ["v1", "v2"]);
    let diff = world.json("/api/v1/diff?service=checkout&from=now-2m").await;
    assert_eq!(
        (&diff["baseline"]["version"], &diff["candidate"]["version"]),
        (&json!("v2"), &json!("v1"))
    );
    // Twice is once; a second deployment is no new release.
    for time in [json!(NOW_S - 7_200), json!("now-1m"), Value::Null] {
        let body = json!({"service": "checkout", "version": "v2", "namespace": "shop", "time": time}).to_string();
        assert_eq!(state(&world, &body, &[]).await.json(), expected, "{time}");
    }
    assert_eq!(newest_first(&world).await, ["v1", "v2"]);
    // One that nobody has heard of yet.
    let answer = state(&world, r#"{"service": "checkout", "version": "v3"}"#, &[]).await;
    assert_eq!(answer.json()["first_seen_ms"], NOW_S * 1000);
}

#[tokio::test]
async fn statements_that_say_nothing_are_refused() {
    let world = World::new(shop()).await;
    let long = format!(r#"{{"service": "a", "version": "{}"}}"#, "x".repeat(300));
    let huge = format!(r#"{{"service": "{}"}}"#, "x".repeat(10_000));
    for (body, status, code, words) in [
        ("", 400, "bad_body", "send JSON"),
        ("[]", 400, "bad_body", "send JSON"),
        (r#"{"version": "v2"}"#, 400, "bad_body", "`service`"),
        (
            r#"{"service": "a", "version": "1", "when": 5}"#,
            400,
            "bad_body",
            "`when`",
        ),
        (
            r#"{"service": "", "version": "1"}"#,
            400,
            "bad_parameter",
            "`service` is empty",
        ),
        (
            r#"{"service": "a\u0000", "version": "1"}"#,
            400,
            "bad_parameter",
            "control",
        ),
        (long.as_str(), 400, "bad_parameter", "`version` is longer"),
        (huge.as_str(), 413, "body_too_large", "8192"),
        (
            r#"{"service": "a", "version": "1", "time": "yesterday"}"#,
            400,
            "bad_parameter",
            "`time` is `yesterday`",
        ),
        (
            r#"{"service": "a", "version": "1", "time": 1767225600000}"#,
            400,
            "bad_parameter",
            "milliseconds",
        ),
        (
            r#"{"service": "a", "version": "1", "time": "now+2h"}"#,
            400,
            "bad_parameter",
            "the future",
        ),
        (
            r#"{"service": "a", "version": "1", "time": 1000}"#,
            400,
            "bad_parameter",
            "older",
        ),
    ] {
        let answer = state(&world, body, &[]).await;
        let error = answer.json()["error"].clone();
        assert_eq!(answer.status.as_u16(), status, "{body}: {error}");
        assert_eq!(error["code"], code, "{body}: {error}");
        assert!(error["message"].as_str().unwrap().contains(words), "{body}: {error}");
    }
    let good = r#"{"service": "checkout", "version": "v2", "namespace": "shop", "time": "now-1h"}"#;
    for headers in [
        vec![("sec-fetch-site", "cross-site")],
        vec![("origin", "http://evil.example"), ("host", "here:4040")],
    ] {
        let answer = state(&world, good, &headers).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(newest_first(&world).await, ["v2", "v1"]);
    assert_eq!(
        state(&world, good, &[("sec-fetch-site", "none")]).await.status,
        StatusCode::OK
    );
}
