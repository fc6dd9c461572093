//! Limits of requests in flight: who waits, who is refused, and when a place is free again.

use std::sync::Arc;

use http::Response;
use http_body_util::Full;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    filters::shop,
    services::{ask, sharing},
    support::*,
};

/// An application that answers when it is told to, and the most requests it had at once.
async fn waiting(go: tokio::sync::watch::Receiver<bool>) -> (App, Arc<Mutex<(usize, usize)>>) {
    let counts: Arc<Mutex<(usize, usize)>> = Arc::default();
    let counted = Arc::clone(&counts);
    let app = App::start(move |_| {
        let (mut go, counts) = (go.clone(), Arc::clone(&counted));
        async move {
            {
                let mut counts = counts.lock();
                counts.0 += 1;
                counts.1 = counts.1.max(counts.0);
            }
            go.wait_for(|go| *go).await.unwrap();
            counts.lock().0 -= 1;
            Response::new(Full::from("done"))
        }
    })
    .await;
    (app, counts)
}

#[test]
fn no_more_requests_are_in_flight_than_allowed_and_few_wait() {
    block_on(async {
        let (go, gone) = tokio::sync::watch::channel(false);
        let (app, counts) = waiting(gone).await;
        let filter = "filters: [{concurrency_limit: {requests: 3, queue: 2, queue_ms: 60000}}]";
        let (proxy, listen) = sharing("workers: 2\n", &[shop(&app, filter)]).await;
        let asking = || tokio::spawn(async move { ask(listen, "shop", "/", "").await });
        let mut asked: Vec<_> = (0..3).map(|_| asking()).collect();
        eventually("three are in flight", || app.requests() == 3).await;
        asked.extend((0..2).map(|_| asking()));
        let telemetry = proxy.telemetry().clone();
        eventually("two wait", || telemetry.in_flight(emberline_model::Side::Client) == 5).await;
        for _ in 0..2 {
            let (head, body) = ask(listen, "shop", "/", "").await;
            assert_eq!(
                (status(&head), header(&head, "x-emberline-error")),
                (503, Some("concurrency_limit"))
            );
            assert!(body.contains("`concurrency_limit`"), "{body}");
        }
        go.send_replace(true);
        let mut statuses = Vec::new();
        for asked in asked {
            statuses.push(status(&asked.await.unwrap().0));
        }
        assert_eq!(statuses, [200; 5]);
        assert_eq!((app.requests(), counts.lock().1), (5, 3));
        recorded(proxy.telemetry(), 7).await;
        assert_eq!(flag(&proxy.metrics(), "UO"), 2);
        stop(proxy).await;
    });
}

#[test]
fn who_leaves_the_queue_or_waits_too_long_gives_its_place_up() {
    block_on(async {
        let (go, gone) = tokio::sync::watch::channel(false);
        let (app, _) = waiting(gone).await;
        let filter = "filters: [{concurrency_limit: {requests: 1, queue: 1, queue_ms: 30}}]";
        let (proxy, listen) = sharing("", &[shop(&app, filter)]).await;
        let first = tokio::spawn(async move { ask(listen, "shop", "/", "").await });
        eventually("one is in flight", || app.requests() == 1).await;
        // Each of them waits, in the only place there is for that, and leaves it.
        for _ in 0..3 {
            assert_eq!(status(&ask(listen, "shop", "/", "").await.0), 503);
        }
        go.send_replace(true);
        assert_eq!(status(&first.await.unwrap().0), 200);
        assert_eq!(status(&ask(listen, "shop", "/", "").await.0), 200);
        assert_eq!(app.requests(), 2);
        stop(proxy).await;
    });
}

#[test]
fn a_place_is_held_until_the_response_has_ended() {
    block_on(async {
        let (go, gone) = tokio::sync::watch::channel(false);
        let app = raw_app(move |mut stream: TcpStream| {
            let mut gone = gone.clone();
            async move {
                read_head(&mut stream).await;
                let head = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf";
                stream.write_all(head.as_bytes()).await.unwrap();
                gone.wait_for(|go| *go).await.unwrap();
                let _ = stream.write_all(b"half").await;
            }
        })
        .await;
        let entry = format!(
            "service: shop, destinations: [{{address: {app}}}], filters: [{{concurrency_limit: {{requests: 1}}}}]"
        );
        let (proxy, listen) = sharing("", &[entry]).await;
        let mut stream = TcpStream::connect(listen).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await.unwrap();
        assert_eq!(status(&read_head(&mut stream).await), 200);
        assert_eq!(status(&ask(listen, "shop", "/", "").await.0), 503);
        go.send_replace(true);
        let mut body = [0; 8];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"halfhalf");
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while status(&ask(listen, "shop", "/", "").await.0) != 200 {
            assert!(tokio::time::Instant::now() < deadline, "the place is not given up");
        }
        stop(proxy).await;
    });
}
