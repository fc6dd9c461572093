//! TLS between sidecars: every protocol over it, who is refused and why, whose identity counts, certificates that change.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use emberline_proxy::Proxy;
use emberline_terminator::{Authority, Certified, Fault};
use http_body_util::BodyExt;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    grpc::{call, grpc_app, status_of},
    support::*,
    tcp::echo,
};

const CART: &str = "spiffe://test/ns/shop/sa/cart";
const FRONTEND: &str = "spiffe://test/ns/shop/sa/frontend";

/// A CA, and the files of two workloads: `cart` is called, `frontend` calls.
struct Mesh {
    folder: TempDir,
    ca: Authority,
}

impl Mesh {
    fn new() -> Mesh {
        let mesh = Mesh {
            folder: tempfile::tempdir().unwrap(),
            ca: Authority::new(),
        };
        std::fs::write(mesh.path("ca.pem"), mesh.ca.pem()).unwrap();
        mesh.issue("cart", &[CART, "127.0.0.1"]);
        mesh.issue("frontend", &[FRONTEND]);
        mesh
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn issue(&self, who: &str, names: &[&str]) {
        self.write(who, &self.ca.certificate(names));
    }

    fn write(&self, who: &str, certified: &Certified) {
        certified.write(self.folder.path(), who);
    }

    /// Settings that name the files of a workload.
    fn files(&self, who: &str) -> String {
        let (cert, key) = (self.path(&format!("{who}.crt")), self.path(&format!("{who}.key")));
        format!("cert_file: {}, key_file: {}", cert.display(), key.display())
    }

    /// TLS of an inbound listener, as more of its settings.
    fn inbound(&self, more: &str) -> String {
        let (files, ca) = (self.files("cart"), self.path("ca.pem"));
        format!(", tls: {{{files}, client_ca_file: {}{more}}}", ca.display())
    }

    /// The proxy of a caller of `cart`.
    fn caller(&self, to: std::net::SocketAddr, tls: &str, more: &str) -> Proxy {
        let ca = self.path("ca.pem");
        proxy(&yaml(
            "frontend",
            &format!(
                "outbound:\n  - {{listen: 127.0.0.1:0, service: cart, destinations: [{{address: {to}}}], tls: {{ca_file: {}{tls}}}{more}}}",
                ca.display()
            ),
        ))
    }

    fn mutual(&self, to: std::net::SocketAddr, more: &str) -> Proxy {
        let files = self.files("frontend");
        self.caller(to, &format!(", {files}, spiffe_id: \"{CART}\""), more)
    }
}

fn failures(proxy: &Proxy, listener: &str, reason: &str) -> u64 {
    let name = format!("emberline_proxy_tls_failures_total{{listener=\"{listener}\",reason=\"{reason}\"}}");
    metric(&proxy.metrics(), &name)
}

fn handshakes(proxy: &Proxy, listener: &str) -> u64 {
    let name = format!("emberline_proxy_tls_handshakes_total{{listener=\"{listener}\"}}");
    metric(&proxy.metrics(), &name)
}

async fn stop_both(one: Proxy, other: Proxy) {
    stop(one).await;
    stop(other).await;
}

#[test]
fn http1_passes_two_proxies_with_mutual_tls() {
    block_on(async {
        let (mesh, app) = (Mesh::new(), App::named("cart").await);
        let callee = inbound("cart", "\"/\"", app.address, &mesh.inbound(""));
        let caller = mesh.mutual(callee.addresses().inbound[0], "");
        for _ in 0..5 {
            let (head, body) = get(caller.addresses().outbound[0], "/").await;
            assert_eq!((status(&head), body.as_str()), (200, "cart"));
        }
        let peer = recorded(callee.telemetry(), 5).await[0].peer.clone().unwrap();
        assert_eq!(peer.service, "frontend");
        // One connection, kept.
        assert_eq!(
            (handshakes(&callee, "inbound"), handshakes(&caller, "outbound")),
            (1, 1)
        );
        let ends = format!(
            "emberline_proxy_tls_certificate_not_after_seconds{{file=\"{}\"}}",
            mesh.path("cart.crt").display()
        );
        assert!(metric(&callee.metrics(), &ends) > 1_700_000_000, "{}", callee.metrics());
        stop_both(caller, callee).await;
    });
}

#[test]
fn grpc_passes_two_proxies_with_mutual_tls() {
    block_on(async {
        let (mesh, app) = (Mesh::new(), grpc_app().await);
        let callee = inbound("cart", "\"/shop.Echo/Say\"", app, &mesh.inbound(""));
        let caller = mesh.mutual(callee.addresses().inbound[0], "");
        let mut sender = connect_http2(caller.addresses().outbound[0]).await;
        for _ in 0..5 {
            let message = whole("\0\0\0\0\x02ab");
            let response = sender.send_request(call("/shop.Echo/Say", message)).await.unwrap();
            let answer = response.into_body().collect().await.unwrap();
            assert_eq!(status_of(answer.trailers()), Some("0"));
            assert_eq!(answer.to_bytes(), "\0\0\0\0\x02ab");
        }
        assert_eq!(recorded(callee.telemetry(), 5).await[0].protocol, "grpc");
        assert_eq!(
            (handshakes(&callee, "inbound"), handshakes(&caller, "outbound")),
            (1, 1)
        );
        stop_both(caller, callee).await;
    });
}

#[test]
fn tcp_passes_two_proxies_with_mutual_tls_and_half_closes() {
    block_on(async {
        let (mesh, app) = (Mesh::new(), echo().await);
        for protocol in [", protocol: tcp", ""] {
            let callee = inbound("cart", "", app, &format!("{protocol}{}", mesh.inbound("")));
            let caller = mesh.mutual(callee.addresses().inbound[0], protocol);
            let mut stream = TcpStream::connect(caller.addresses().outbound[0]).await.unwrap();
            stream.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut back = Vec::new();
            stream.read_to_end(&mut back).await.unwrap();
            assert_eq!(back, b"*1\r\n$4\r\nPING\r\n", "{protocol}");
            assert!(!recorded(callee.telemetry(), 1).await[0].error);
            assert_eq!(handshakes(&callee, "inbound"), 1);
            stop_both(caller, callee).await;
        }
    });
}

#[test]
fn a_server_that_speaks_first_does_so_over_tls() {
    block_on(async {
        let mesh = Mesh::new();
        let app = raw_app(|mut stream: TcpStream| async move {
            stream.write_all(b"220 ready\r\n").await.unwrap();
            let _ = stream.read(&mut [0; 10]).await;
        })
        .await;
        let callee = inbound("cart", "", app, &mesh.inbound(""));
        let caller = proxy_with(&mesh, callee.addresses().inbound[0], "limits: {detect_ms: 50}");
        let mut stream = TcpStream::connect(caller.addresses().outbound[0]).await.unwrap();
        let mut said = [0; 11];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut said))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&said, b"220 ready\r\n");
        drop(stream);
        stop_both(caller, callee).await;
    });
}

/// A caller with more settings of its own.
fn proxy_with(mesh: &Mesh, to: std::net::SocketAddr, more: &str) -> Proxy {
    let (ca, files) = (mesh.path("ca.pem"), mesh.files("frontend"));
    proxy(&yaml(
        "frontend",
        &format!(
            "{more}\noutbound:\n  - {{listen: 127.0.0.1:0, service: cart, destinations: [{{address: {to}}}], tls: {{ca_file: {}, {files}}}}}",
            ca.display()
        ),
    ))
}

#[test]
fn permissive_takes_tls_and_plaintext_on_one_port() {
    block_on(async {
        let (mesh, app) = (Mesh::new(), App::named("cart").await);
        let callee = inbound("cart", "\"/\"", app.address, &mesh.inbound(", mode: permissive"));
        let at = callee.addresses().inbound[0];
        assert_eq!(get(at, "/").await.1, "cart");
        let caller = mesh.mutual(at, "");
        assert_eq!(get(caller.addresses().outbound[0], "/").await.1, "cart");
        assert_eq!((handshakes(&callee, "inbound"), app.requests()), (1, 2));
        stop_both(caller, callee).await;
    });
}

#[test]
fn strict_refuses_plaintext_and_those_without_a_certificate_by_reason() {
    block_on(async {
        let (mesh, app) = (Mesh::new(), App::named("cart").await);
        let callee = inbound("cart", "\"/\"", app.address, &mesh.inbound(""));
        let at = callee.addresses().inbound[0];
        let said = send_raw(at, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(!said.contains("HTTP/1.1"), "{said}");
        eventually("it is counted", || failures(&callee, "inbound", "not_tls") == 1).await;
        let stranger = mesh.caller(at, &format!(", spiffe_id: \"{CART}\""), "");
        let (head, body) = get(stranger.addresses().outbound[0], "/").await;
        assert_eq!(
            (status(&head), header(&head, "x-emberline-error")),
            (503, Some("upstream_tls_failure")),
            "{body}"
        );
        assert!(body.contains("requires a client certificate"), "{body}");
        eventually("it is counted", || failures(&callee, "inbound", "no_certificate") == 1).await;
        let mut sender = connect_http2(stranger.addresses().outbound[0]).await;
        let request = http::Request::get("http://test/").body(whole("")).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8_lossy(&body);
        assert!(body.contains("requires a client certificate"), "{body}");
        assert_eq!((app.requests(), handshakes(&callee, "inbound")), (0, 0));
        stop_both(stranger, callee).await;
    });
}

#[test]
fn a_handshake_that_does_not_come_ends_after_header_ms() {
    block_on(async {
        let (mesh, app) = (Mesh::new(), App::named("cart").await);
        let callee = proxy(&yaml(
            "cart",
            &format!(
                "limits: {{header_ms: 50}}\ninbound: [{{listen: 127.0.0.1:0, to: {}{}}}]",
                app.address,
                mesh.inbound("")
            ),
        ));
        assert_eq!(send_raw(callee.addresses().inbound[0], b"").await, "");
        eventually("it is counted", || failures(&callee, "inbound", "timeout") == 1).await;
        stop(callee).await;
    });
}

#[test]
fn what_is_wrong_with_a_certificate_is_said_and_counted() {
    block_on(async {
        let (mesh, app) = (Mesh::new(), App::named("cart").await);
        let other = Authority::new();
        let spiffe = format!(", spiffe_id: \"{CART}\"");
        for (certified, tls, words, reason) in [
            (
                mesh.ca.faulty(&[CART], Fault::Expired),
                spiffe.as_str(),
                "expired on Wed, 03 Feb 2021",
                "expired",
            ),
            (
                mesh.ca.certificate(&[FRONTEND]),
                &spiffe,
                "is not for `spiffe://test/ns/shop/sa/cart`: it is for spiffe://test/ns/shop/sa/frontend; correct `spiffe_id`",
                "wrong_name",
            ),
            (
                mesh.ca.certificate(&["cart.shop"]),
                "",
                "it is for cart.shop",
                "wrong_name",
            ),
            (
                other.certificate(&[CART, "127.0.0.1"]),
                "",
                "not signed by a CA in `ca_file`",
                "unknown_ca",
            ),
        ] {
            mesh.write("cart", &certified);
            let callee = inbound("cart", "\"/\"", app.address, &mesh.inbound(""));
            let caller = mesh.caller(callee.addresses().inbound[0], tls, "");
            let (head, body) = get(caller.addresses().outbound[0], "/").await;
            assert_eq!(status(&head), 503, "{words}: {body}");
            assert!(body.contains(words), "{words}: {body}");
            assert_eq!(failures(&caller, "outbound", reason), 1, "{words}");
            stop_both(caller, callee).await;
        }
        // A destination in plaintext.
        let caller = mesh.caller(app.address, "", "");
        let (_, body) = get(caller.addresses().outbound[0], "/").await;
        assert!(body.contains("does not speak TLS on this port"), "{body}");
        assert_eq!((failures(&caller, "outbound", "not_tls"), app.requests()), (1, 0));
        stop(caller).await;
    });
}

#[test]
fn a_destination_that_does_not_agree_on_the_requests_protocol_is_refused() {
    block_on(async {
        let (mesh, app) = (Mesh::new(), App::named("cart").await);
        let callee = inbound(
            "cart",
            "\"/\"",
            app.address,
            &format!(", protocol: http1{}", mesh.inbound("")),
        );
        let caller = mesh.mutual(callee.addresses().inbound[0], "");
        assert_eq!(get(caller.addresses().outbound[0], "/").await.1, "cart");
        let mut sender = connect_http2(caller.addresses().outbound[0]).await;
        let request = http::Request::get("http://test/").body(whole("")).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.headers()["x-emberline-error"], "upstream_tls_failure");
        assert_eq!(failures(&caller, "outbound", "alpn"), 1);
        stop_both(caller, callee).await;
    });
}

#[test]
fn identity_counts_only_where_it_fits_the_certificate() {
    block_on(async {
        let (mesh, app) = (Mesh::new(), App::named("cart").await);
        let settings = format!(", identity: certificate{}", mesh.inbound(", mode: permissive"));
        for (names, peer) in [
            (&[FRONTEND][..], Some("frontend")),
            (&["spiffe://test/ns/bank/sa/frontend"], None),
            (&["spiffe://test/frontend"], None),
            (&["frontend.shop.svc.cluster.local"], Some("frontend")),
            (&["checkout.shop.svc.cluster.local"], None),
        ] {
            mesh.issue("frontend", names);
            let callee = inbound("cart", "\"/\"", app.address, &settings);
            let caller = mesh.mutual(callee.addresses().inbound[0], "");
            assert_eq!(get(caller.addresses().outbound[0], "/").await.1, "cart");
            let server = recorded(callee.telemetry(), 1).await;
            let found = server[0].peer.as_ref().map(|peer| peer.service.as_str());
            assert_eq!(found, peer, "{names:?}");
            // Nobody learns who answers whose own word does not count.
            let client = recorded(caller.telemetry(), 1).await;
            assert_eq!(client[0].peer.is_some(), peer.is_some(), "{names:?}");
            let refused = metric(&callee.metrics(), "emberline_proxy_tls_identities_refused_total");
            assert_eq!(refused, u64::from(peer.is_none()), "{names:?}");
            stop_both(caller, callee).await;
        }
        // A header without a certificate.
        let callee = inbound("cart", "\"/\"", app.address, &settings);
        let (head, _) = get_with(
            callee.addresses().inbound[0],
            "/",
            "x-emberline-peer: v1;shop;frontend;v1;a\r\n",
        )
        .await;
        assert_eq!((status(&head), header(&head, "x-emberline-peer")), (200, None));
        assert_eq!(recorded(callee.telemetry(), 1).await[0].peer, None);
        stop(callee).await;
    });
}

#[test]
fn the_admin_port_shows_paths_and_no_keys() {
    block_on(async {
        let (mesh, app) = (Mesh::new(), App::named("cart").await);
        let callee = inbound("cart", "\"/\"", app.address, &mesh.inbound(""));
        let page = send_raw(callee.addresses().admin, b"GET /config HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(page.contains("cart.key"), "{page}");
        let key = std::fs::read_to_string(mesh.path("cart.key")).unwrap();
        let line = key.lines().nth(1).unwrap();
        assert!(!page.contains(line) && !page.contains("PRIVATE"), "{page}");
        stop(callee).await;
    });
}

#[test]
fn a_hundred_rotations_under_load_fail_no_request() {
    block_on(async {
        let (mesh, app) = (Mesh::new(), App::named("cart").await);
        let callee = inbound("cart", "\"/\"", app.address, &mesh.inbound(""));
        // Every request has a connection of its own, so that certificates are met.
        let caller = mesh.mutual(callee.addresses().inbound[0], ", timeouts: {pool_idle_ms: 1}");
        let at = caller.addresses().outbound[0];
        let (ends, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let callers: Vec<_> = (0..3)
            .map(|_| {
                let (ends, asked) = (Arc::clone(&ends), Arc::clone(&asked));
                tokio::spawn(async move {
                    while !ends.load(Ordering::SeqCst) {
                        let (head, body) = get(at, "/").await;
                        assert_eq!((status(&head), body.as_str()), (200, "cart"));
                        asked.fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                })
            })
            .collect();
        for _ in 0..100 {
            mesh.issue("cart", &[CART]);
            mesh.issue("frontend", &[FRONTEND]);
            callee.reload();
            caller.reload();
            let until = asked.load(Ordering::SeqCst) + 3;
            eventually("requests pass", || asked.load(Ordering::SeqCst) >= until).await;
            // The grain of a file's time.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        ends.store(true, Ordering::SeqCst);
        for asking in callers {
            asking.await.unwrap();
        }
        for proxy in [&callee, &caller] {
            let reloads = metric(&proxy.metrics(), "emberline_proxy_tls_reloads_total");
            assert!(reloads >= 100, "{reloads}");
        }
        assert!(handshakes(&callee, "inbound") >= 100, "{}", callee.metrics());
        // A file that cannot be used changes nothing.
        std::fs::write(mesh.path("cart.key"), "half of a k").unwrap();
        callee.reload();
        assert!(metric(&callee.metrics(), "emberline_proxy_tls_reloads_refused_total") >= 1);
        assert_eq!(get(at, "/").await.1, "cart");
        // One that can does: it is of another CA.
        mesh.write("cart", &Authority::new().certificate(&[CART]));
        callee.reload();
        let refused = async {
            // A connection of before may be in the pool for another millisecond of its worker.
            while !get(at, "/").await.1.contains("not signed by a CA in `ca_file`") {}
        };
        tokio::time::timeout(PATIENCE, refused)
            .await
            .expect("the other certificate is not met");
        stop_both(caller, callee).await;
    });
}
