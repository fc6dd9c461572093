//! Questions that are wrong are refused with the reason and what to do.

use axum::body::Body;
use http::Request;

use crate::support::{World, shop};

async fn refused(world: &World, address: &str, status: u16, code: &str) -> String {
    let answer = world.get(address).await;
    assert_eq!(answer.status.as_u16(), status, "{address}: {}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    let error = &answer.json()["error"];
    assert_eq!(error["code"], code, "{address}: {error}");
    assert_eq!(error["retry"], false);
    error["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn unknown_names_are_refused_with_the_nearest_known() {
    let world = World::new(shop()).await;
    for (address, code, suggested) in [
        (
            "/api/v1/service?service=chekout&from=now-2m",
            "unknown_service",
            "`checkout`",
        ),
        ("/api/v1/releases?service=Cart&from=now-2m", "unknown_service", "`cart`"),
        (
            "/api/v1/diff?service=checkout&from=now-2m&candidate=v3",
            "unknown_version",
            "`v2`",
        ),
        (
            "/api/v1/profile?service=checkout&from=now-2m&version=2",
            "unknown_version",
            "`v2`",
        ),
        (
            "/api/v1/profile?service=checkout&from=now-2m&instance=checkout",
            "unknown_instance",
            "`checkout-v2-0`",
        ),
        (
            "/api/v1/diff?service=checkout&from=now-2m&route=/quote",
            "unknown_route",
            "`/quote/{id}`",
        ),
        (
            "/api/v1/profile?service=checkout&from=now-2m&route=/qoute/1",
            "unknown_route",
            "`/quote/{id}`",
        ),
        (
            "/api/v1/profile?service=checkout&from=now-2m&profile_type=cpu",
            "unknown_profile_type",
            "`process_cpu:cpu:nanoseconds:cpu:nanoseconds`",
        ),
        (
            "/api/v1/service?service=checkout&namespace=shopp&from=now-2m",
            "unknown_service",
            "namespace `shopp`",
        ),
        ("/api/v1/difff", "unknown_address", "`/api/v1/diff`"),
        ("/-/readiness", "unknown_address", "`/-/ready`"),
    ] {
        let message = refused(&world, address, 404, code).await;
        assert!(message.contains(suggested), "{address}: {message}");
    }
}

#[tokio::test]
async fn a_service_that_was_silent_in_the_range_is_told_from_an_unknown_one() {
    let world = World::new(shop()).await;
    let message = refused(
        &world,
        "/api/v1/service?service=checkout&from=now-20m&to=now-10m",
        404,
        "unknown_service",
    )
    .await;
    assert!(
        message.contains("reported nothing in this range") && message.contains("1800000000"),
        "{message}"
    );
}

#[tokio::test]
async fn unknown_parameters_and_values_are_refused_by_name() {
    let world = World::new(shop()).await;
    for (address, code, named) in [
        (
            "/api/v1/diff?service=checkout&basline=v1",
            "unknown_parameter",
            "`baseline`",
        ),
        ("/api/v1/status?verbose=1", "unknown_parameter", "takes none"),
        ("/api/v1/services?service=x", "unknown_parameter", "`service`"),
        ("/api/openapi.json?format=yaml", "unknown_parameter", "`format`"),
        ("/api/v1/profile", "missing_parameter", "`service`"),
        ("/api/v1/services?from=1h", "bad_time", "`from=1h`"),
        ("/api/v1/services?from=1800000000000", "bad_time", "milliseconds"),
        ("/api/v1/services?to=now-2h", "bad_range", "`from`"),
        (
            "/api/v1/diff?service=checkout&baseline_from=now&baseline_to=now-1m",
            "bad_range",
            "`baseline_from`",
        ),
        (
            "/api/v1/diff?service=checkout&per=minute",
            "bad_parameter",
            "request, second, total",
        ),
        (
            "/api/v1/profile?service=checkout&format=pdf",
            "bad_parameter",
            "json, pprof, folded, speedscope, firefox, svg, html",
        ),
        (
            "/api/v1/profile?service=checkout&limit=many",
            "bad_parameter",
            "`limit=many`",
        ),
        ("/api/v1/alerts?state=open", "bad_parameter", "firing"),
        (
            "/api/v1/functions?service=checkout&version=v1&per=second&from=now-2m",
            "bad_parameter",
            "`per`",
        ),
        (
            "/api/v1/functions?service=checkout&instance=x&from=now-2m",
            "bad_parameter",
            "`version`",
        ),
    ] {
        let message = refused(&world, address, 400, code).await;
        assert!(message.contains(named), "{address}: {message}");
    }
}

#[tokio::test]
async fn a_comparison_needs_two_releases() {
    let world = World::new(shop()).await;
    let message = refused(&world, "/api/v1/diff?service=frontend&from=now-2m", 404, "no_baseline").await;
    assert!(message.contains("needs two releases"), "{message}");
    // The older of two has nothing before it, and can be the baseline by name alone.
    refused(
        &world,
        "/api/v1/diff?service=checkout&candidate=v1&from=now-2m",
        404,
        "no_baseline",
    )
    .await;
    let diff = world
        .json("/api/v1/diff?service=checkout&baseline=v2&from=now-2m")
        .await;
    assert_eq!(diff["candidate"]["version"], "v1");
}

#[tokio::test]
async fn a_name_in_two_namespaces_has_to_be_told_apart() {
    use emberline_model::Component;

    let one = crate::support::window("cart", "v1", Component::Application, 0).done();
    let mut other = one.clone();
    other.workload.namespace = String::new();
    let world = World::new(vec![one, other]).await;
    let message = refused(
        &world,
        "/api/v1/service?service=cart&from=now-2m",
        400,
        "ambiguous_service",
    )
    .await;
    assert!(message.contains("(none), shop"), "{message}");
    assert_eq!(
        world
            .json("/api/v1/service?service=cart&from=now-2m&namespace=(none)")
            .await["namespace"],
        ""
    );
    assert_eq!(
        world
            .json("/api/v1/service?service=cart&from=now-2m&namespace=shop")
            .await["namespace"],
        "shop"
    );
}

#[tokio::test]
async fn nothing_but_reading_is_allowed() {
    let world = World::new(Vec::new()).await;
    for address in ["/api/v1/services", "/metrics", "/compare"] {
        for method in ["POST", "PUT", "DELETE"] {
            let request = Request::builder()
                .method(method)
                .uri(address)
                .body(Body::empty())
                .unwrap();
            let answer = world.send(request).await;
            assert_eq!(answer.status.as_u16(), 405, "{method} {address}");
            assert_eq!(answer.json()["error"]["code"], "method_not_allowed");
        }
    }
}

#[tokio::test]
async fn a_store_that_is_closed_says_so() {
    let world = World::new(shop()).await;
    world.store.close();
    let answer = world.get("/api/v1/services").await;
    assert_eq!(answer.status.as_u16(), 503, "{}", answer.text());
    assert_eq!(answer.json()["error"]["retry"], true);
    assert_eq!(answer.header("retry-after"), "2");
    let ready = world.get("/-/ready").await;
    assert_eq!(
        (ready.status.as_u16(), ready.json()["ready"].as_bool()),
        (503, Some(false))
    );
}
