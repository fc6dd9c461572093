//! The library inside a service: axum in front, labels, calls, the collector behind.

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, body::Body, extract::Path, http::HeaderMap, routing};
use emberline_model::{Component, LabelSet, Side, Workload, otlp};
use emberline_proxy::{Mesh, ProfilerOptions, config::Limits, telemetry::Label};
use opentelemetry_proto::tonic::collector::{
    metrics::v1::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    profiles::v1development::{
        ExportProfilesServiceRequest, ExportProfilesServiceResponse,
        profiles_service_server::{ProfilesService, ProfilesServiceServer},
    },
};
use parking_lot::Mutex;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::support::*;

fn mesh(service: &str, routes: &[&str]) -> Mesh {
    mesh_to(service, routes, None, false)
}

fn mesh_to(service: &str, routes: &[&str], collector: Option<SocketAddr>, profiler: bool) -> Mesh {
    let workload = Workload {
        namespace: "shop".into(),
        service: service.into(),
        version: "v1".into(),
        instance: format!("{service}-1"),
    };
    let mut builder = Mesh::builder(workload)
        // A shutdown that waited for a connection that says nothing would not be drained in time.
        .limits(Limits {
            header_ms: 600_000,
            keep_alive_ms: 600_000,
            ..Limits::default()
        })
        .drain(PATIENCE)
        .routes(routes.iter().copied())
        .profiler(ProfilerOptions {
            enabled: profiler,
            ..Default::default()
        });
    if let Some(collector) = collector {
        builder = builder.collector(format!("http://{collector}"));
    }
    builder.start().unwrap()
}

/// Serves a router and says where.
async fn serve(mesh: &Mesh, router: Router) -> SocketAddr {
    let (listener, address) = listen().await;
    let mesh = mesh.clone();
    tokio::spawn(async move { mesh.serve(listener, router).await.unwrap() });
    address
}

/// What the profiler would write down for a sample taken now.
fn current(mesh: &Mesh) -> LabelSet {
    mesh.telemetry().label_set(emberline_profiler::current_label())
}

#[test]
fn requests_are_counted_by_route_and_labelled_while_they_are_served() {
    block_on(async {
        let mesh = mesh("checkout", &["/checkout", "/quote/{id}"]);
        let labels = Arc::new(Mutex::new(Vec::new()));
        let (kept, seen_by) = (labels.clone(), mesh.clone());
        let router = Router::new().fallback(move |headers: HeaderMap| {
            let (kept, mesh) = (kept.clone(), seen_by.clone());
            async move {
                assert!(!headers.contains_key("x-emberline-peer"));
                let before = current(&mesh);
                tokio::task::yield_now().await;
                let spawned = mesh.spawn_labeled({
                    let mesh = mesh.clone();
                    async move { current(&mesh) }
                });
                assert_eq!(
                    (current(&mesh), spawned.await.unwrap()),
                    (before.clone(), before.clone())
                );
                kept.lock().push(before);
                "hello"
            }
        });
        let address = serve(&mesh, router).await;
        let peer = "x-emberline-peer: v1;shop;frontend;v7;f-1\r\n";
        // On one connection, so that each request has to take the label over from the one before.
        let mut stream = TcpStream::connect(address).await.unwrap();
        for (path, headers) in [
            ("/checkout", ""),
            ("/quote/1?x=y", peer),
            ("/quote/2", ""),
            ("/else", ""),
        ] {
            stream
                .write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{headers}\r\n").as_bytes())
                .await
                .unwrap();
            let (head, body) = read_answer(&mut stream).await;
            assert_eq!((status(&head), body.as_str()), (200, "hello"));
            let introduced = (!headers.is_empty()).then_some("v1;shop;checkout;v1;checkout-1");
            assert_eq!(header(&head, "x-emberline-peer"), introduced);
        }
        let seen: Vec<(String, Option<String>)> = labels
            .lock()
            .iter()
            .map(|l| (l.route.clone(), l.peer.as_ref().map(ToString::to_string)))
            .collect();
        let row = |route: &str, peer: Option<&str>| (route.to_owned(), peer.map(str::to_owned));
        assert_eq!(
            seen,
            [
                row("/checkout", None),
                row("/quote/{id}", Some("shop/frontend@v7")),
                row("/quote/{id}", None),
                row("other", None)
            ]
        );
        assert!(labels.lock().iter().all(|l| l.side == Some(Side::Server)));
        assert_eq!(emberline_profiler::current_label(), Label::NONE);
        let series = recorded(mesh.telemetry(), 4).await;
        assert_eq!(
            series.iter().filter(|s| s.route == "/quote/{id}").count(),
            2,
            "{series:#?}"
        );
        assert!(mesh.shutdown().await.drained);
    });
}

#[test]
fn streams_of_http_2_carry_their_own_labels() {
    block_on(async {
        let mesh = mesh("checkout", &["/a", "/b"]);
        let seen_by = mesh.clone();
        let router = Router::new().fallback(move |uri: http::Uri| {
            let mesh = seen_by.clone();
            async move {
                for _ in 0..50 {
                    assert_eq!(current(&mesh).route, uri.path());
                    tokio::task::yield_now().await;
                }
                current(&mesh).route
            }
        });
        let address = serve(&mesh, router).await;
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = hyper::client::conn::http2::handshake(
            hyper_util::rt::TokioExecutor::new(),
            hyper_util::rt::TokioIo::new(stream),
        )
        .await
        .unwrap();
        tokio::spawn(connection);
        let calls = (0..40).map(|n| {
            let mut sender = sender.clone();
            async move {
                let path = if n % 2 == 0 { "/a" } else { "/b" };
                let request = http::Request::get(format!("http://test{path}"))
                    .body(Body::empty())
                    .unwrap();
                let response = sender.send_request(request).await.unwrap();
                assert_eq!(response.status(), 200, "a stream had another's label");
            }
        });
        futures_util::future::join_all(calls).await;
        recorded(mesh.telemetry(), 40).await;
        mesh.shutdown().await;
    });
}

#[test]
fn a_panicking_service_is_a_500_that_is_counted() {
    block_on(async {
        let mesh = mesh("checkout", &["/boom", "/fine"]);
        let router = Router::new()
            .route("/boom", routing::get(|| async { panic!("on purpose") as () }))
            .route("/fine", routing::get(|| async { "fine" }));
        let address = serve(&mesh, router).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        for (path, expected) in [("/boom", 500), ("/fine", 200), ("/boom", 500), ("/fine", 200)] {
            stream
                .write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
                .await
                .unwrap();
            let (head, _) = read_answer(&mut stream).await;
            assert_eq!(status(&head), expected);
        }
        let series = recorded(mesh.telemetry(), 4).await;
        let boom = series.iter().find(|s| s.route == "/boom").unwrap();
        assert_eq!((boom.status, boom.error, boom.duration.count()), (500, true, 2));
        let metrics = mesh.metrics();
        assert_eq!(
            (
                flag(&metrics, "PANIC"),
                metric(&metrics, "emberline_proxy_panics_total")
            ),
            (2, 2)
        );
        mesh.shutdown().await;
    });
}

#[test]
fn framing_is_judged_in_front_of_a_service_too() {
    block_on(async {
        let mesh = mesh("checkout", &[]);
        let address = serve(&mesh, Router::new().fallback(|| async { "served" })).await;
        let bad = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        let answer = send_raw(address, bad.as_bytes()).await;
        assert_eq!((status(&answer), answer.contains("served")), (400, false));
        mesh.shutdown().await;
    });
}

#[test]
fn calls_are_counted_on_both_sides_and_continue_the_trace() {
    block_on(async {
        let inventory = mesh("inventory", &["/stock/{sku}"]);
        let router = Router::new().route(
            "/stock/{sku}",
            routing::any(|Path(sku): Path<String>, headers: HeaderMap, body: String| async move {
                format!("{sku} {body} {}", headers["traceparent"].to_str().unwrap())
            }),
        );
        let stock = serve(&inventory, router).await;
        let checkout = mesh("checkout", &["/checkout"]);
        let client = checkout.client("inventory", ["/stock/{sku}"], [stock]);
        let calling = checkout.clone();
        let router = Router::new().route(
            "/checkout",
            routing::get(move || async move {
                let label = emberline_profiler::current_label();
                let response = client.get("/stock/42?x=y").await.unwrap();
                assert!(!response.headers().contains_key("x-emberline-peer"));
                let first = response.into_body().bytes().await.unwrap();
                assert_eq!(
                    emberline_profiler::current_label(),
                    label,
                    "a call changed its caller's label"
                );
                let client = client.clone();
                let second = calling.spawn_labeled(async move {
                    client
                        .post("/stock/43", "reserve")
                        .await
                        .unwrap()
                        .into_body()
                        .bytes()
                        .await
                        .unwrap()
                });
                format!(
                    "{}|{}",
                    String::from_utf8_lossy(&first),
                    String::from_utf8_lossy(&second.await.unwrap())
                )
            }),
        );
        let address = serve(&checkout, router).await;
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for _ in 0..10 {
            let (_, body) = get_with(address, "/checkout", &format!("traceparent: {trace}\r\n")).await;
            assert_eq!(body, format!("42  {trace}|43 reserve {trace}"));
        }
        let server = recorded(inventory.telemetry(), 20).await;
        let all = recorded(checkout.telemetry(), 30).await;
        let client: Vec<_> = all.iter().filter(|s| s.side == Side::Client).collect();
        assert_eq!(client.iter().map(|s| s.duration.count()).sum::<u64>(), 20);
        assert!(
            client
                .iter()
                .all(|s| s.route == "/stock/{sku}" && s.peer.as_ref().unwrap().service == "inventory")
        );
        assert!(
            server
                .iter()
                .all(|s| s.route == "/stock/{sku}" && s.peer.as_ref().unwrap().service == "checkout")
        );
        checkout.shutdown().await;
        inventory.shutdown().await;
    });
}

#[test]
fn a_call_that_fails_says_why_and_is_recorded() {
    block_on(async {
        let mesh = mesh("checkout", &[]);
        let client = mesh.client("inventory", ["/stock/{sku}"], [nobody().await]);
        let error = client.get("/stock/1").await.unwrap_err();
        assert_eq!(
            (error.reason(), error.retry_can_help()),
            ("upstream_connection_failure", true)
        );
        assert!(
            error.to_string().starts_with("inventory: cannot connect to 127.0.0.1:"),
            "{error}"
        );
        assert_eq!(client.get("no path").await.unwrap_err().reason(), "path");
        let series = recorded(mesh.telemetry(), 1).await;
        assert_eq!(
            (series[0].status, series[0].error, series[0].side),
            (0, true, Side::Client)
        );
        assert_eq!((flag(&mesh.metrics(), "UF"), flag(&mesh.metrics(), "DC")), (1, 0));
        mesh.shutdown().await;
    });
}

/// A collector that keeps what it gets.
#[derive(Clone, Default)]
struct Collector {
    requests: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
    profiles: Arc<Mutex<Vec<ExportProfilesServiceRequest>>>,
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        self.requests.lock().push(request.into_inner());
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl ProfilesService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportProfilesServiceRequest>,
    ) -> Result<tonic::Response<ExportProfilesServiceResponse>, tonic::Status> {
        self.profiles.lock().push(request.into_inner());
        Ok(tonic::Response::new(ExportProfilesServiceResponse::default()))
    }
}

async fn collector() -> (Collector, SocketAddr) {
    let collector = Collector::default();
    let (listener, address) = listen().await;
    let zstd = tonic::codec::CompressionEncoding::Zstd;
    let server = tonic::transport::Server::builder()
        .add_service(MetricsServiceServer::new(collector.clone()).accept_compressed(zstd))
        .add_service(ProfilesServiceServer::new(collector.clone()).accept_compressed(zstd))
        .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
    tokio::spawn(server);
    (collector, address)
}

#[test]
fn a_shutdown_drains_and_ships_the_last_window_with_requests_and_stacks() {
    crate::in_a_process_of_its_own(
        "data_path::embedded::a_shutdown_drains_and_ships_the_last_window_with_requests_and_stacks",
        the_last_window_has_requests_and_stacks,
    );
}

fn the_last_window_has_requests_and_stacks() {
    block_on(async {
        let (collector, endpoint) = collector().await;
        let mesh = mesh_to("checkout", &["/burn", "/slow"], Some(endpoint), true);
        let router = Router::new()
            .route("/burn", routing::get(|| async { burn().to_string() }))
            .route(
                "/slow",
                routing::get(|| async {
                    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                    "slow"
                }),
            );
        let address = serve(&mesh, router).await;
        for _ in 0..20 {
            get(address, "/burn").await;
        }
        let slow = tokio::spawn(get(address, "/slow"));
        eventually("the slow request is in flight", || {
            mesh.telemetry().in_flight(Side::Server) == 1
        })
        .await;
        let silent = TcpStream::connect(address).await.unwrap();
        eventually("the silent connection is accepted", || {
            metric(&mesh.metrics(), "emberline_proxy_connections_total") == 22
        })
        .await;
        let report = mesh.shutdown().await;
        drop(silent);
        assert!(report.drained && report.unacked == 0 && report.acked >= 2, "{report:?}");
        let (head, body) = slow.await.unwrap();
        assert_eq!(
            (status(&head), header(&head, "connection"), body.as_str()),
            (200, Some("close"), "slow")
        );
        assert!(TcpStream::connect(address).await.is_err(), "it still listens");

        let mut served = 0;
        for request in collector.requests.lock().drain(..) {
            for window in otlp::decode_metrics(request).windows {
                assert_eq!(
                    (window.workload.service.as_str(), window.component),
                    ("checkout", Component::Application)
                );
                served += window.requests.iter().map(|s| s.duration.count()).sum::<u64>();
            }
        }
        assert_eq!(served, 21);
        let (mut burnt, mut all) = (0, 0);
        for request in collector.profiles.lock().drain(..) {
            for window in otlp::decode_profiles(&request).unwrap().windows {
                for profile in &window.profiles {
                    for sample in &profile.samples {
                        let labels = &profile.label_sets[sample.label_set as usize];
                        all += sample.value;
                        burnt += if labels.route == "/burn" { sample.value } else { 0 };
                    }
                }
            }
        }
        assert!(burnt > all / 2 && burnt > 0, "{burnt} of {all} ns were labelled /burn");
    });
}

/// About 20 ms of work.
#[inline(never)]
fn burn() -> u64 {
    (0..6_000_000_u64).fold(1, |sum, n| {
        std::hint::black_box(sum ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(7))
    })
}

#[test]
fn settings_that_cannot_be_used_say_so() {
    let workload = |service: &str| Workload {
        service: service.into(),
        ..Default::default()
    };
    let off = ProfilerOptions {
        enabled: false,
        ..Default::default()
    };
    let error = |builder: emberline_proxy::MeshBuilder| builder.profiler(off).start().unwrap_err().to_string();
    assert!(error(Mesh::builder(workload(""))).contains("`service`"));
    assert!(error(Mesh::builder(workload("a")).routes(["cart"])).contains("must begin with `/`"));
    assert!(error(Mesh::builder(workload("a")).routes(["/a/{x}", "/a/{y}"])).contains("match the same paths"));
    assert!(error(Mesh::builder(workload("a")).collector("nowhere")).contains("http://"));
}
