//! HTTP/1.1 carried well.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::support::*;

#[test]
fn routes_are_templates_and_never_urls() {
    block_on(async {
        let app = App::named("app").await;
        let proxy = inbound("cart", "\"/cart/{id}\"", app.address, "");
        for path in ["/cart/1", "/cart/2?x=y", "/cart/3/", "/secret/1", "/"] {
            assert_eq!(get(proxy.addresses().inbound[0], path).await.1, "app");
        }
        let mut routes: Vec<(String, u64)> = recorded(proxy.telemetry(), 5)
            .await
            .into_iter()
            .map(|s| (s.route, s.duration.count()))
            .collect();
        routes.sort();
        assert_eq!(routes, [("/cart/{id}".to_owned(), 3), ("other".to_owned(), 2)]);
        stop(proxy).await;
    });
}

#[test]
fn one_connection_to_the_application_serves_many_requests_of_many_callers() {
    block_on(async {
        let app = App::named("app").await;
        let proxy = inbound("cart", "", app.address, "");
        for _ in 0..20 {
            assert_eq!(get(proxy.addresses().inbound[0], "/").await.1, "app");
        }
        assert_eq!((app.requests(), app.connections()), (20, 1));
        stop(proxy).await;
    });
}

#[test]
fn a_kept_alive_caller_gets_all_its_answers() {
    block_on(async {
        let app = App::start(|request| async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            http::Response::new(Full::from(format!("{path}:{}", body.len())))
        })
        .await;
        let proxy = inbound("cart", "", app.address, "");
        let mut stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        for n in 0..50_usize {
            let body = "x".repeat(n * 997);
            let request = format!(
                "POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(read_answer(&mut stream).await.1, format!("/{n}:{}", body.len()));
        }
        let series = recorded(proxy.telemetry(), 50).await;
        let sent: u64 = series.iter().map(|s| s.request_bytes).sum();
        assert_eq!(sent, (0..50).map(|n| n * 997).sum::<u64>());
        stop(proxy).await;
    });
}

#[test]
fn bodies_stream_both_ways_without_being_buffered() {
    block_on(async {
        // The application echoes each piece as it comes.
        let app = raw_app(|mut stream: TcpStream| async move {
            let head = read_head(&mut stream).await;
            assert!(header(&head, "transfer-encoding").is_some(), "{head}");
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await
                .unwrap();
            let mut buf = [0; 4096];
            loop {
                match stream.read(&mut buf).await {
                    Ok(0) | Err(_) => return,
                    Ok(n) => stream.write_all(&buf[..n]).await.unwrap(),
                }
            }
        })
        .await;
        let proxy = inbound("cart", "", app, "");
        let mut stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        stream
            .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await
            .unwrap();
        let mut answered = String::new();
        for n in 0..20 {
            // The next piece is sent only when this one has come back.
            let piece = format!("piece-{n}");
            stream
                .write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes())
                .await
                .unwrap();
            let came_back = async {
                while !answered.contains(&format!("{piece}\r\n")) {
                    answered.push(char::from(stream.read_u8().await.unwrap()));
                }
            };
            tokio::time::timeout(PATIENCE, came_back)
                .await
                .expect("the piece was held back");
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        let mut rest = String::new();
        while !rest.ends_with("0\r\n\r\n") {
            rest.push(char::from(stream.read_u8().await.unwrap()));
        }
        let series = recorded(proxy.telemetry(), 1).await;
        let sent: u64 = (0..20).map(|n| format!("piece-{n}").len() as u64).sum();
        assert_eq!((series[0].request_bytes, series[0].response_bytes), (sent, sent));
        stop(proxy).await;
    });
}

#[test]
fn large_bodies_pass_unchanged() {
    block_on(async {
        let app = App::start(|request| async move {
            http::Response::new(Full::from(request.into_body().collect().await.unwrap().to_bytes()))
        })
        .await;
        let proxy = inbound("cart", "", app.address, "");
        let body: Vec<u8> = (0..5_000_000_u32).map(|n| (n * 31) as u8).collect();
        let mut stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        let (mut reading, mut writing) = stream.split();
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        let send = async {
            writing.write_all(head.as_bytes()).await.unwrap();
            writing.write_all(&body).await.unwrap();
        };
        let receive = async {
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                answer.push(reading.read_u8().await.unwrap());
            }
            let mut received = vec![0; body.len()];
            reading.read_exact(&mut received).await.unwrap();
            received
        };
        let ((), received) = tokio::join!(send, receive);
        assert!(received == body, "the body changed on the way");
        stop(proxy).await;
    });
}

#[test]
fn head_and_bodyless_answers_keep_the_connection_in_step() {
    block_on(async {
        let app = App::start(|request| async move {
            let mut response = http::Response::new(Full::from("hello"));
            if request.uri().path() == "/none" {
                *response.body_mut() = Full::default();
                *response.status_mut() = http::StatusCode::NO_CONTENT;
            }
            response
        })
        .await;
        let proxy = inbound("cart", "", app.address, "");
        let mut stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        for _ in 0..3 {
            stream.write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            let head = read_head(&mut stream).await;
            assert_eq!((status(&head), header(&head, "content-length")), (200, Some("5")));
            stream
                .write_all(b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n")
                .await
                .unwrap();
            assert_eq!(status(&read_head(&mut stream).await), 204);
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            assert_eq!(read_answer(&mut stream).await.1, "hello");
        }
        let series = recorded(proxy.telemetry(), 9).await;
        assert!(series.iter().all(|s| !s.error), "{series:#?}");
        assert_eq!(flag(&proxy.metrics(), "DC"), 0);
        assert_eq!(app.connections(), 1);
        stop(proxy).await;
    });
}

#[test]
fn informational_answers_before_the_final_one_are_passed_over() {
    block_on(async {
        let app = raw_app(|mut stream: TcpStream| async move {
            loop {
                if read_head(&mut stream).await.is_empty() {
                    return;
                }
                let hints = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(3);
                let answer = format!("{hints}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        })
        .await;
        let proxy = inbound("cart", "", app, "");
        for _ in 0..2 {
            let (head, body) = get(proxy.addresses().inbound[0], "/").await;
            assert_eq!((status(&head), body.as_str()), (200, "ok"));
        }
        stop(proxy).await;
    });
}

#[test]
fn answers_that_end_with_the_connection_arrive_whole() {
    block_on(async {
        let app = raw_app(|mut stream: TcpStream| async move {
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            for _ in 0..3 {
                stream.write_all(b"part").await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let proxy = inbound("cart", "", app, "");
        let answer = send_raw(
            proxy.addresses().inbound[0],
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .await;
        assert_eq!(answer.matches("part").count(), 3, "{answer}");
        let series = recorded(proxy.telemetry(), 1).await;
        assert_eq!((series[0].response_bytes, series[0].error), (12, false));
        stop(proxy).await;
    });
}

#[test]
fn an_old_caller_of_http_1_0_is_served() {
    block_on(async {
        let app = App::named("app").await;
        let proxy = inbound("cart", "", app.address, "");
        let answer = send_raw(proxy.addresses().inbound[0], b"GET / HTTP/1.0\r\n\r\n").await;
        assert!(
            answer.starts_with("HTTP/1.0 200") && answer.ends_with("app"),
            "{answer}"
        );
        stop(proxy).await;
    });
}

#[test]
fn a_traceparent_passes_and_a_missing_one_is_made() {
    block_on(async {
        let app = App::start(|request| async move {
            let value = request
                .headers()
                .get("traceparent")
                .map_or("none".into(), |v| v.to_str().unwrap().to_owned());
            http::Response::new(Full::from(value))
        })
        .await;
        let proxy = inbound("cart", "", app.address, "");
        let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let address = proxy.addresses().inbound[0];
        assert_eq!(
            get_with(address, "/", &format!("traceparent: {given}\r\n")).await.1,
            given
        );
        let (one, two) = (get(address, "/").await.1, get(address, "/").await.1);
        assert!(one.len() == 55 && two.len() == 55 && one != two, "{one} {two}");
        stop(proxy).await;
    });
}

#[test]
fn weights_share_requests_exactly() {
    block_on(async {
        let (one, two) = (App::named("one").await, App::named("two").await);
        let proxy = proxy(&yaml(
            "frontend",
            &format!(
                "outbound:\n  - listen: 127.0.0.1:0\n    service: checkout\n    destinations: \
                 [{{address: {}, weight: 30}}, {{address: {}, weight: 70}}]",
                one.address, two.address
            ),
        ));
        for _ in 0..100 {
            get(proxy.addresses().outbound[0], "/").await;
        }
        assert_eq!((one.requests(), two.requests()), (30, 70));
        stop(proxy).await;
    });
}

#[test]
fn a_pooled_connection_that_the_application_closed_costs_nobody_a_request() {
    block_on(async {
        // Answers one request per connection and closes it without saying so: the pool keeps meeting dead connections.
        let app = raw_app(|mut stream: TcpStream| async move {
            read_head(&mut stream).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
        })
        .await;
        let proxy = inbound("cart", "", app, "");
        let mut stream = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
        for _ in 0..200 {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            let (head, body) = read_answer(&mut stream).await;
            assert_eq!((status(&head), body.as_str()), (200, "ok"));
        }
        recorded(proxy.telemetry(), 200).await;
        stop(proxy).await;
    });
}

#[test]
fn several_workers_share_a_port() {
    block_on(async {
        let app = App::named("app").await;
        let text = yaml(
            "cart",
            &format!("workers: 3\ninbound: [{{listen: 127.0.0.1:0, to: {}}}]", app.address),
        );
        let proxy = Arc::new(proxy(&text));
        let address = proxy.addresses().inbound[0];
        let asking: Vec<_> = (0..60).map(|_| tokio::spawn(get(address, "/"))).collect();
        for asked in asking {
            assert_eq!(asked.await.unwrap().1, "app");
        }
        recorded(proxy.telemetry(), 60).await;
        let other = Bytes::from(yaml(
            "cart",
            &format!("workers: 3\ninbound: [{{listen: {address}, to: {}}}]", app.address),
        ));
        let config = emberline_proxy::config::parse("x.yaml".as_ref(), std::str::from_utf8(&other).unwrap()).unwrap();
        let refused = emberline_proxy::Proxy::start(config, None).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("{address} is in use by another process")),
            "{refused}"
        );
        stop(Arc::into_inner(proxy).unwrap()).await;
    });
}
