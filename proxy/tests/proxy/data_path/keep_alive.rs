//! Pooled connections whose destination closes them on its own time.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::support::*;

/// An application that answers with the number of the connection and a header line, at most `most` times on each
/// connection; the next request is read and gets no answer.
async fn numbered(line: &'static str, most: usize) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&requests);
    let address = raw_app(move |mut stream: TcpStream| {
        let number = connections.fetch_add(1, Ordering::SeqCst) + 1;
        let requests = Arc::clone(&counted);
        async move {
            for nth in 0.. {
                if read_head(&mut stream).await.is_empty() {
                    return;
                }
                requests.fetch_add(1, Ordering::SeqCst);
                if nth == most {
                    return;
                }
                let answer = format!("HTTP/1.1 200 OK\r\n{line}Content-Length: 1\r\n\r\n{number}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    (address, requests)
}

/// Two requests with a pause between them; the connections that they came on.
async fn two_posts(line: &'static str, pause: Duration) -> (String, String) {
    let (app, _) = numbered(line, 9).await;
    let proxy = inbound("cart", "\"/\"", app, "");
    let mut caller = TcpStream::connect(proxy.addresses().inbound[0]).await.unwrap();
    let mut post = async || {
        let request = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n";
        caller.write_all(request).await.unwrap();
        read_answer(&mut caller).await.1
    };
    let first = post().await;
    tokio::time::sleep(pause).await;
    let second = post().await;
    stop(proxy).await;
    (first, second)
}

#[test]
fn a_connection_is_not_used_when_its_announced_time_is_nearly_over() {
    block_on(async {
        let used = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let pause = Duration::from_millis(600);
        assert_eq!(two_posts("Keep-Alive: timeout=1\r\n", pause).await, used("1", "2"));
        assert_eq!(
            two_posts("Keep-Alive: timeout=0\r\n", Duration::ZERO).await,
            used("1", "2")
        );
        // Long enough for any machine.
        assert_eq!(
            two_posts("Keep-Alive: timeout=9999, max=9\r\n", pause).await,
            used("1", "1")
        );
        assert_eq!(two_posts("", pause).await, used("1", "1"));
    });
}

#[test]
fn a_post_that_crosses_the_close_is_sent_once_and_counted() {
    block_on(async {
        for (method, expected, sent, failures) in [("POST", 502, 2, 1), ("GET", 200, 3, 0)] {
            let (app, requests) = numbered("", 1).await;
            let proxy = inbound("cart", "\"/\"", app, "");
            let address = proxy.addresses().inbound[0];
            let ask = async || {
                let request =
                    format!("{method} / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                status(&send_raw(address, request.as_bytes()).await)
            };
            assert_eq!(ask().await, 200);
            assert_eq!(ask().await, expected, "{method}");
            assert_eq!(requests.load(Ordering::SeqCst), sent, "{method}");
            let counted = metric(&proxy.metrics(), "emberline_proxy_pooled_connection_failures_total");
            assert_eq!(counted, failures, "{method}");
            stop(proxy).await;
        }
    });
}
