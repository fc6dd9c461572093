//! Who speaks first behind `protocol: auto`, and what it costs an application to be asked.

use std::{net::SocketAddr, time::Duration};

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::support::*;

/// An application with one worker: whoever is connected has it until it has asked or left.
async fn one_worker() -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            if read_head(&mut stream).await.ends_with("\r\n\r\n") {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
                let _ = stream.write_all(answer).await;
            }
        }
    });
    address
}

#[test]
fn a_silent_caller_keeps_no_worker_of_an_application_that_others_ask() {
    block_on(async {
        let proxy = proxy(&yaml(
            "cart",
            &format!(
                "limits: {{detect_ms: 50}}\ninbound: [{{listen: 127.0.0.1:0, to: {}}}]",
                one_worker().await
            ),
        ));
        let address = proxy.addresses().inbound[0];
        let connected = || metric(&proxy.metrics(), "emberline_proxy_upstream_connections_total");
        let mut early = TcpStream::connect(address).await.unwrap();
        eventually("the endpoint is asked whether it speaks first", || connected() == 1).await;
        assert_eq!(get(address, "/").await.1, "ok");
        // From now on it is known that callers speak first.
        let late = TcpStream::connect(address).await.unwrap();
        let before = connected();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(connected(), before);
        assert_eq!(get(address, "/").await.1, "ok");
        early.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(read_answer(&mut early).await.1, "ok");
        drop(late);
        stop(proxy).await;
    });
}
