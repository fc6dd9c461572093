//! Connections that a load balancer passes on with a PROXY protocol header in front (`proxy_protocol`).

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::support::*;

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\x12\x67\0\x50";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// An application that says what it was told of its caller.
async fn app() -> App {
    App::start(|request| async move {
        let told = request.headers().get("x-forwarded-for");
        let told = told.map_or("nobody", |value| value.to_str().unwrap()).to_owned();
        http::Response::new(http_body_util::Full::from(told))
    })
    .await
}

#[test]
fn the_address_that_a_balancer_names_is_the_callers() {
    block_on(async {
        let app = app().await;
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("access.log");
        let proxy = proxy(&yaml(
            "cart",
            &format!(
                "access_log: {{path: {}}}\nlimits: {{header_ms: 500}}\ninbound:\n  \
                 - {{listen: 127.0.0.1:0, to: {to}, forwarded: append, proxy_protocol: [127.0.0.0/8]}}\n  \
                 - {{listen: 127.0.0.1:0, to: {to}, forwarded: append, proxy_protocol: [10.0.0.0/8]}}",
                log.display(),
                to = app.address
            ),
        ));
        let [announced, plain] = proxy.addresses().inbound[..] else {
            panic!()
        };
        for header in [V1, V2] {
            let mut stream = TcpStream::connect(announced).await.unwrap();
            stream.write_all(&[header, REQUEST].concat()).await.unwrap();
            assert_eq!(read_answer(&mut stream).await.1, "192.0.2.7");
            // The connection stays that caller's.
            stream.write_all(REQUEST).await.unwrap();
            assert_eq!(read_answer(&mut stream).await.1, "192.0.2.7");
        }
        eventually("the entries", || {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            log.matches("\"downstream_remote_address\":\"192.0.2.7\"").count() == 4
        })
        .await;
        // One without a header, one that sends nothing.
        assert_eq!(send_raw(announced, REQUEST).await, "");
        assert_eq!(send_raw(announced, b"").await, "");
        let broke = |reason: &str| {
            let name = format!("emberline_proxy_connections_broken_total{{reason=\"{reason}\"}}");
            metric(&proxy.metrics(), &name)
        };
        assert_eq!((broke("no_proxy_header"), broke("proxy_header_timeout")), (1, 1));
        // Who is no balancer cannot say who it is.
        let answer = send_raw(plain, &[V1, REQUEST].concat()).await;
        assert_eq!(status(&answer), 400, "{answer}");
        let mut stream = TcpStream::connect(plain).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        assert_eq!(read_answer(&mut stream).await.1, "127.0.0.1");
        stop(proxy).await;
    });
}
