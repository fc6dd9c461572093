//! What bounds an exchange, and TLS on one side only.

use std::{io::Write, net::IpAddr, time::Duration};

use bytes::Bytes;
use emberline_client::{Address, Client, Error, Tls};
use emberline_terminator::{Authority, Terminator};
use http::{Request, StatusCode};
use tokio::net::TcpListener;

use crate::support::{PATIENCE, answering, ask, hello, refusal};

#[tokio::test(flavor = "multi_thread")]
async fn tls_on_one_side_only_is_told_in_both_directions() {
    let plain = hello().await;
    let error = refusal(&Tls::default(), &format!("https://{plain}")).await;
    assert!(
        error.contains("does not speak TLS on this port: use `http://`"),
        "{error}"
    );
    let http2 = answering(&b"\0\0\0\x04\0\0\0\0\0"[..]).await;
    let error = refusal(&Tls::default(), &format!("https://{http2}")).await;
    assert!(error.contains("does not speak TLS"), "{error}");
    let silent = answering("").await;
    let error = refusal(&Tls::default(), &format!("https://{silent}")).await;
    assert!(error.contains("does it speak TLS"), "{error}");

    let authority = Authority::new();
    let terminator = Terminator::start(plain, &authority.certificate(&["localhost"]), None);
    let error = refusal(&Tls::default(), &format!("http://{}", terminator.address)).await;
    assert!(error.contains("speaks TLS on this port: use `https://`"), "{error}");
    // Go's servers notice, and answer in plain HTTP.
    let go = answering("HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n").await;
    let client = Client::new(&Tls::default()).unwrap();
    let address = Address::parse(&format!("http://{go}")).unwrap();
    let reply = client
        .send(&address, Request::new(Bytes::new()), PATIENCE)
        .await
        .unwrap();
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    let words = reply.words().await;
    assert!(words.contains("use `https://`"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_ends_in_time_and_reads_no_more_than_asked_for() {
    let client = Client::new(&Tls::default()).unwrap();
    // Nobody takes the connection; the kernel does.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let soon = Duration::from_millis(50);
    for scheme in ["http", "https"] {
        let address = Address::parse(&format!("{scheme}://{}", silent.local_addr().unwrap())).unwrap();
        let error = client
            .send(&address, Request::new(Bytes::new()), soon)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::TimedOut(time) if time == soon), "{error}");
    }
    // A body that never ends, without a length.
    let endless = answering([&b"HTTP/1.1 200 OK\r\n\r\n"[..], &vec![b'x'; 1 << 20]].concat()).await;
    let error = ask(&client, &format!("http://{endless}")).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge(1024)), "{error}");
    // One that ends early.
    let broken = answering("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello").await;
    let error = ask(&client, &format!("http://{broken}")).await.unwrap_err();
    assert!(matches!(error, Error::Http(_)), "{error}");
    // A redirect is an answer like any other.
    let elsewhere = answering("HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n").await;
    let address = Address::parse(&format!("http://{elsewhere}")).unwrap();
    let reply = client
        .send(&address, Request::new(Bytes::new()), PATIENCE)
        .await
        .unwrap();
    assert_eq!(reply.status, StatusCode::FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_judged_after_the_look_up() {
    fn here(ip: IpAddr) -> Option<&'static str> {
        ip.to_canonical().is_loopback().then_some("this machine")
    }
    let plain = hello().await;
    let client = Client::new(&Tls::default()).unwrap().refusing(here);
    for host in ["127.0.0.1", "localhost"] {
        let error = ask(&client, &format!("http://{host}:{}", plain.port()))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Forbidden(_, "this machine")), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_hold_neither_path_nor_headers() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"nonsense\r\n\r\n");
        }
    });
    let client = Client::new(&Tls::default()).unwrap();
    for scheme in ["http", "https"] {
        let address = Address::parse(&format!("{scheme}://{address}/SECRET?key=SECRET")).unwrap();
        let request = Request::builder()
            .header("authorization", "Bearer SECRET")
            .body(Bytes::from("SECRET"))
            .unwrap();
        let error = client.send(&address, request, PATIENCE).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("SECRET"), "{error:?}");
    }
}
