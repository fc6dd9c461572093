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

fn asked_from(last: u8, address: &str) -> Request<Body> {
    let mut request = Request::get(address).body(Body::empty()).unwrap();
    let peer = std::net::SocketAddr::from(([10, 0, 0, last], 1000));
    request.extensions_mut().insert(axum::extract::ConnectInfo(peer));
    request
}

/// One address asks for everything at once; another one's light question is answered first, and its heavy one has its turn.
#[tokio::test]
async fn one_address_keeps_nobody_else_from_asking() {
    let mut world = World::new(shop()).await;
    world.state.max_questions = 16;
    world.router = emberline_web::router(world.state.clone());
    let diff = "/api/v1/diff?service=checkout&from=now-2m";
    // Begun and not polled any further: they hold their places.
    let mut crowd: Vec<_> = (0..8)
        .map(|_| Box::pin(world.router.clone().oneshot(asked_from(1, diff))))
        .collect();
    for asked in &mut crowd {
        assert!(tokio::time::timeout(Duration::ZERO, asked.as_mut()).await.is_err());
    }
    let refused = world.send(asked_from(1, "/api/v1/status")).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.header("retry-after"), "2");
    assert_eq!(refused.json()["error"]["code"], "too_many_questions");
    for light in ["/api/v1/status", "/api/v1/services?from=now-2m", "/api/v1/alerts"] {
        assert_eq!(world.send(asked_from(2, light)).await.status, StatusCode::OK, "{light}");
    }
    // A heavy one waits for its turn, which comes before those of the crowd that wait, too.
    let mut heavy = Box::pin(world.router.clone().oneshot(asked_from(2, diff)));
    assert!(tokio::time::timeout(Duration::ZERO, heavy.as_mut()).await.is_err());
    crowd.truncate(2);
    let first = crowd.remove(0).await.unwrap();
    assert_eq!(first.status(), StatusCode::OK);
    assert_eq!(heavy.await.unwrap().status(), StatusCode::OK);
    drop(crowd);
    let metrics = world.get("/metrics").await;
    for line in [
        "emberline_web_questions_running 0\n",
        "emberline_web_questions_refused_total{reason=\"asker\"} 1\n",
    ] {
        assert!(metrics.text().contains(line), "{line}: {}", metrics.text());
    }
}

#[tokio::test]
async fn large_answers_that_nobody_takes_are_bounded_together() {
    let mut world = World::new(shop()).await;
    let page = "/api/v1/diff?service=checkout&from=now-2m&format=html";
    let bytes = world.get(page).await.body.len() as u64;
    world.state.max_answer_bytes = bytes + (16 << 10);
    world.router = emberline_web::router(world.state.clone());
    let first = world.router.clone().oneshot(asked_from(1, page)).await.unwrap();
    assert_eq!(first.status(), StatusCode::OK);
    let refused = world.send(asked_from(2, page)).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.json()["error"]["code"], "too_many_answers");
    drop(first);
    assert_eq!(world.send(asked_from(2, page)).await.status, StatusCode::OK);
    // One that would never fit is not waited for.
    world.state.max_answer_bytes = bytes - 1;
    world.router = emberline_web::router(world.state.clone());
    let refused = world.send(asked_from(2, page)).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused.json()["error"]["code"], "answer_too_large");
    assert!(refused.text().contains("max_answer_bytes"), "{}", refused.text());
}

/// Whatever kind of heavy question it is, it is refused before its answer is put together, and counted.
#[tokio::test]
async fn answers_that_need_more_memory_than_one_may_hold_are_refused_by_reason() {
    let mut world = World::new(shop()).await;
    let questions = [
        "/api/v1/merge?from=now-2m",
        "/api/v1/profile?service=checkout&from=now-2m",
        "/api/v1/diff?service=checkout&from=now-2m",
        "/api/v1/series?from=now-2m&group_by=service,route",
        "/api/v1/topology?from=now-2m",
        "/pyroscope/render?query=process_cpu:cpu:nanoseconds:cpu:nanoseconds{}&from=now-2m&until=now",
    ];
    for question in questions {
        let answer = world.get(question).await;
        assert_eq!(answer.status, StatusCode::OK, "{question}: {}", answer.text());
    }
    world.state.answer_memory_bytes = 80;
    world.router = emberline_web::router(world.state.clone());
    for question in questions {
        let refused = world.get(question).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{question}");
        assert_eq!(refused.json()["error"]["code"], "answer_too_large", "{question}");
        assert_eq!(refused.json()["error"]["retry"], false);
    }
    for light in ["/api/v1/status", "/api/v1/services?from=now-2m"] {
        assert_eq!(world.get(light).await.status, StatusCode::OK, "{light}");
    }
    let counted = format!(
        "emberline_web_questions_refused_total{{reason=\"size\"}} {}\n",
        questions.len()
    );
    let metrics = world.get("/metrics").await;
    assert!(metrics.text().contains(&counted), "{}", metrics.text());
}
