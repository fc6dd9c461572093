//! The program itself: arguments, signals, file descriptors.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::support::*;
use crate::siege;

/// A running program; killed when the test ends, however it ends.
pub(super) struct Running {
    pub(super) child: Child,
    pub(super) admin: SocketAddr,
    pub(super) inbound: SocketAddr,
    /// The second inbound listener, if there is one.
    second: Option<SocketAddr>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) const PROGRAM: &str = env!("CARGO_BIN_EXE_emberline-proxy");

/// Starts the program, through a shell that can set limits, and reads its addresses from its log.
fn run(folder: &std::path::Path, text: &str, limit: &str) -> Running {
    run_with(folder, text, limit, "")
}

/// The same with more arguments.
pub(super) fn run_with(folder: &std::path::Path, text: &str, limit: &str, arguments: &str) -> Running {
    let path = folder.join("proxy.yaml");
    std::fs::write(&path, text).unwrap();
    let mut child = Command::new("sh")
        .args([
            "-c",
            &format!("{limit} exec '{PROGRAM}' --config '{}' {arguments}", path.display()),
        ])
        .env("NO_COLOR", "1")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    loop {
        let before = line.len();
        assert!(log.read_line(&mut line).unwrap() > 0, "it ended: {line}");
        if line[before..].contains("running") {
            break;
        }
    }
    // The rest of the log is read, so that the program never waits for a reader.
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    let after = |word: &str| -> SocketAddr {
        let (_, rest) = line.split_once(word).unwrap_or_else(|| panic!("no {word} in {line}"));
        let end = rest.find([' ', ']', ',', '\n']).unwrap();
        rest[..end].parse().unwrap()
    };
    let (_, listeners) = line.split_once("inbound=[").unwrap();
    let (listeners, _) = listeners.split_once(']').unwrap();
    Running {
        admin: after("admin="),
        inbound: after("inbound=["),
        second: listeners.split(", ").nth(1).map(|second| second.parse().unwrap()),
        child,
    }
}

pub(super) fn signal(running: &Running, name: &str) {
    let done = Command::new("kill")
        .args([name, &running.child.id().to_string()])
        .status()
        .unwrap();
    assert!(done.success());
}

pub(super) async fn exit_code(running: &mut Running) -> Option<i32> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(status) = running.child.try_wait().unwrap() {
            return status.code();
        }
        assert!(tokio::time::Instant::now() < deadline, "the program does not end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_stop_lets_requests_in_flight_end_and_takes_no_new_ones() {
    block_on(async {
        let (go, gone) = tokio::sync::watch::channel(false);
        let app = App::start(move |_| {
            let mut gone = gone.clone();
            async move {
                gone.wait_for(|go| *go).await.unwrap();
                http::Response::new(http_body_util::Full::from("finished"))
            }
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let text = yaml(
            "cart",
            &format!("inbound: [{{listen: 127.0.0.1:0, to: {}}}]", app.address),
        );
        let mut running = run(folder.path(), &text, "");
        assert_eq!(get(running.admin, "/live").await.1, "live\n");
        assert_eq!(status(&get(running.admin, "/ready").await.0), 200);
        // One connection that is idle, one whose request is in flight.
        let mut idle = TcpStream::connect(running.inbound).await.unwrap();
        let asking = tokio::spawn(get(running.inbound, "/"));
        eventually("the request is in flight", || app.requests() == 1).await;
        signal(&running, "-TERM");
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while status(&get(running.admin, "/ready").await.0) != 503 {
            assert!(tokio::time::Instant::now() < deadline, "still ready");
        }
        while TcpStream::connect(running.inbound).await.is_ok() {
            assert!(tokio::time::Instant::now() < deadline, "still accepting");
        }
        let mut nothing = [0; 1];
        let closed = tokio::time::timeout(PATIENCE, tokio::io::AsyncReadExt::read(&mut idle, &mut nothing)).await;
        assert!(matches!(closed, Ok(Ok(0) | Err(_))), "the idle connection stays open");
        assert!(running.child.try_wait().unwrap().is_none(), "it did not wait");
        go.send_replace(true);
        let (head, body) = asking.await.unwrap();
        assert_eq!(
            (status(&head), header(&head, "connection"), body.as_str()),
            (200, Some("close"), "finished")
        );
        assert_eq!(exit_code(&mut running).await, Some(0));
    });
}

#[test]
fn a_stop_serves_on_for_the_drain_delay_and_is_not_ready() {
    block_on(async {
        let app = App::named("cart").await;
        let folder = tempfile::tempdir().unwrap();
        let text = yaml(
            "cart",
            &format!(
                "drain_delay_seconds: 3\ninbound: [{{listen: 127.0.0.1:0, to: {}}}]",
                app.address
            ),
        );
        let mut running = run(folder.path(), &text, "");
        let mut idle = TcpStream::connect(running.inbound).await.unwrap();
        signal(&running, "-TERM");
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while status(&get(running.admin, "/ready").await.0) != 503 {
            assert!(tokio::time::Instant::now() < deadline, "still ready");
        }
        assert_eq!(get(running.inbound, "/").await.1, "cart", "a new connection");
        idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(read_answer(&mut idle).await.1, "cart", "one that is open");
        assert_eq!(exit_code(&mut running).await, Some(0));
    });
}

#[test]
fn a_stop_does_not_wait_longer_than_it_may() {
    block_on(async {
        let silent = raw_app(|mut stream: TcpStream| async move {
            read_head(&mut stream).await;
            std::future::pending::<()>().await;
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let text = yaml(
            "cart",
            &format!("drain_seconds: 0\ninbound: [{{listen: 127.0.0.1:0, to: {silent}}}]"),
        );
        let mut running = run(folder.path(), &text, "");
        let mut stream = TcpStream::connect(running.inbound).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        signal(&running, "-INT");
        assert_eq!(exit_code(&mut running).await, Some(0));
    });
}

#[test]
fn file_descriptors_do_not_run_out() {
    block_on(async {
        let app = App::named("app").await;
        let folder = tempfile::tempdir().unwrap();
        let text = yaml(
            "cart",
            &format!("inbound: [{{listen: 127.0.0.1:0, to: {}}}]", app.address),
        );
        let running = run(folder.path(), &text, "ulimit -n 60;");
        let mut many = Vec::new();
        for _ in 0..100 {
            many.push(TcpStream::connect(running.inbound).await.unwrap());
        }
        assert_eq!(get(running.inbound, "/").await.1, "app", "the others make place");
        let metrics = get(running.admin, "/metrics").await.1;
        assert_eq!(metric(&metrics, "emberline_proxy_accept_errors_total"), 0, "{metrics}");
        assert!(metrics.contains("made_place"), "{metrics}");
        drop(many);
        assert_eq!(get(running.inbound, "/").await.1, "app");
    });
}

#[test]
fn a_hang_up_reads_the_configuration_again() {
    block_on(async {
        let (one, two) = (App::named("one").await, App::named("two").await);
        let folder = tempfile::tempdir().unwrap();
        let listen = nobody().await;
        let text = |to: SocketAddr| yaml("cart", &format!("inbound: [{{listen: {listen}, to: {to}}}]"));
        let running = run(folder.path(), &text(one.address), "");
        assert_eq!(get(listen, "/").await.1, "one");
        std::fs::write(folder.path().join("proxy.yaml"), text(two.address)).unwrap();
        signal(&running, "-HUP");
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while get(listen, "/").await.1 != "two" {
            assert!(
                tokio::time::Instant::now() < deadline,
                "the new destination is not used"
            );
        }
    });
}

#[test]
fn listeners_follow_the_file_and_a_hang_up() {
    block_on(async {
        let app = App::named("app").await;
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (nobody().await, nobody().await);
        let one = yaml("cart", &format!("inbound: [{{listen: {first}, to: {}}}]", app.address));
        let two = one.replace(
            "inbound: [",
            &format!("inbound: [{{listen: {second}, to: {}}}, ", app.address),
        );
        let running = run(folder.path(), &one, "");
        let path = folder.path().join("proxy.yaml");
        let deadline = tokio::time::Instant::now() + PATIENCE;
        for hangs_up in [true, false] {
            for (text, accepts) in [(&two, true), (&one, false)] {
                std::fs::write(&path, text).unwrap();
                if hangs_up {
                    signal(&running, "-HUP");
                }
                while TcpStream::connect(second).await.is_ok() != accepts {
                    assert!(tokio::time::Instant::now() < deadline, "the file is not followed");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                assert_eq!(get(first, "/").await.1, "app");
                if accepts {
                    assert_eq!(get(second, "/").await.1, "app");
                }
            }
        }
    });
}

#[test]
fn what_keeps_it_from_starting_is_said() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.yaml");
        let start = |text: &str, more: &[&str]| {
            std::fs::write(&path, text).unwrap();
            Command::new(PROGRAM)
                .arg("--config")
                .arg(&path)
                .args(more)
                .output()
                .unwrap()
        };
        let text = |output: &[u8]| String::from_utf8_lossy(output).into_owned();
        let (_taken, address) = listen().await;
        let good = yaml("cart", &format!("inbound: [{{listen: {address}, to: 127.0.0.1:1}}]"));
        let output = start(&good, &[]);
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        assert!(
            said.contains(&format!("an inbound listener: {address} is in use by another process"))
                && said.contains("set another port in `inbound.listen`"),
            "{said}"
        );
        let output = start(&good, &["--check"]);
        assert!(output.status.success() && text(&output.stdout).contains("configuration is valid"));
        let output = start(&good.replace("inbound", "inbuond"), &["--check"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(
            text(&output.stderr).contains("did you mean `inbound`?"),
            "{}",
            text(&output.stderr)
        );
        let output = Command::new(PROGRAM).arg("--version").output().unwrap();
        assert!(text(&output.stdout).starts_with("emberline-proxy "));
    });
}

#[test]
fn the_admin_port_shows_metrics_configuration_and_a_profile() {
    block_on(async {
        let app = App::named("app").await;
        let folder = tempfile::tempdir().unwrap();
        let text = yaml(
            "cart",
            &format!(
                "routes: [\"/\"]\ninbound: [{{listen: 127.0.0.1:0, to: {}}}]",
                app.address
            ),
        )
        .replace("enabled: false", "enabled: true");
        let running = run(folder.path(), &text, "");
        for _ in 0..50 {
            get(running.inbound, "/").await;
        }
        let page = |path: &str| {
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let admin = running.admin;
            async move { send_raw(admin, request.as_bytes()).await }
        };
        let metrics = page("/metrics").await;
        let requests = "emberline_proxy_requests_total{side=\"server\",route=\"/\",method=\"GET\",protocol=\"http/1.1\",\
                        status=\"200\",error=\"false\",destination=\"\",peer_namespace=\"\",peer_service=\"\",peer_version=\"\"}";
        assert_eq!(metric(&metrics, requests), 50, "{metrics}");
        assert!(metrics.trim_end().ends_with("# EOF"));
        let config = page("/config").await;
        let (_, json) = config.split_once("\r\n\r\n").unwrap();
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(json["config"]["workload"]["service"], "cart");
        assert_eq!(status(&page("/profile").await), 200);
        assert_eq!(status(&page("/nothing").await), 404);
        assert_eq!(
            status(
                &send_raw(
                    running.admin,
                    b"POST /live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
                )
                .await
            ),
            405
        );
    });
}

#[test]
fn a_siege_does_not_bring_the_program_down() {
    block_on(async {
        let (answering, stuck) = (siege::answering_app().await, siege::stuck_app().await);
        let folder = tempfile::tempdir().unwrap();
        // What a container of 64 MiB gives it.
        let text = yaml(
            "cart",
            &format!(
                "limits: {{memory_bytes: 20971520, keep_alive_ms: 5000, header_ms: 2000}}\nroutes: [\"/\", \"/big\"]\n\
                 inbound: [{{listen: 127.0.0.1:0, to: {answering}}}, {{listen: 127.0.0.1:0, to: {stuck}}}]"
            ),
        );
        let mut running = run(folder.path(), &text, "ulimit -n 1024;");
        let target = siege::Target {
            answering: running.inbound,
            stuck: running.second.unwrap(),
            admin: running.admin,
            at_a_time: 120,
            in_all: 1_000,
        };
        let (how_long, done) = (Duration::from_secs(6), Arc::<siege::Done>::default());
        let laid = tokio::spawn(siege::lay(target, how_long, Arc::clone(&done)));
        let every = Duration::from_millis(5);
        let (caller, probe) = tokio::join!(
            siege::behave(target.answering, "/", every, how_long),
            siege::behave(target.admin, "/ready", 10 * every, how_long)
        );
        laid.await.unwrap();
        assert!(running.child.try_wait().unwrap().is_none(), "it has ended");
        let metrics = get(running.admin, "/metrics").await.1;
        let said = metrics
            .lines()
            .filter(|l| l.contains("overloads_total") || l.contains("broken_total"));
        let said: Vec<&str> = said.collect();
        assert_eq!(probe.failed, 0, "{said:#?}");
        assert!(
            !caller.latencies.is_empty() && caller.failed == 0,
            "{}: {said:#?}",
            caller.failed
        );
        let reasons = ["made_place", "overloads"];
        assert!(reasons.iter().all(|reason| metrics.contains(reason)), "{said:#?}");
        let status = std::fs::read_to_string(format!("/proc/{}/status", running.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak_kb: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        println!("peak {peak_kb} kB, p99 {:.1} ms, {done:?}", caller.quantile_ms(0.99));
        assert!(peak_kb < 64 << 10, "{peak_kb} kB: {said:#?}");
    });
}
