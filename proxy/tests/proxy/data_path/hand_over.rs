//! A process whose listeners another one takes over: no request is lost, and what is open goes on.

use std::{
    net::SocketAddr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Request;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use super::{
    listeners::{ask, echo_http2},
    process::{PROGRAM, Running, exit_code, run_with},
    support::*,
    tcp,
};

const KINDS: usize = 5;

type Load = super::load::Load<KINDS>;

/// Counts in `told` how often it was told to connect anew.
async fn keep_alive(address: SocketAddr, load: Arc<Load>, told: Arc<AtomicUsize>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    while load.goes_on() {
        let (head, _) = ask(&mut stream).await;
        assert_eq!(status(&head), 200, "{head}");
        load.count(0);
        if header(&head, "connection") == Some("close") {
            told.fetch_add(1, Ordering::SeqCst);
            stream = TcpStream::connect(address).await.unwrap();
        }
    }
}

async fn passing(address: SocketAddr, load: Arc<Load>) {
    while load.goes_on() {
        let (head, _) = ask(&mut TcpStream::connect(address).await.unwrap()).await;
        assert_eq!(status(&head), 200, "{head}");
        load.count(1);
    }
}

async fn streams(address: SocketAddr, load: Arc<Load>) {
    let mut sender = connect_http2(address).await;
    while load.goes_on() {
        if sender.ready().await.is_err() {
            sender = connect_http2(address).await;
        }
        let request = Request::post("http://test/").body(whole("echo")).unwrap();
        match sender.send_request(request).await {
            Ok(response) => {
                assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "echo");
                load.count(2);
            }
            // It never left this side: the connection is about to end.
            Err(error) => assert!(error.is_canceled() || is_goaway(&error), "{error:?}"),
        }
    }
}

/// Whether a request was not sent because the other side said that it takes no more.
fn is_goaway(error: &hyper::Error) -> bool {
    let of_http2 = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    of_http2.is_some_and(|error| error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR))
}

async fn short_opaque(address: SocketAddr, load: Arc<Load>) {
    while load.goes_on() {
        echoed(&mut TcpStream::connect(address).await.unwrap()).await;
        load.count(3);
    }
}

async fn probe(admin: SocketAddr, load: Arc<Load>) {
    while load.goes_on() {
        assert_eq!(status(&get(admin, "/ready").await.0), 200);
        load.count(4);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn echoed(stream: &mut TcpStream) {
    stream.write_all(b"echo").await.unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"echo");
}

fn take_over(other: &Running) -> String {
    format!("--take-over {}", other.child.id())
}

#[test]
fn a_hundred_hand_overs_under_load_fail_no_request() {
    block_on_within(10 * PATIENCE, async {
        let (app, echo, bytes) = (App::named("one").await, echo_http2().await, tcp::echo().await);
        let [admin, http1, http2, tcp] = [nobody().await, nobody().await, nobody().await, nobody().await];
        let text = format!(
            "workload: {{service: cart, version: v1}}\nworkers: 2\nadmin: {admin}\nprofiler: {{enabled: false}}\n\
             inbound: [{{listen: {http1}, to: {}}}, {{listen: {http2}, to: {echo}}}]\n\
             outbound: [{{listen: {tcp}, service: db, protocol: tcp, destinations: [{{address: {bytes}}}]}}]\n",
            app.address
        );
        let folder = tempfile::tempdir().unwrap();
        let mut current = run_with(folder.path(), &text, "", "");
        let (load, mut callers) = (Arc::new(Load::default()), JoinSet::new());
        let told = Arc::new(AtomicUsize::new(0));
        for _ in 0..3 {
            callers.spawn(keep_alive(http1, Arc::clone(&load), Arc::clone(&told)));
            callers.spawn(passing(http1, Arc::clone(&load)));
            callers.spawn(streams(http2, Arc::clone(&load)));
            callers.spawn(short_opaque(tcp, Arc::clone(&load)));
        }
        callers.spawn(probe(admin, Arc::clone(&load)));
        let mut long = TcpStream::connect(tcp).await.unwrap();
        let mut leaving = Vec::new();
        for _ in 0..100 {
            let next = run_with(folder.path(), &text, "", &take_over(&current));
            leaving.push(std::mem::replace(&mut current, next));
            load.moves(KINDS).await;
            echoed(&mut long).await;
        }
        load.end();
        while let Some(caller) = callers.join_next().await {
            caller.unwrap();
        }
        // The first has the long stream; the others end by themselves.
        for other in &mut leaving[1..] {
            assert_eq!(exit_code(other).await, Some(0));
        }
        assert!(leaving[0].child.try_wait().unwrap().is_none());
        echoed(&mut long).await;
        drop(long);
        assert_eq!(exit_code(&mut leaving[0]).await, Some(0));
        let [kept, passed, ..] = load.counts();
        assert_eq!(app.requests(), kept + passed, "each request once");
        assert!(told.load(Ordering::SeqCst) >= 100);
    });
}

#[test]
fn an_idle_connection_outlives_a_hand_over_and_is_left_with_its_next_response() {
    block_on(async {
        let app = App::named("one").await;
        let (admin, inbound) = (nobody().await, nobody().await);
        let text = format!(
            "workload: {{service: cart, version: v1}}\nadmin: {admin}\ninbound: [{{listen: {inbound}, to: {}}}]\n",
            app.address
        );
        let folder = tempfile::tempdir().unwrap();
        let mut first = run_with(folder.path(), &text, "", "");
        let mut idle = TcpStream::connect(inbound).await.unwrap();
        let (head, _) = ask(&mut idle).await;
        assert_eq!(header(&head, "connection"), None);
        let _second = run_with(folder.path(), &text, "", &take_over(&first));
        // Longer than a socket needs to close.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (head, _) = ask(&mut idle).await;
        assert_eq!((status(&head), header(&head, "connection")), (200, Some("close")));
        assert_eq!(exit_code(&mut first).await, Some(0));
        assert_eq!(status(&get(inbound, "/").await.0), 200);
    });
}

#[test]
fn a_second_signal_ends_a_process_that_was_handed_over() {
    block_on(async {
        let bytes = tcp::echo().await;
        let (admin, tcp) = (nobody().await, nobody().await);
        let text = format!(
            "workload: {{service: cart, version: v1}}\nadmin: {admin}\ndrain_seconds: 0\n\
             inbound: [{{listen: {}, to: {bytes}}}]\n\
             outbound: [{{listen: {tcp}, service: db, protocol: tcp, destinations: [{{address: {bytes}}}]}}]\n",
            nobody().await
        );
        let folder = tempfile::tempdir().unwrap();
        let mut first = run_with(folder.path(), &text, "", "");
        let mut long = TcpStream::connect(tcp).await.unwrap();
        echoed(&mut long).await;
        let _second = run_with(folder.path(), &text, "", &take_over(&first));
        echoed(&mut long).await;
        super::process::signal(&first, "-TERM");
        assert_eq!(exit_code(&mut first).await, Some(0));
        assert!(matches!(long.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    });
}

#[test]
fn a_proxy_that_listens_elsewhere_is_not_taken_over_and_no_address_of_others_is_shared() {
    block_on(async {
        let app = App::named("one").await;
        let text = |admin: SocketAddr, listen: &[SocketAddr]| {
            let entries: Vec<String> = listen
                .iter()
                .map(|at| format!("{{listen: {at}, to: {}}}", app.address))
                .collect();
            format!(
                "workload: {{service: cart, version: v1}}\nadmin: {admin}\ninbound: [{}]\n",
                entries.join(", ")
            )
        };
        let (one, other, new) = (nobody().await, nobody().await, nobody().await);
        let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let first = run_with(folders[0].path(), &text(nobody().await, &[one]), "", "");
        let second = run_with(folders[1].path(), &text(nobody().await, &[other]), "", "");
        let fails = async |listen: &[SocketAddr], expected: &str| {
            let path = folders[2].path().join("proxy.yaml");
            std::fs::write(&path, text(nobody().await, listen)).unwrap();
            let output = Command::new(PROGRAM)
                .args(["--config".as_ref(), path.as_os_str()])
                .arg(format!("--take-over={}", first.child.id()))
                .output()
                .unwrap();
            let words = String::from_utf8_lossy(&output.stderr);
            assert!(words.contains(expected), "{words}");
        };
        fails(&[new], "listens on no address of this configuration").await;
        fails(&[one, other], "is in use by another process").await;
        for at in [one, other] {
            assert_eq!(status(&get(at, "/").await.0), 200);
        }
        drop((first, second));
    });
}

#[test]
fn only_a_proxy_can_be_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.yaml");
    std::fs::write(&path, yaml("cart", "inbound: [{listen: 127.0.0.1:0, to: 127.0.0.1:9}]")).unwrap();
    for pid in [std::process::id() as i32, 0, -1, i32::MAX] {
        let output = Command::new(PROGRAM)
            .args(["--config".as_ref(), path.as_os_str()])
            .arg(format!("--take-over={pid}"))
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(
            words.contains(&format!("no emberline-proxy that can hand over runs as process {pid}")),
            "{words}"
        );
        assert_eq!(output.status.code(), Some(1));
    }
}
