//! Several endpoints: who gets a request, who is passed over, and what is tried again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use emberline_proxy::Proxy;
use http_body_util::{BodyExt, Full};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::support::*;

/// A proxy in front of these, with more keys of its outbound listener.
fn outbound(addresses: &[SocketAddr], more: &str) -> (Proxy, SocketAddr) {
    let destinations: Vec<String> = addresses.iter().map(|at| format!("{{address: {at}}}")).collect();
    let proxy = proxy(&yaml(
        "frontend",
        &format!(
            "outbound: [{{listen: 127.0.0.1:0, service: shop, destinations: [{}]{more}}}]",
            destinations.join(", ")
        ),
    ));
    let listen = proxy.addresses().outbound[0];
    (proxy, listen)
}

/// Bodies of so many responses, by how often they came.
async fn bodies(listen: SocketAddr, n: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..n {
        *counts.entry(get(listen, "/").await.1).or_default() += 1;
    }
    counts
}

/// Says its name with 200 while it is well, and with 503 else.
async fn moody(name: &'static str, is_well: &Arc<AtomicBool>) -> App {
    let is_well = Arc::clone(is_well);
    App::start(move |request| {
        let is_well = Arc::clone(&is_well);
        async move {
            let _ = request.into_body().collect().await;
            let mut response = http::Response::new(Full::from(name));
            if !is_well.load(Ordering::SeqCst) {
                *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            }
            response
        }
    })
    .await
}

#[test]
fn a_value_of_a_header_always_has_the_same_endpoint() {
    block_on(async {
        let apps = [App::named("a").await, App::named("b").await, App::named("c").await];
        let addresses = apps.each_ref().map(|app| app.address);
        for balancer in ["maglev", "ring_hash"] {
            let more = format!(", balancer: {balancer}, hash_on: {{header: x-user}}");
            let (proxy, listen) = outbound(&addresses, &more);
            let (again, listen_again) = outbound(&addresses, &more);
            let mut seen = BTreeSet::new();
            for user in 0..30 {
                let header = format!("X-User: {user}\r\n");
                let first = get_with(listen, "/", &header).await.1;
                assert_eq!(get_with(listen, "/", &header).await.1, first);
                assert_eq!(get_with(listen_again, "/", &header).await.1, first, "proxies agree");
                seen.insert(first);
            }
            assert_eq!(seen.len(), 3, "{balancer}");
            stop(proxy).await;
            stop(again).await;
        }
    });
}

#[test]
fn an_endpoint_that_is_busy_gets_no_more() {
    block_on(async {
        let stuck = App::start(|_| std::future::pending()).await;
        let free = App::named("free").await;
        let (proxy, listen) = outbound(&[stuck.address, free.address], ", balancer: least_request");
        let mut waiting = Vec::new();
        while stuck.requests() == 0 {
            let asked = tokio::spawn(get(listen, "/"));
            let both = async {
                while !asked.is_finished() && stuck.requests() == 0 {
                    tokio::task::yield_now().await;
                }
            };
            both.await;
            waiting.push(asked);
        }
        assert_eq!(bodies(listen, 20).await, BTreeMap::from([("free".to_owned(), 20)]));
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
        stop(proxy).await;
    });
}

#[test]
fn a_destination_that_accepts_no_connection_costs_no_request_unless_it_is_to_be_seen() {
    block_on(async {
        let app = App::named("app").await;
        let addresses = [nobody().await, app.address];
        let (proxy, listen) = outbound(&addresses, "");
        assert_eq!(bodies(listen, 20).await, BTreeMap::from([("app".to_owned(), 20)]));
        let failures = metric(&proxy.metrics(), "emberline_proxy_upstream_connection_failures_total");
        assert!((1..=3).contains(&failures), "{failures}");
        stop(proxy).await;
        let (proxy, listen) = outbound(&addresses, ", retries: {on: [unprocessed]}");
        assert_eq!(bodies(listen, 20).await["app"], 10);
        stop(proxy).await;
    });
}

#[test]
fn an_endpoint_that_fails_is_ejected_and_comes_back() {
    block_on(async {
        let is_well = Arc::new(AtomicBool::new(false));
        let (ill, well) = (moody("ill", &is_well).await, App::named("well").await);
        let outlier = ", outlier: {consecutive_errors: 3, base_ejection_ms: 200}";
        let (proxy, listen) = outbound(&[ill.address, well.address], outlier);
        assert_eq!(bodies(listen, 6).await["ill"], 3);
        let metrics = proxy.metrics();
        assert_eq!(metric(&metrics, "emberline_proxy_outlier_ejections_total"), 1);
        assert_eq!(metric(&metrics, "emberline_proxy_endpoints_ejected"), 1);
        is_well.store(true, Ordering::SeqCst);
        while metric(&proxy.metrics(), "emberline_proxy_endpoints_ejected") == 1 {
            get(listen, "/").await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(bodies(listen, 10).await["ill"], 5);
        stop(proxy).await;
    });
}

#[test]
fn an_endpoint_that_does_not_pass_its_checks_gets_no_requests_until_it_does() {
    block_on(async {
        for check in ["check: http, path: /healthz", "check: http, expect: 200"] {
            let is_well = Arc::new(AtomicBool::new(false));
            let (ill, well) = (moody("ill", &is_well).await, App::named("well").await);
            let health = format!(", health: {{{check}, interval_ms: 20, unhealthy_after: 2}}");
            let (proxy, listen) = outbound(&[ill.address, well.address], &health);
            let unhealthy = || metric(&proxy.metrics(), "emberline_proxy_endpoints_unhealthy");
            eventually("it is unhealthy", || unhealthy() == 1).await;
            assert_eq!(bodies(listen, 10).await, BTreeMap::from([("well".to_owned(), 10)]));
            is_well.store(true, Ordering::SeqCst);
            eventually("it is healthy", || unhealthy() == 0).await;
            assert_eq!(bodies(listen, 10).await["ill"], 5);
            stop(proxy).await;
        }
        // Where nobody listens, and where nobody speaks gRPC.
        let app = App::named("app").await;
        for (check, healthy) in [("tcp", 1), ("grpc", 0), ("http", 1), ("http2", 0)] {
            let health = format!(", health: {{check: {check}, interval_ms: 20}}");
            let (proxy, listen) = outbound(&[nobody().await, app.address], &health);
            let unhealthy = || metric(&proxy.metrics(), "emberline_proxy_endpoints_unhealthy");
            eventually(check, || unhealthy() == 2 - healthy).await;
            assert_eq!(bodies(listen, 4).await["app"], 4, "{check}");
            stop(proxy).await;
        }
    });
}

/// Sends a request with a body.
async fn send(listen: SocketAddr, method: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(listen).await.unwrap();
    let request = format!("{method} / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (head, body) = read_answer(&mut stream).await;
    (status(&head), body)
}

/// Says what it was sent.
async fn echo() -> App {
    App::start(|request| async move {
        let body: Bytes = request.into_body().collect().await.unwrap().to_bytes();
        http::Response::new(Full::from(body))
    })
    .await
}

#[test]
fn what_is_configured_is_tried_again_at_another_endpoint_with_its_body_and_a_post_is_not() {
    block_on(async {
        let closing = raw_app(|mut stream: TcpStream| async move {
            read_head(&mut stream).await;
        })
        .await;
        let failing = moody("ill", &Arc::default()).await.address;
        let silent = raw_app(|mut stream: TcpStream| async move {
            read_head(&mut stream).await;
            std::future::pending::<()>().await;
        })
        .await;
        for (bad, retries, failure) in [
            (closing, "on: [reset]", 502),
            (failing, "on: [503]", 503),
            (silent, "on: [timeout], per_try_ms: 200", 504),
        ] {
            let app = echo().await;
            let (proxy, listen) = outbound(&[bad, app.address], &format!(", retries: {{{retries}}}"));
            for _ in 0..4 {
                assert_eq!(send(listen, "PUT").await, (200, "body".to_owned()), "{retries}");
            }
            let retried = metric(&proxy.metrics(), "emberline_proxy_retries_total");
            assert_eq!(retried, 2, "{retries}");
            let mut statuses = [send(listen, "POST").await.0, send(listen, "POST").await.0];
            statuses.sort_unstable();
            assert_eq!(statuses, [200, failure], "{retries}");
            stop(proxy).await;
        }
    });
}

#[test]
fn a_sole_endpoint_is_tried_again_within_the_budget_and_its_last_response_passed_on() {
    block_on(async {
        let app = moody("ill", &Arc::default()).await;
        let (proxy, listen) = outbound(
            &[app.address],
            ", retries: {on: [503], attempts: 2, budget_min_per_second: 1}",
        );
        for n in 1..=5 {
            assert_eq!(get(listen, "/").await.1, "ill");
            assert_eq!(app.requests(), 3 * n);
        }
        // Ten, and a fifth of the requests.
        get(listen, "/").await;
        let spent = metric(&proxy.metrics(), "emberline_proxy_retry_budget_spent_total");
        assert_eq!((spent, app.requests()), (1, 17));
        stop(proxy).await;
    });
}
