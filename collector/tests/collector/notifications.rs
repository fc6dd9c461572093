//! What Alertmanager and webhooks hear, recorded by a receiver on a real socket.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::support::{
    Server,
    canary::{self, GUILTY, PLANTED, judge_after, play},
    eventually,
};
use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use emberline_collector::{Collector, CollectorConfig, CollectorError};
use serde_json::Value;

/// Records what it is sent; refuses the first `refuse` requests with `status`.
#[derive(Clone)]
pub(crate) struct Recorder {
    heard: Arc<Mutex<Vec<(String, Value)>>>,
    refuse: Arc<AtomicUsize>,
    status: Arc<Mutex<StatusCode>>,
}

async fn record(State(recorder): State<Recorder>, uri: Uri, Json(body): Json<Value>) -> Response {
    let left = recorder
        .refuse
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    if left.is_ok() {
        let status = *recorder.status.lock().unwrap();
        return (status, [("location", "http://127.0.0.1:1/elsewhere")]).into_response();
    }
    recorder.heard.lock().unwrap().push((uri.path().to_owned(), body));
    StatusCode::OK.into_response()
}

impl Recorder {
    pub(crate) async fn start(refuse: usize, status: StatusCode) -> (Recorder, SocketAddr) {
        let recorder = Recorder {
            heard: Arc::default(),
            refuse: Arc::new(AtomicUsize::new(refuse)),
            status: Arc::new(Mutex::new(status)),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(record).with_state(recorder.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (recorder, address)
    }

    pub(crate) async fn hears(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> (String, Value) {
        eventually(what, || async {
            let heard = self.heard.lock().unwrap();
            heard.iter().find(|(_, body)| is_it(body)).cloned()
        })
        .await
    }

    pub(crate) fn count(&self) -> usize {
        self.heard.lock().unwrap().len()
    }

    /// Refuses the next requests.
    pub(crate) fn refuse_next(&self, requests: usize, status: StatusCode) {
        *self.status.lock().unwrap() = status;
        self.refuse.store(requests, Ordering::SeqCst);
    }

    pub(crate) fn refusals_left(&self) -> usize {
        self.refuse.load(Ordering::SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_hear_of_the_alert_and_of_its_end() {
    // Both are down at first: what was not taken is sent again.
    let (alertmanager, am_address) = Recorder::start(1, StatusCode::SERVICE_UNAVAILABLE).await;
    let (webhook, hook_address) = Recorder::start(1, StatusCode::BAD_GATEWAY).await;
    let mut server = Server::start(|config| {
        config.external_url = "https://emberline.example/".to_owned();
        config.alertmanager_urls = vec![format!("http://{am_address}")];
        config.webhook_urls = vec![format!("http://{hook_address}/hook?key=1")];
    })
    .await;
    play(&server, 0, 14, 4.0, i64::MAX).await;
    // Suspected alerts are nobody's business yet.
    judge_after(&server, &server.collector, canary::CANARY_STARTS + 2).await;
    server.spawn_tasks();
    let alerts = judge_after(&server, &server.collector, 13).await;
    assert_eq!(alerts.len(), 1);

    let (path, body) = alertmanager
        .hears("the alert fires at Alertmanager", Value::is_array)
        .await;
    assert_eq!(path, "/api/v2/alerts");
    let message = &body[0];
    assert_eq!(body.as_array().unwrap().len(), 1);
    for (label, value) in [
        ("alertname", "EmberlineLatencyRegression"),
        ("namespace", "demo"),
        ("service", "checkout"),
        ("version", "v2"),
        ("baseline", "v1"),
        ("route", PLANTED),
        ("severity", "warning"),
        ("source", "demo/frontend@v1"),
    ] {
        assert_eq!(message["labels"][label], value, "{label}");
    }
    assert_eq!(message["annotations"]["summary"], alerts[0].sentence.as_str());
    assert_eq!(message["annotations"]["function"], GUILTY);
    assert!(message["annotations"]["p50"].as_str().unwrap().contains(" ms → "));
    let url = format!("https://emberline.example{}", alerts[0].diff_url);
    assert_eq!(message["generatorURL"], url.as_str());
    let (starts, ends) = (
        message["startsAt"].as_str().unwrap(),
        message["endsAt"].as_str().unwrap(),
    );
    assert!(starts < ends && starts.starts_with("2026-09-"), "{starts} {ends}");

    let (path, body) = webhook
        .hears("the alert fires at the webhook", |body| body["event"] == "firing")
        .await;
    assert_eq!(path, "/hook");
    assert_eq!(body["alert"]["id"], alerts[0].id.as_str());
    assert_eq!(body["alert"]["function"]["name"], GUILTY);
    assert_eq!(body["url"], url.as_str());

    play(&server, 14, 34, 4.0, 0).await;
    judge_after(&server, &server.collector, 33).await;
    let (_, body) = webhook
        .hears("the end reaches the webhook", |body| body["event"] == "resolved")
        .await;
    assert_eq!(body["alert"]["state"], "resolved");
    let resolved = server.collector.alerts().snapshot()[0].resolved_ms.unwrap();
    alertmanager
        .hears("the end reaches Alertmanager", |body| {
            // Its end lies in the past: that is how Alertmanager knows.
            body[0]["endsAt"].as_str().is_some_and(|ends| ends < "2026-09-21T15:00")
                && resolved > 0
                && body[0]["endsAt"] != *ends
        })
        .await;
    assert_eq!(
        webhook.count(),
        2,
        "each event once: {:?}",
        webhook.heard.lock().unwrap()
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_not_followed_and_a_refusal_is_final() {
    let (webhook, address) = Recorder::start(usize::MAX, StatusCode::FOUND).await;
    let (other, other_address) = Recorder::start(0, StatusCode::OK).await;
    let mut server = Server::start(|config| {
        config.webhook_urls = vec![format!("http://{address}/"), format!("http://{other_address}/")];
    })
    .await;
    play(&server, 0, 14, 4.0, i64::MAX).await;
    server.spawn_tasks();
    judge_after(&server, &server.collector, 13).await;
    other
        .hears("the other receiver hears of it all the same", |body| {
            body["event"] == "firing"
        })
        .await;
    eventually("the refusal is counted", || async {
        let mut registry = prometheus_client::registry::Registry::default();
        server.collector.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text.lines()
            .any(|line| line.contains("notifications") && line.contains("refused") && line.ends_with(" 1"))
            .then_some(())
    })
    .await;
    assert_eq!(webhook.count(), 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_cannot_work_are_refused_at_the_start() {
    let server = Server::start(|_| {}).await;
    for (url, words) in [
        ("ftp://am:9093", "must begin with http:// or https://"),
        ("am:9093", "alertmanager: `am:9093` cannot be used: "),
        ("http://user:SECRET@am:9093", "password in the address"),
    ] {
        let config = CollectorConfig {
            alertmanager_urls: vec![url.to_owned()],
            ..CollectorConfig::new(&server.dir)
        };
        match Collector::new(config, server.store.clone(), server.clock.clone()) {
            Err(error @ CollectorError::Receiver(_)) => {
                assert!(error.to_string().contains(words), "{error}");
                assert!(!format!("{error} {error:?}").contains("SECRET"), "{error:?}");
            }
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("{url} was accepted"),
        }
    }
    server.stop().await;
}
