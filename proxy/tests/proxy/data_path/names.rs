//! Destinations that are names: all addresses, kept up to date.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use emberline_proxy::{
    Extensions, Proxy, Reloaded, config,
    resolve::{Found, LookUp, LookingUp, LookupError},
};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpListener, sync::Semaphore};

use super::support::*;

/// One name, with the addresses that it is told.
#[derive(Debug, Default)]
struct Names(Mutex<BTreeSet<IpAddr>>);

impl Names {
    fn are(&self, last: &[u8]) {
        *self.0.lock().unwrap() = last.iter().map(|&last| ip(last)).collect();
    }
}

impl LookUp for Names {
    fn look_up<'a>(&'a self, host: &'a str) -> LookingUp<'a> {
        let addresses = self.0.lock().unwrap().clone();
        Box::pin(async move {
            if host != "shop.test" || addresses.is_empty() {
                return Err(LookupError::new("told to fail"));
            }
            Ok(Found {
                addresses,
                good_for: Duration::from_secs(1),
            })
        })
    }
}

fn resolving(names: &Arc<Names>) -> Extensions {
    Extensions {
        names: Arc::clone(names) as Arc<dyn LookUp>,
        ..Extensions::default()
    }
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([127, 0, 7, last])
}

/// Listeners at addresses that share a port.
async fn listeners(last: &[u8]) -> (u16, BTreeMap<u8, TcpListener>) {
    'ports: loop {
        let port = nobody().await.port();
        let mut bound = BTreeMap::new();
        for &last in last {
            match TcpListener::bind((ip(last), port)).await {
                Ok(listener) => drop(bound.insert(last, listener)),
                Err(_) => continue 'ports,
            }
        }
        return (port, bound);
    }
}

/// An instance of the service, which says the last number of its address. `/slow` waits.
#[derive(Clone)]
struct Instance {
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    slow: Arc<AtomicUsize>,
    go_on: Arc<Semaphore>,
}

impl Instance {
    fn start(last: u8, listener: TcpListener) -> Instance {
        let instance = Instance {
            connections: Arc::default(),
            open: Arc::default(),
            slow: Arc::default(),
            go_on: Arc::new(Semaphore::new(0)),
        };
        let me = instance.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let me = me.clone();
                me.connections.fetch_add(1, Ordering::SeqCst);
                me.open.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let service = service_fn(|request: http::Request<Incoming>| {
                        let me = me.clone();
                        async move {
                            if request.uri().path() == "/slow" {
                                me.slow.fetch_add(1, Ordering::SeqCst);
                                me.go_on.acquire().await.unwrap().forget();
                            }
                            Ok::<_, Infallible>(http::Response::new(Full::<Bytes>::from(last.to_string())))
                        }
                    });
                    let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                    me.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        instance
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

async fn instances(last: &[u8]) -> (u16, BTreeMap<u8, Instance>) {
    let (port, listeners) = listeners(last).await;
    let started = listeners.into_iter().map(|(last, l)| (last, Instance::start(last, l)));
    (port, started.collect())
}

fn outbound(destinations: &str, protocol: &str) -> String {
    yaml(
        "frontend",
        &format!(
            "outbound: [{{listen: 127.0.0.1:0, service: shop, protocol: {protocol}, destinations: [{destinations}]}}]"
        ),
    )
}

/// A proxy in front of `shop.test:port` that believes what it is told about names.
fn start(port: u16, protocol: &str, names: &Arc<Names>) -> (Proxy, SocketAddr) {
    let text = outbound(&format!("{{address: 'shop.test:{port}'}}"), protocol);
    let config = config::parse("test.yaml".as_ref(), &text).unwrap();
    let proxy = Proxy::start_with(config, None, resolving(names)).unwrap();
    let listen = proxy.addresses().outbound[0];
    (proxy, listen)
}

/// Who answers so many requests, one after the other.
async fn answers(listen: SocketAddr, n: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..n {
        let (head, body) = get(listen, "/").await;
        assert_eq!(status(&head), 200, "{head}{body}");
        *counts.entry(body).or_default() += 1;
    }
    counts
}

fn counts(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
    expected.iter().map(|&(name, n)| (name.to_owned(), n)).collect()
}

#[test]
fn all_addresses_of_a_name_share_its_weight_exactly() {
    block_on(async {
        let (port, instances) = instances(&[1, 2, 3]).await;
        let other = App::named("other").await;
        let names = Arc::new(Names::default());
        names.are(&[1, 2, 3]);
        let text = outbound(
            &format!(
                "{{address: 'shop.test:{port}', weight: 3}}, {{address: {}, weight: 2}}",
                other.address
            ),
            "auto",
        );
        let config = config::parse("test.yaml".as_ref(), &text).unwrap();
        let proxy = Proxy::start_with(config, None, resolving(&names)).unwrap();
        let listen = proxy.addresses().outbound[0];
        let expected = counts(&[("1", 10), ("2", 10), ("3", 10), ("other", 20)]);
        assert_eq!(answers(listen, 50).await, expected);
        for instance in instances.values() {
            assert_eq!(
                instance.connections(),
                1,
                "each address has connections of its own, and keeps them"
            );
        }
        stop(proxy).await;
    });
}

#[test]
fn a_name_that_moves_takes_its_requests_along_and_the_addresses_that_stay_keep_their_connections() {
    block_on(async {
        let (port, instances) = instances(&[1, 2, 3]).await;
        let names = Arc::new(Names::default());
        names.are(&[1, 2]);
        let (proxy, listen) = start(port, "http1", &names);
        assert_eq!(answers(listen, 10).await, counts(&[("1", 5), ("2", 5)]));
        // A request is under way to the address that goes.
        let mut slow = Vec::new();
        while instances[&1].slow.load(Ordering::SeqCst) == 0 {
            slow.push(tokio::spawn(get(listen, "/slow")));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        names.are(&[2, 3]);
        let moved = async {
            while !answers(listen, 2).await.contains_key("3") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, moved)
            .await
            .expect("the name never moves");
        let before = instances[&2].connections();
        assert_eq!(answers(listen, 10).await, counts(&[("2", 5), ("3", 5)]));
        assert_eq!(instances[&2].connections(), before, "what stays keeps its connections");
        assert!(instances[&1].open() >= 1, "the request under way is not cut off");
        instances.values().for_each(|instance| instance.go_on.add_permits(100));
        for slow in slow {
            assert_eq!(status(&slow.await.unwrap().0), 200);
        }
        eventually("what goes is closed", || instances[&1].open() == 0).await;
        stop(proxy).await;
    });
}

#[test]
fn a_name_that_moves_takes_http2_along() {
    block_on(async {
        let (port, instances) = instances(&[1, 2]).await;
        let names = Arc::new(Names::default());
        names.are(&[1]);
        let (proxy, listen) = start(port, "http2", &names);
        let stream = tokio::net::TcpStream::connect(listen).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        let mut ask = async || {
            let request = http::Request::get("http://shop.test/")
                .body(Full::<Bytes>::default())
                .unwrap();
            let response = sender.send_request(request).await.unwrap();
            let body = http_body_util::BodyExt::collect(response.into_body())
                .await
                .unwrap()
                .to_bytes();
            String::from_utf8_lossy(&body).into_owned()
        };
        assert_eq!(ask().await, "1");
        names.are(&[2]);
        let moved = async {
            while ask().await != "2" {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, moved)
            .await
            .expect("the name never moves");
        eventually("what goes is closed", || instances[&1].open() == 0).await;
        stop(proxy).await;
    });
}

#[test]
fn idle_connections_to_an_address_that_went_are_closed_without_a_request() {
    block_on(async {
        let (port, instances) = instances(&[1, 2]).await;
        let names = Arc::new(Names::default());
        names.are(&[1]);
        let (proxy, listen) = start(port, "http1", &names);
        answers(listen, 1).await;
        assert_eq!(instances[&1].open(), 1);
        names.are(&[2]);
        eventually("what goes is closed", || instances[&1].open() == 0).await;
        stop(proxy).await;
    });
}

#[test]
fn an_address_that_refuses_costs_no_request_while_another_one_of_the_name_accepts() {
    block_on(async {
        let (port, mut listeners) = listeners(&[1, 2, 3]).await;
        drop(listeners.remove(&1));
        for (last, listener) in listeners {
            Instance::start(last, listener);
        }
        let names = Arc::new(Names::default());
        names.are(&[1, 2, 3]);
        let (over_tcp, listen) = start(port, "tcp", &names);
        let answered = answers(listen, 30).await;
        assert!(answered["2"] >= 10 && answered["3"] >= 10, "{answered:?}");
        let (over_http, listen) = start(port, "http1", &names);
        let answered = answers(listen, 30).await;
        assert!(answered["2"] >= 10 && answered["3"] >= 10, "{answered:?}");
        for proxy in [&over_tcp, &over_http] {
            let failures = metric(&proxy.metrics(), "emberline_proxy_upstream_connection_failures_total");
            assert!(
                (1..=5).contains(&failures),
                "{failures}: counted, and passed over for a while"
            );
        }
        stop(over_tcp).await;
        // What was connected in its place is not kept for it.
        Instance::start(1, TcpListener::bind((ip(1), port)).await.unwrap());
        let back = async {
            while !answers(listen, 3).await.contains_key("1") {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, back)
            .await
            .expect("the address that is back is never used");
        assert_eq!(answers(listen, 9).await, counts(&[("1", 3), ("2", 3), ("3", 3)]));
        stop(over_http).await;
    });
}

#[test]
fn a_name_whose_addresses_all_refuse_is_named_with_one_of_them() {
    block_on(async {
        let port = nobody().await.port();
        let names = Arc::new(Names::default());
        names.are(&[1, 2]);
        let (proxy, listen) = start(port, "http1", &names);
        let (head, body) = get(listen, "/").await;
        assert_eq!(
            (status(&head), header(&head, "x-emberline-error")),
            (503, Some("upstream_connection_failure"))
        );
        assert!(
            body.contains(&format!("cannot connect to shop.test:{port}: 127.0.7.1:{port}: ")),
            "{body}"
        );
        stop(proxy).await;
    });
}

#[test]
fn a_name_that_nobody_knows_is_503_until_somebody_does_and_then_kept() {
    block_on(async {
        let (port, _instances) = instances(&[1]).await;
        let names = Arc::new(Names::default());
        let (proxy, listen) = start(port, "http1", &names);
        let (head, body) = get(listen, "/").await;
        assert_eq!(
            (status(&head), header(&head, "x-emberline-error")),
            (503, Some("upstream_name_unresolved"))
        );
        assert!(
            body.contains(&format!("cannot resolve the name of shop.test:{port}: told to fail")),
            "{body}"
        );
        assert_eq!(flag(&proxy.metrics(), "UF"), 1);
        let failures = || metric(&proxy.metrics(), "emberline_proxy_dns_lookup_failures_total");
        let lookups = || metric(&proxy.metrics(), "emberline_proxy_dns_lookups_total");
        assert!(failures() >= 1 && lookups() >= failures());
        names.are(&[1]);
        let known = async {
            while status(&get(listen, "/").await.0) != 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, known)
            .await
            .expect("the name is never known");
        let before = failures();
        names.are(&[]);
        eventually("a lookup fails", || failures() > before).await;
        assert_eq!(
            answers(listen, 10).await,
            counts(&[("1", 10)]),
            "what was known is kept"
        );
        stop(proxy).await;
    });
}

#[test]
fn localhost_is_reached_as_before() {
    block_on(async {
        let app = App::named("app").await;
        let to = format!("'localhost:{}'", app.address.port());
        let proxy = proxy(&yaml("cart", &format!("inbound: [{{listen: 127.0.0.1:0, to: {to}}}]")));
        let listen = proxy.addresses().inbound[0];
        assert_eq!(answers(listen, 10).await, counts(&[("app", 10)]));
        stop(proxy).await;
    });
}

#[test]
fn a_reload_keeps_the_connections_to_the_addresses_of_a_name() {
    block_on(async {
        let (port, instances) = instances(&[1, 2]).await;
        let names = Arc::new(Names::default());
        names.are(&[1, 2]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.yaml");
        let listen = nobody().await;
        let text = |weight| {
            outbound(&format!("{{address: 'shop.test:{port}', weight: {weight}}}"), "http1")
                .replace("listen: 127.0.0.1:0", &format!("listen: {listen}"))
        };
        std::fs::write(&path, text(1)).unwrap();
        let config = config::load(&path).unwrap();
        let proxy = Proxy::start_with(config, Some(&path), resolving(&names)).unwrap();
        assert_eq!(answers(listen, 4).await, counts(&[("1", 2), ("2", 2)]));
        std::fs::write(&path, text(2)).unwrap();
        assert!(matches!(proxy.reload(), Reloaded::InForce { .. }));
        assert_eq!(answers(listen, 4).await, counts(&[("1", 2), ("2", 2)]));
        assert!(instances.values().all(|instance| instance.connections() == 1));
        stop(proxy).await;
    });
}
