//! Reloads that change everything they can while callers of every kind go on.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use http::Request;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use super::{
    listeners::{Following, ask, echo_http2, inbounds},
    support::*,
    tcp,
};

/// Kinds of callers; the one that comes and goes is the last.
const KINDS: usize = 4;

type Load = super::load::Load<KINDS>;

/// A caller whose connection is kept.
async fn keep_alive(address: SocketAddr, load: Arc<Load>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    while load.goes_on() {
        let (head, _) = ask(&mut stream).await;
        assert_eq!((status(&head), header(&head, "connection")), (200, None), "{head}");
        load.count(0);
    }
}

/// Streams of one connection.
async fn streams(address: SocketAddr, load: Arc<Load>) {
    let mut sender = connect_http2(address).await;
    while load.goes_on() {
        let request = Request::post("http://test/").body(whole("echo")).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "echo");
        load.count(1);
    }
}

/// One connection of opaque bytes, and short ones.
async fn opaque(address: SocketAddr, load: Arc<Load>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    while load.goes_on() {
        for stream in [&mut stream, &mut TcpStream::connect(address).await.unwrap()] {
            stream.write_all(b"echo").await.unwrap();
            let mut back = [0; 4];
            stream.read_exact(&mut back).await.unwrap();
            assert_eq!(&back, b"echo");
        }
        load.count(2);
    }
}

/// A connection for each request to a listener that comes and goes: it is refused, or it is answered.
async fn passing(address: SocketAddr, load: Arc<Load>) {
    while load.goes_on() {
        match TcpStream::connect(address).await {
            Ok(mut stream) => {
                let (head, _) = ask(&mut stream).await;
                assert_eq!(status(&head), 200, "{head}");
                load.count(3);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}"),
        }
    }
}

#[test]
fn a_hundred_reloads_under_load_lose_no_request() {
    block_on(async {
        let (one, two, echo) = (App::named("one").await, App::named("two").await, echo_http2().await);
        let also_echo = echo_http2().await;
        let bytes = tcp::echo().await;
        let [http1, http2, tcp, passes, other] = [
            nobody().await,
            nobody().await,
            nobody().await,
            nobody().await,
            nobody().await,
        ];
        let text = |round: usize| {
            let (app, streams) = if round.is_multiple_of(2) {
                (&one, echo)
            } else {
                (&two, also_echo)
            };
            let mut entries = vec![(http1, app.address), (http2, streams)];
            // One that has callers of its own is away now and then, one without them in every other round.
            entries.extend((round % 20 != 19).then_some((passes, app.address)));
            entries.extend(round.is_multiple_of(2).then_some((other, app.address)));
            entries.rotate_left(round % 2);
            inbounds(&entries)
                + &format!(
                    "outbound: [{{listen: {tcp}, service: db, protocol: tcp, destinations: [{{address: {bytes}}}]}}]\n"
                )
        };
        let following = Following::start(&text(0));
        let (load, mut callers) = (Arc::new(Load::default()), JoinSet::new());
        for _ in 0..4 {
            callers.spawn(keep_alive(http1, Arc::clone(&load)));
            callers.spawn(streams(http2, Arc::clone(&load)));
            callers.spawn(opaque(tcp, Arc::clone(&load)));
            callers.spawn(passing(passes, Arc::clone(&load)));
        }
        for round in 1..=100 {
            following.follow(&text(round));
            // The kind that comes and goes is the last.
            load.moves(if round.is_multiple_of(20) { KINDS } else { KINDS - 1 })
                .await;
        }
        load.end();
        while let Some(caller) = callers.join_next().await {
            caller.unwrap();
        }
        assert!(one.requests() > 0 && two.requests() > 0);
        let totals = totals(following.proxy.telemetry());
        assert!(totals.iter().all(|series| !series.error), "{totals:#?}");
        let metrics = following.proxy.metrics();
        assert!(metric(&metrics, "emberline_proxy_config_reloads_total") >= 100);
        assert_eq!(metric(&metrics, "emberline_proxy_config_reloads_refused_total"), 0);
        assert!(stop(following.proxy).await.drained);
    });
}
