//! What two parsers could read differently never passes: one test per row of the framing matrix. The application is the
//! oracle: it sees exactly the requests that were answered with its 200.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::support::*;

/// Sends bytes through an inbound proxy, and reads until the application's answers are there or the proxy closes; the
/// status of the first answer, and what reached the application: the heads, or nothing.
async fn through(bytes: &[u8], answers: usize) -> (u16, Vec<String>) {
    let seen = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
    let kept = seen.clone();
    let app = raw_app(move |mut stream: TcpStream| {
        let kept = kept.clone();
        async move {
            loop {
                let head = read_head(&mut stream).await;
                if !head.ends_with("\r\n\r\n") {
                    return;
                }
                let length: usize = header(&head, "content-length").map_or(0, |l| l.parse().unwrap());
                let mut body = vec![0; length];
                if stream.read_exact(&mut body).await.is_err() {
                    return;
                }
                let chunked = header(&head, "transfer-encoding").is_some();
                kept.lock().push(head);
                if chunked {
                    let mut rest = Vec::new();
                    while !rest.ends_with(b"0\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => rest.push(byte),
                            Err(_) => return,
                        }
                    }
                }
                if stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await
                    .is_err()
                {
                    return;
                }
            }
        }
    })
    .await;
    let proxy = inbound("cart", "\"/\"", app, ", protocol: http1");
    let mut stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = String::new();
    let reading = async {
        while answer.matches("\r\n\r\nok").count() < answers
            && let Ok(byte) = stream.read_u8().await
        {
            answer.push(char::from(byte));
        }
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("the connection stays open");
    stop(proxy).await;
    let seen = seen.lock().clone();
    (status(&answer), seen)
}

macro_rules! refused {
    ($($name:ident: $status:literal, $bytes:expr;)*) => {
        $(
            #[test]
            fn $name() {
                block_on(async {
                    let (status, seen) = through($bytes.as_bytes(), 1).await;
                    assert_eq!((status, seen), ($status, Vec::new()));
                });
            }
        )*
    };
}

refused! {
    content_length_then_transfer_encoding: 400,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    transfer_encoding_then_content_length: 400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n";
    two_different_content_lengths: 400,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd";
    two_equal_content_lengths: 400,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc";
    content_length_with_a_sign: 400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc";
    content_length_in_hexadecimal: 400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc";
    content_length_list: 400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc";
    transfer_encoding_xchunked: 400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n";
    transfer_encoding_not_ending_in_chunked: 400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n";
    two_transfer_encodings: 400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    transfer_encoding_gzip_chunked: 501,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n";
    transfer_encoding_cow_chunked: 501,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: cow, chunked\r\n\r\n0\r\n\r\n";
    space_before_the_colon: 400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 3\r\n\r\nabc";
    folded_line: 400, "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n";
    vertical_tab_before_chunked: 400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n";
    bare_line_feeds: 400, "GET / HTTP/1.1\nHost: a\n\n";
    one_bare_line_feed: 400, "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n";
    bare_carriage_return_in_a_value: 400, "GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n";
    nul_in_a_value: 400, "GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n";
    two_hosts: 400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n";
    no_host: 400, "GET / HTTP/1.1\r\n\r\n";
    host_with_a_path: 400, "GET / HTTP/1.1\r\nHost: a/b?c\r\n\r\n";
    authority_that_is_not_the_host: 400, "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n";
    http_1_0_with_chunked: 400, "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    space_in_the_target: 400, "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n";
    method_in_lower_case: 400, "get / HTTP/1.1\r\nHost: a\r\n\r\n";
    connect: 501, "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n";
    more_headers_than_any_application_sends: 431,
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(200));
}

#[test]
fn malformed_chunks_never_complete_a_request() {
    block_on(async {
        for body in [
            "3\nabc\r\n0\r\n\r\n",
            "3\r\nabcX\r\n0\r\n\r\n",
            "fffffffffffffffff\r\nabc",
            "0x3\r\nabc\r\n0\r\n\r\n",
        ] {
            let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
            let (status, seen) = through(request.as_bytes(), 1).await;
            // The head may be on its way already; the application never gets a body that looks whole.
            assert_ne!(status, 200, "{body:?}");
            assert!(seen.len() <= 1, "{body:?} {seen:?}");
        }
    });
}

#[test]
fn nothing_after_a_refused_request_is_served() {
    block_on(async {
        let good = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let bad = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        let (status, seen) = through(format!("{good}{bad}{good}").as_bytes(), 9).await;
        assert_eq!((status, seen.len()), (200, 1), "{seen:?}");
    });
}

#[test]
fn pipelined_requests_are_served_in_order() {
    block_on(async {
        let one = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        let two = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        let (status, seen) = through(format!("{one}{two}{one}").as_bytes(), 3).await;
        assert_eq!((status, seen.len()), (200, 3), "{seen:?}");
    });
}

/// What the application sees of one request with these header lines.
async fn seen(headers: &str) -> String {
    let request = format!("GET /x?y=z HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
    let (status, mut seen) = through(request.as_bytes(), 1).await;
    assert_eq!((status, seen.len()), (200, 1), "{headers}");
    seen.remove(0).to_lowercase()
}

#[test]
fn upgrade_is_taken_away() {
    block_on(async {
        let head = seen("Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n").await;
        assert!(!head.contains("upgrade") && !head.contains("http2-settings"), "{head}");
    });
}

#[test]
fn upgrade_with_a_pipelined_request_serves_both() {
    block_on(async {
        let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n";
        let (status, seen) = through(format!("{upgrade}GET / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(), 2).await;
        assert_eq!((status, seen.len()), (200, 2), "{seen:?}");
    });
}

#[test]
fn headers_that_connection_names_are_taken_away() {
    block_on(async {
        let head = seen("Connection: X-Auth, close\r\nX-Auth: 1\r\nX-Kept: 2\r\nKeep-Alive: 5\r\nTE: gzip\r\n").await;
        assert!(head.contains("x-kept: 2"), "{head}");
        for gone in ["x-auth", "keep-alive", "te:"] {
            assert!(!head.contains(gone), "{gone} in {head}");
        }
    });
}

#[test]
fn the_target_reaches_the_application_as_it_was() {
    block_on(async {
        let head = seen("").await;
        assert!(
            head.starts_with("get /x?y=z http/1.1\r\n") && head.contains("host: a\r\n"),
            "{head}"
        );
        let (status, seen) = through(b"GET http://A/x HTTP/1.1\r\nHost: a\r\n\r\n", 1).await;
        assert_eq!(status, 200);
        assert!(seen[0].starts_with("GET /x HTTP/1.1\r\n"), "{seen:?}");
    });
}

#[test]
fn targets_that_clients_do_not_escape_are_served_and_change_nothing_else() {
    block_on(async {
        let body = "{\"a\": \"<b>\"}";
        let one = format!(
            "POST /a\"<b>`?c=\"<d>`|{{}}[]^\\ HTTP/1.1\r\nHost: a\r\nX-Kept: \"<>`\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let (status, seen) = through(one.repeat(3).as_bytes(), 3).await;
        assert_eq!((status, seen.len()), (200, 3), "{seen:?}");
        for head in seen {
            let target = "POST /a%22%3Cb%3E%60?c=%22%3Cd%3E%60|{}[]^\\ HTTP/1.1\r\n";
            assert!(head.starts_with(target), "{head}");
            assert!(head.to_lowercase().contains("x-kept: \"<>`\r\n"), "{head}");
        }
    });
}

#[test]
fn a_target_that_grows_beyond_the_reader_s_buffer_arrives_whole() {
    block_on(async {
        let long = "<".repeat(5000);
        let (status, seen) = through(format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(), 1).await;
        assert_eq!((status, seen.len()), (200, 1), "{seen:?}");
        assert!(seen[0].starts_with(&format!("GET /{} HTTP/1.1\r\n", "%3C".repeat(5000))));
    });
}

#[test]
fn an_authority_with_the_port_of_its_scheme_is_the_host_without_it() {
    block_on(async {
        let (status, seen) = through(b"GET http://a:80/x HTTP/1.1\r\nHost: a\r\n\r\n", 1).await;
        assert_eq!((status, seen.len()), (200, 1), "{seen:?}");
        assert!(seen[0].starts_with("GET /x HTTP/1.1\r\n"), "{seen:?}");
        assert_eq!(header(&seen[0], "host"), Some("a:80"));
    });
}

#[test]
fn expect_is_answered_by_the_proxy_and_goes_no_further() {
    block_on(async {
        let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc";
        let (status, seen) = through(request.as_bytes(), 1).await;
        assert!(status == 100 || status == 200, "{status}");
        assert!(!seen[0].to_lowercase().contains("expect"), "{seen:?}");
    });
}

#[test]
fn forbidden_trailers_are_dropped() {
    block_on(async {
        let request = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: x-sum, content-length\r\n\
                       Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n";
        let app = App::start(|request| async move {
            use http_body_util::BodyExt;
            let collected = request.into_body().collect().await.unwrap();
            let names: Vec<String> = collected
                .trailers()
                .map(|t| t.keys().map(|k| k.to_string()).collect())
                .unwrap_or_default();
            http::Response::new(http_body_util::Full::from(names.join(",")))
        })
        .await;
        let proxy = inbound("cart", "", app.address, "");
        let mut stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let (_, body) = read_answer(&mut stream).await;
        assert_eq!(body, "x-sum");
        stop(proxy).await;
    });
}

#[test]
fn refusals_are_recorded_and_counted_by_reason() {
    block_on(async {
        let app = App::named("app").await;
        let proxy = inbound("cart", "\"/\"", app.address, "");
        let answer = send_raw(
            proxy.addresses().inbound[0],
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        )
        .await;
        assert_eq!(
            (status(&answer), header(&answer, "x-emberline-error")),
            (400, Some("two_hosts"))
        );
        assert_eq!(header(&answer, "connection"), Some("close"));
        let series = recorded(proxy.telemetry(), 1).await;
        assert_eq!((series[0].status, series[0].error), (400, false));
        let metrics = proxy.metrics();
        assert_eq!(
            metric(&metrics, "emberline_proxy_requests_refused_total{reason=\"two_hosts\"}"),
            1
        );
        assert_eq!((flag(&metrics, "DPE"), app.requests()), (1, 0));
        stop(proxy).await;
    });
}
