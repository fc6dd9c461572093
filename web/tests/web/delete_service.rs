//! A service is deleted over the API: on purpose only, and not by pages of other sites.

use axum::body::Body;
use emberline_model::Component;
use http::{Request, StatusCode};
use serde_json::Value;

use crate::{
    schema,
    support::{Answer, World, shop, window},
};

async fn delete(world: &World, address: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::delete(address);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    world.send(request.body(Body::empty()).unwrap()).await
}

fn names(services: &Value) -> Vec<&str> {
    let services = services["services"].as_array().unwrap();
    services.iter().map(|s| s["service"].as_str().unwrap()).collect()
}

const CONFIRMED: &str = "/api/v1/services/checkout?confirm=checkout";

#[tokio::test]
async fn a_service_is_deleted_and_the_others_stay() {
    let world = World::new(shop()).await;
    let before = world.json("/api/v1/services?from=now-2m").await;
    assert!(names(&before).contains(&"checkout"));
    let answer = delete(&world, CONFIRMED, &[]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let told = answer.json();
    assert_eq!(
        (&told["service"], &told["namespace"], &told["finished"]),
        (&"checkout".into(), &"shop".into(), &true.into())
    );
    assert!(told["rows"].as_u64().unwrap() > 0, "{told}");
    let document = world.json("/api/openapi.json").await;
    let operation = &document["paths"]["/api/v1/services/{service}"]["delete"];
    let described = &operation["responses"]["200"]["content"]["application/json"]["schema"];
    schema::check(&document, described, &told, "deletion").unwrap();
    let parameters: Vec<&str> = operation["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|parameter| parameter["name"].as_str().unwrap())
        .collect();
    assert_eq!(parameters, ["service", "namespace", "confirm"]);

    let after = world.json("/api/v1/services?from=now-2m").await;
    let left: Vec<Value> = before["services"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|service| service["service"] != "checkout")
        .cloned()
        .collect();
    assert!(!left.is_empty());
    assert_eq!(after["services"], Value::Array(left));
    let again = delete(&world, CONFIRMED, &[]).await;
    assert_eq!(again.status, StatusCode::NOT_FOUND);
    assert_eq!(again.json()["error"]["code"], "unknown_service");
    let metrics = world.get("/metrics").await;
    assert!(metrics.text().contains("emberline_store_services_deleted_total 1\n"));
}

#[tokio::test]
async fn nothing_is_deleted_by_accident_or_by_other_sites() {
    let world = World::new(shop()).await;
    let before = world.json("/api/v1/services?from=now-2m").await;
    for (address, headers, status, code) in [
        ("/api/v1/services/checkout", vec![], 400, "missing_parameter"),
        (
            "/api/v1/services/checkout?confirm=Checkout",
            vec![],
            400,
            "not_confirmed",
        ),
        ("/api/v1/services/checkout?confirm=cart", vec![], 400, "not_confirmed"),
        (
            "/api/v1/services/checkout?confirm=checkout&from=now-1h",
            vec![],
            400,
            "unknown_parameter",
        ),
        (
            "/api/v1/services/checkout?confirm=checkout&namespace=other",
            vec![],
            404,
            "unknown_service",
        ),
        (
            "/api/v1/services/chekout?confirm=chekout",
            vec![],
            404,
            "unknown_service",
        ),
        (CONFIRMED, vec![("sec-fetch-site", "cross-site")], 403, "cross_site"),
        (CONFIRMED, vec![("sec-fetch-site", "same-site")], 403, "cross_site"),
        (
            CONFIRMED,
            vec![("origin", "http://evil.example"), ("host", "here:4040")],
            403,
            "cross_site",
        ),
    ] {
        let answer = delete(&world, address, &headers).await;
        let error = answer.json()["error"].clone();
        assert_eq!(answer.status.as_u16(), status, "{address}: {error}");
        assert_eq!(error["code"], code, "{address}: {error}");
    }
    // A form or an image of another page can only GET and POST.
    for method in ["GET", "POST", "PUT"] {
        let request = Request::builder().method(method).uri(CONFIRMED);
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status.as_u16(), 405, "{method}");
    }
    assert_eq!(world.json("/api/v1/services?from=now-2m").await, before);
    let ours = [("origin", "http://here:4040"), ("host", "here:4040")];
    assert_eq!(delete(&world, CONFIRMED, &ours).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_name_of_several_namespaces_needs_the_namespace() {
    let mut other = window("checkout", "v1", Component::Application, 0).done();
    other.workload.namespace = String::new();
    let mut windows = shop();
    windows.push(other);
    let world = World::new(windows).await;
    let refused = delete(&world, CONFIRMED, &[]).await;
    assert_eq!(refused.json()["error"]["code"], "ambiguous_service");
    let answer = delete(&world, &format!("{CONFIRMED}&namespace=(none)"), &[]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.json()["rows"], 1);
    let left = world.json("/api/v1/services?from=now-2m").await;
    assert!(names(&left).contains(&"checkout"), "that of the other namespace stays");
}

/// Whoever waits too little is told that it goes on.
#[tokio::test]
async fn a_deletion_that_takes_long_is_told_as_under_way() {
    let mut world = World::new(shop()).await;
    world.state.max_request_seconds = 1;
    world.router = emberline_web::router(world.state.clone());
    let mut finished = false;
    for _ in 0..100 {
        let answer = delete(&world, CONFIRMED, &[]).await;
        match answer.status {
            StatusCode::OK => {
                assert_eq!(answer.json()["finished"], true);
                finished = true;
                break;
            }
            StatusCode::ACCEPTED => assert_eq!(answer.json()["finished"], false),
            // It ended between two calls.
            StatusCode::NOT_FOUND => {
                finished = true;
                break;
            }
            other => panic!("{other}: {}", answer.text()),
        }
    }
    assert!(finished);
}

#[tokio::test]
async fn a_closed_store_says_that_it_can_be_asked_again() {
    let world = World::new(shop()).await;
    world.store.close();
    let answer = delete(&world, CONFIRMED, &[]).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["error"]["retry"], true);
}

#[tokio::test]
async fn nothing_is_deleted_unless_the_server_was_started_to() {
    let mut world = World::new(shop()).await;
    world.state.allow_delete = false;
    world.router = emberline_web::router(world.state.clone());
    let before = world.json("/api/v1/services?from=now-2m").await;
    let refused = delete(&world, CONFIRMED, &[]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(refused.json()["error"]["code"], "deleting_is_off");
    assert!(refused.text().contains("--allow-delete"), "{}", refused.text());
    assert_eq!(world.json("/api/v1/services?from=now-2m").await, before);
}
