//! A crowd is refused with a word, and what one asker does not wait for is not answered.

use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use tower::ServiceExt;

use crate::support::{World, shop};

#[tokio::test]
async fn more_questions_than_allowed_are_refused_and_can_be_asked_again() {
    let mut world = World::new(shop()).await;
    world.state.max_questions = 0;
    world.router = emberline_web::router(world.state.clone());
    for address in ["/api/v1/services", "/pyroscope/render", "/api/v1/status"] {
        let answer = world.get(address).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{address}");
        assert_eq!(answer.header("retry-after"), "2");
        assert_eq!(answer.json()["error"]["code"], "too_many_questions");
    }
    for address in ["/-/healthy", "/-/ready", "/metrics", "/api/openapi.json"] {
        assert_eq!(world.get(address).await.status, StatusCode::OK, "{address}");
    }
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_dropped() {
    let mut world = World::new(shop()).await;
    world.state.max_request_seconds = 0;
    world.router = emberline_web::router(world.state.clone());
    let answer = world.get("/api/v1/diff?service=checkout&from=now-2m").await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert!(answer.text().contains("max_request_seconds"), "{}", answer.text());
}

/// Askers that leave give their places back: with one place, the next one is answered.
#[tokio::test]
async fn who_leaves_makes_room_for_the_next() {
    let mut world = World::new(shop()).await;
    world.state.max_questions = 1;
    world.router = emberline_web::router(world.state.clone());
    for _ in 0..20 {
        let request = Request::get("/api/v1/diff?service=checkout&from=now-2m")
            .body(Body::empty())
            .unwrap();
        // Begun, and dropped where it first waits for the store.
        let asked = tokio::time::timeout(Duration::ZERO, world.router.clone().oneshot(request)).await;
        assert!(asked.is_err(), "an answer needs the store, which is on other threads");
    }
    let metrics = world.get("/metrics").await;
    assert!(
        metrics.text().contains("emberline_web_questions_running 0\n"),
        "{}",
        metrics.text()
    );
    assert!(
        metrics.text().contains("emberline_web_questions_abandoned_total 20\n"),
        "{}",
        metrics.text()
    );
    assert_eq!(world.get("/api/v1/services?from=now-2m").await.status, StatusCode::OK);
}
