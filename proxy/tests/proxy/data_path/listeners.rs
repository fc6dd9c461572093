//! Listeners that come and go while the proxy runs.

use std::{convert::Infallible, io, net::SocketAddr, path::PathBuf};

use bytes::Bytes;
use emberline_proxy::{Proxy, Reloaded, config};
use futures_util::StreamExt;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};

use super::support::*;

/// A running proxy with three workers and the file that it follows.
pub(super) struct Following {
    pub(super) proxy: Proxy,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Following {
    pub(super) fn start(listeners: &str) -> Following {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.yaml");
        std::fs::write(&path, text(listeners)).unwrap();
        Following {
            proxy: Proxy::start(config::load(&path).unwrap(), Some(&path)).unwrap(),
            path,
            _folder: folder,
        }
    }

    fn reload(&self, listeners: &str) -> Reloaded {
        // At once: the file is watched, too.
        let new = self.path.with_extension("new");
        std::fs::write(&new, text(listeners)).unwrap();
        std::fs::rename(new, &self.path).unwrap();
        self.proxy.reload()
    }

    /// Reloads, and expects that everything is in force.
    pub(super) fn follow(&self, listeners: &str) {
        assert_eq!(self.reload(listeners), Reloaded::InForce { needs_restart: vec![] });
    }

    /// Listeners as `/config` shows them: address and state.
    async fn shown(&self) -> Vec<(String, String)> {
        let (_, page) = get(self.proxy.addresses().admin, "/config").await;
        let page: serde_json::Value = serde_json::from_str(&page).unwrap();
        let listeners = page["listeners"].as_array().unwrap().iter();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        listeners.map(|l| (text(&l["address"]), text(&l["state"]))).collect()
    }
}

/// Settings before the listeners may begin with some of their own.
fn text(listeners: &str) -> String {
    yaml("cart", &format!("workers: 3\n{listeners}"))
}

/// Entries of a list.
pub(super) fn inbounds(entries: &[(SocketAddr, SocketAddr)]) -> String {
    let entries = entries
        .iter()
        .map(|(listen, to)| format!("\n  - {{listen: {listen}, to: {to}}}"));
    format!("inbound:{}\n", entries.collect::<String>())
}

fn outbound(listen: SocketAddr, to: SocketAddr) -> String {
    format!("outbound: [{{listen: {listen}, service: stock, destinations: [{{address: {to}}}]}}]\n")
}

/// An application that answers when it is told to.
async fn held(go: &watch::Receiver<bool>) -> App {
    let go = go.clone();
    App::start(move |_| {
        let mut go = go.clone();
        async move {
            go.wait_for(|go| *go).await.unwrap();
            Response::new(Full::from("finished"))
        }
    })
    .await
}

/// An application of HTTP/2 that sends back what it gets, as it comes.
pub(super) async fn echo_http2() -> SocketAddr {
    raw_app(|stream: TcpStream| async move {
        let service = service_fn(|request: Request<Incoming>| async move {
            let pieces = request.into_body().into_data_stream();
            let pieces = pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece.unwrap())));
            Ok::<_, Infallible>(Response::new(StreamBody::new(pieces)))
        });
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
    })
    .await
}

async fn refuses(address: SocketAddr) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect(address).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return,
            _ => assert!(tokio::time::Instant::now() < deadline, "{address} still accepts"),
        }
    }
}

/// A `GET` on a connection that is kept.
pub(super) async fn ask(stream: &mut TcpStream) -> (String, String) {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    read_answer(stream).await
}

#[test]
fn a_listener_that_a_reload_adds_serves() {
    block_on(async {
        let (one, two) = (App::named("one").await, App::named("two").await);
        let (first, second, third) = (nobody().await, nobody().await, nobody().await);
        let before = inbounds(&[(first, one.address)]);
        let following = Following::start(&before);
        assert_eq!(get(first, "/").await.1, "one");
        refuses(second).await;
        following.follow(&(inbounds(&[(second, two.address), (first, one.address)]) + &outbound(third, two.address)));
        assert_eq!(get(second, "/").await.1, "two");
        assert_eq!(get(third, "/").await.1, "two");
        assert_eq!(get(first, "/").await.1, "one");
        let addresses = following.proxy.addresses();
        assert_eq!(
            (addresses.inbound, addresses.outbound),
            (vec![second, first], vec![third])
        );
        let shown = following.shown().await;
        let listening = |address: SocketAddr| (address.to_string(), "listening".to_owned());
        assert_eq!(shown, [listening(second), listening(first), listening(third)]);
        stop(following.proxy).await;
    });
}

#[test]
fn listeners_on_any_free_port_keep_it_by_position() {
    block_on(async {
        let (one, two) = (App::named("one").await, App::named("two").await);
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let following = Following::start(&inbounds(&[(any, one.address), (any, two.address)]));
        let before = following.proxy.addresses().inbound;
        following.follow(&inbounds(&[(any, two.address), (any, one.address), (any, one.address)]));
        let after = following.proxy.addresses().inbound;
        assert_eq!(after[..2], before[..]);
        assert_eq!(get(before[0], "/").await.1, "two");
        assert_eq!(get(before[1], "/").await.1, "one");
        assert_eq!(get(after[2], "/").await.1, "one");
        stop(following.proxy).await;
    });
}

#[test]
fn a_listener_that_a_reload_removes_ends_as_a_stop_does() {
    block_on(async {
        let (go, gone) = watch::channel(false);
        let (app, kept, echo) = (held(&gone).await, App::named("kept").await, echo_http2().await);
        let (first, held_at, idle_at, streams_at) = (nobody().await, nobody().await, nobody().await, nobody().await);
        let stays = (first, kept.address);
        let all = [
            stays,
            (held_at, app.address),
            (idle_at, kept.address),
            (streams_at, echo),
        ];
        let following = Following::start(&inbounds(&all));
        // A request in flight, a stream in flight, a caller of each that is idle.
        let asking = tokio::spawn(get(held_at, "/"));
        eventually("the request is in flight", || app.requests() == 1).await;
        let (pieces, sent) = mpsc::channel::<&'static str>(1);
        let body = futures_util::stream::unfold(sent, |mut sent| async {
            let piece = sent.recv().await?;
            Some((
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(piece.as_bytes()))),
                sent,
            ))
        });
        let connect = || async {
            let stream = TcpStream::connect(streams_at).await.unwrap();
            let io = TokioIo::new(stream);
            hyper::client::conn::http2::handshake::<_, _, AnyBody>(TokioExecutor::new(), io)
                .await
                .unwrap()
        };
        let (mut sender, connection) = connect().await;
        let streaming = tokio::spawn(connection);
        let request = Request::post("http://test/")
            .body(StreamBody::new(body).boxed_unsync())
            .unwrap();
        pieces.send("one").await.unwrap();
        let mut answer = sender
            .send_request(request)
            .await
            .unwrap()
            .into_body()
            .into_data_stream();
        assert_eq!(answer.next().await.unwrap().unwrap(), "one");
        let (mut quiet, connection) = connect().await;
        let quiet_ends = tokio::spawn(connection);
        let request = Request::get("http://test/").body(whole("")).unwrap();
        quiet
            .send_request(request)
            .await
            .unwrap()
            .into_body()
            .collect()
            .await
            .unwrap();
        let mut idle = TcpStream::connect(idle_at).await.unwrap();
        assert_eq!(header(&ask(&mut idle).await.0, "connection"), None);

        following.follow(&inbounds(&[stays]));
        for address in [held_at, idle_at, streams_at] {
            refuses(address).await;
        }
        // The idle ones are closed without an error: GOAWAY and an end.
        assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
        tokio::time::timeout(PATIENCE, quiet_ends)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        let draining = |address: SocketAddr| (address.to_string(), "draining".to_owned());
        let shown = following.shown().await;
        assert!(
            shown.contains(&draining(held_at)) && shown.contains(&draining(streams_at)),
            "{shown:?}"
        );
        // The port is free, whatever goes on.
        let mut again = Err(io::ErrorKind::AddrInUse.into());
        while let Err(error) = &again {
            assert_eq!(io::Error::kind(error), io::ErrorKind::AddrInUse);
            again = TcpListener::bind(held_at).await;
        }
        drop(again);
        // What is in flight ends by itself.
        pieces.send("two").await.unwrap();
        assert_eq!(answer.next().await.unwrap().unwrap(), "two");
        drop(pieces);
        while let Some(rest) = answer.next().await {
            assert_eq!(rest.unwrap(), "");
        }
        tokio::time::timeout(PATIENCE, streaming)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert!(!asking.is_finished());
        go.send_replace(true);
        let (head, body) = asking.await.unwrap();
        let said = (status(&head), header(&head, "connection"), body.as_str());
        assert_eq!(said, (200, Some("close"), "finished"));
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while following.shown().await.len() > 1 {
            assert!(tokio::time::Instant::now() < deadline, "it does not end");
        }
        // It can come back.
        following.follow(&inbounds(&all));
        assert_eq!(get(held_at, "/").await.1, "finished");
        assert_eq!(get(first, "/").await.1, "kept");
        stop(following.proxy).await;
    });
}

#[test]
fn a_removed_listener_waits_no_longer_than_it_may() {
    block_on(async {
        let (_go, gone) = watch::channel(false);
        let (app, kept) = (held(&gone).await, App::named("kept").await);
        let (first, second) = (nobody().await, nobody().await);
        let following = Following::start(&inbounds(&[(first, kept.address), (second, app.address)]));
        let mut stuck = TcpStream::connect(second).await.unwrap();
        stuck.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
        eventually("the request is in flight", || app.requests() == 1).await;
        following.follow(&format!("drain_seconds: 0\n{}", inbounds(&[(first, kept.address)])));
        let closed = tokio::time::timeout(PATIENCE, stuck.read(&mut [0])).await;
        assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
        recorded(following.proxy.telemetry(), 1).await;
        let metrics = following.proxy.metrics();
        // Cut off by the proxy (`LR`), and not left by its caller (`DC`).
        assert_eq!((flag(&metrics, "LR"), flag(&metrics, "DC")), (1, 0), "{metrics}");
        assert_eq!(get(first, "/").await.1, "kept");
        stop(following.proxy).await;
    });
}

#[test]
fn an_address_that_is_taken_changes_nothing() {
    block_on(async {
        let (one, two) = (App::named("one").await, App::named("two").await);
        let (first, second, free) = (nobody().await, nobody().await, nobody().await);
        let (taker, taken) = listen().await;
        let following = Following::start(&inbounds(&[(first, one.address), (second, one.address)]));
        let mut kept = TcpStream::connect(second).await.unwrap();
        assert_eq!(ask(&mut kept).await.1, "one");
        // A destination changes, a listener goes, one comes, and one cannot.
        let wanted = inbounds(&[(first, two.address), (free, two.address)]) + &outbound(taken, two.address);
        let Reloaded::Refused { message } = following.reload(&wanted) else {
            panic!("a taken address is listened on")
        };
        let expected = format!("the outbound listener of stock: {taken} is in use by another process");
        assert!(
            message.starts_with(&expected) && message.contains("`outbound.listen`"),
            "{message}"
        );
        assert_eq!(get(first, "/").await.1, "one");
        assert_eq!(ask(&mut kept).await.1, "one");
        assert_eq!(get(second, "/").await.1, "one");
        refuses(free).await;
        assert_eq!(following.proxy.addresses().inbound, [first, second]);
        let (_, page) = get(following.proxy.addresses().admin, "/config").await;
        assert!(page.contains(&expected) && !page.contains(&free.to_string()), "{page}");
        drop(taker);
        following.follow(&wanted);
        assert_eq!(get(taken, "/").await.1, "two");
        assert_eq!(get(first, "/").await.1, "two");
        refuses(second).await;
        stop(following.proxy).await;
    });
}

#[test]
fn a_listener_can_take_over_an_address_that_overlaps_with_its_old_one() {
    block_on(async {
        let (one, two) = (App::named("one").await, App::named("two").await);
        let narrow = nobody().await;
        let wide = SocketAddr::from(([0, 0, 0, 0], narrow.port()));
        let following = Following::start(&inbounds(&[(narrow, one.address)]));
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let answers = |name: &'static str| async move {
            // The old sockets are there for a moment more, and answer until they are gone.
            while get(narrow, "/").await.1 != name {
                assert!(tokio::time::Instant::now() < deadline, "{name} does not answer");
            }
        };
        for _ in 0..3 {
            following.follow(&inbounds(&[(wide, two.address)]));
            answers("two").await;
            following.follow(&inbounds(&[(narrow, one.address)]));
            answers("one").await;
            following.follow(&outbound(narrow, two.address));
            answers("two").await;
        }
        stop(following.proxy).await;
    });
}
