//! Webhooks, Alertmanager and scrape targets behind TLS terminators: reached with the right certificates, and what is wrong is said.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use axum::{Router, http::StatusCode, routing::get};
use emberline_client::Tls;
use emberline_collector::{CollectorConfig, scrape};
use emberline_model::time::{Clock, SystemClock};
use emberline_terminator::{Authority, Fault, Terminator};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::{
    notifications::Recorder,
    support::{
        Server,
        canary::{self, judge_after, play},
        eventually,
    },
};

/// Writes the CA and a certificate of our own; the settings.
fn settings(folder: &Path, authority: &Authority) -> Tls {
    let ca_file = folder.join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    let (cert, key) = authority.certificate(&["emberline"]).write(folder, "own");
    Tls {
        ca_file: Some(ca_file),
        cert_file: Some(cert),
        key_file: Some(key),
        server_name: None,
    }
}

/// Plays a release that got slower, and has it judged.
async fn alert(change: impl FnOnce(&mut CollectorConfig)) -> Server {
    let mut server = Server::start(change).await;
    play(&server, 0, 14, 4.0, i64::MAX).await;
    server.spawn_tasks();
    judge_after(&server, &server.collector, 13).await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_reach_receivers_that_demand_a_client_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let certificate = authority.certificate(&["localhost"]);
    let (alertmanager, am_plain) = Recorder::start(0, StatusCode::OK).await;
    let (webhook, hook_plain) = Recorder::start(0, StatusCode::OK).await;
    let am = Terminator::start(am_plain, &certificate, Some(&authority));
    let hook = Terminator::start(hook_plain, &certificate, Some(&authority));
    let server = alert(|config| {
        config.alertmanager_urls = vec![am.url("localhost")];
        config.alertmanager_tls = settings(folder.path(), &authority);
        config.webhook_urls = vec![format!("{}/hook?key=1", hook.url("localhost"))];
        config.webhook_tls = settings(folder.path(), &authority);
    })
    .await;
    let (path, _) = alertmanager
        .hears("the alert fires at Alertmanager", Value::is_array)
        .await;
    assert_eq!(path, "/api/v2/alerts");
    let (path, _) = webhook
        .hears("the alert fires at the webhook", |body| body["event"] == "firing")
        .await;
    assert_eq!(path, "/hook");
    assert!(am.accepted() >= 1 && hook.accepted() >= 1);
    server.stop().await;
}

/// Alertmanager itself, as Debian packages it; ended when dropped.
struct Alertmanager {
    child: Child,
    address: SocketAddr,
}

impl Alertmanager {
    /// Starts what `make test` fetches; none where that, or the namespace it needs, is missing.
    fn start(folder: &Path, webhook: SocketAddr) -> Option<Alertmanager> {
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../third_party/alertmanager");
        let config = folder.join("alertmanager.yml");
        let text = format!(
            "route: {{receiver: hook, group_wait: 0s}}\nreceivers: [{{name: hook, webhook_configs: [{{url: \"http://{webhook}/\"}}]}}]\n"
        );
        std::fs::write(&config, text).unwrap();
        // Debian's build reads its templates from /usr/share and from nowhere else.
        let script = r#"mount --bind "$0/share" /usr/share && exec "$0/bin/prometheus-alertmanager" "$@""#;
        let mut child = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", script])
            .arg(&package)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", folder.join("alertmanager").display()))
            .args(["--web.listen-address=127.0.0.1:0", "--cluster.listen-address="])
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        let mut lines = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let address = lines.find_map(|line| {
            let (_, address) = line.split_once("msg=\"Listening on\" address=")?;
            address.trim().parse().ok()
        });
        // It would stop at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let Some(address) = address else {
            child.wait().unwrap();
            return None;
        };
        Some(Alertmanager { child, address })
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alertmanager_itself_shows_and_forwards_an_alert_that_came_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (webhook, plain) = Recorder::start(0, StatusCode::OK).await;
    let Some(alertmanager) = Alertmanager::start(folder.path(), plain) else {
        println!(
            "skipped: no Alertmanager runs here; `make test` fetches it where apt can (Debian's package prometheus-alertmanager)"
        );
        return;
    };
    let authority = Authority::new();
    let certificate = authority.certificate(&["localhost"]);
    let front = Terminator::start(alertmanager.address, &certificate, Some(&authority));
    let mut server = Server::start(|config| {
        config.alertmanager_urls = vec![front.url("localhost")];
        config.alertmanager_tls = settings(folder.path(), &authority);
    })
    .await;
    // Alertmanager does not forward what ended in the past, and its clock goes.
    let now = SystemClock.now_unix_s();
    server.clock.set(now);
    let later = (now - canary::start(15)) / 10 * 10;
    for number in 0..14 {
        let mut windows = canary::windows(number, 4.0, number >= canary::CANARY_STARTS);
        for window in &mut windows {
            window.start_unix_s += later;
            for profile in &mut window.profiles {
                profile.start_unix_ns += later * 1_000_000_000;
            }
        }
        server.append(windows).await;
    }
    server.spawn_tasks();
    server.collector.judge_now().await.unwrap();
    let (_, sent) = webhook
        .hears("Alertmanager forwards the alert", |body| body["status"] == "firing")
        .await;
    let alert = &sent["alerts"][0];
    assert_eq!(alert["labels"]["alertname"], "EmberlineLatencyRegression", "{sent}");
    assert_eq!(alert["annotations"]["function"], canary::GUILTY, "{sent}");
    assert!(front.accepted() >= 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_waits_until_the_certificate_of_its_receiver_is_renewed() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (webhook, plain) = Recorder::start(0, StatusCode::OK).await;
    let hook = Terminator::start(plain, &authority.faulty(&["localhost"], Fault::Expired), None);
    let server = alert(|config| {
        config.webhook_urls = vec![hook.url("localhost")];
        config.webhook_tls = settings(folder.path(), &authority);
    })
    .await;
    eventually("an attempt fails", || async {
        let mut registry = prometheus_client::registry::Registry::default();
        server.collector.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text.lines()
            .any(|line| line.contains("notifications") && line.contains("retried"))
            .then_some(())
    })
    .await;
    assert_eq!((webhook.count(), hook.accepted()), (0, 0));
    hook.renew(&authority.certificate(&["localhost"]), None);
    webhook
        .hears("the alert fires at the webhook", |body| body["event"] == "firing")
        .await;
    server.stop().await;
}

/// A program with one profile.
async fn program() -> SocketAddr {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/go/goroutine.pb.gz");
    let file = std::fs::read(file).unwrap();
    let router = Router::new().route("/debug/pprof/goroutine", get(move || async move { file }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

/// How the one profile of a server does.
async fn state(server: &Server, wanted: &str) -> Value {
    eventually("a scrape", || async {
        let status = server.collector.status_probe()();
        let row = status["scrape"]["targets"][0].clone();
        (row["state"] == wanted).then_some(row)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_scraped_over_https_and_what_is_wrong_with_its_certificate_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    settings(folder.path(), &authority);
    let good = authority.certificate(&["shop.example"]);
    let target = Terminator::start(program().await, &good, Some(&authority));
    let yaml = format!(
        "scrape_configs:\n  - job_name: shop\n    scheme: https\n    tls_config: {{ca_file: ca.pem, cert_file: own.crt, key_file: \
         own.key, server_name: shop.example}}\n    scrape_interval: 200ms\n    scrape_timeout: 200ms\n    profiles: {{profile: \
         {{enabled: false}}, heap: {{enabled: false}}, mutex: {{enabled: false}}, block: {{enabled: false}}}}\n    static_configs: \
         [{{targets: ['{}'], labels: {{version: v1}}}}]\n",
        target.address
    );
    let config = scrape::parse(&folder.path().join("scrape.yaml"), &yaml).unwrap();
    let mut server = Server::start(|settings| settings.scrape = Some(config)).await;
    server.spawn_tasks();
    let row = state(&server, "up").await;
    assert!(target.accepted() >= 1, "{row}");
    for (certificate, words) in [
        (authority.faulty(&["shop.example"], Fault::Expired), "expired on"),
        (
            authority.certificate(&["other.example"]),
            "it is for other.example; correct `server_name`",
        ),
        (Authority::new().certificate(&["shop.example"]), "`ca_file`"),
    ] {
        target.renew(&certificate, Some(&authority));
        let row = state(&server, "down").await;
        let error = row["last_error"].as_str().unwrap();
        assert!(error.contains(words), "{error}");
        target.renew(&good, Some(&authority));
        state(&server, "up").await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_used_are_refused_at_the_start() {
    let server = Server::start(|_| {}).await;
    let missing = Tls {
        ca_file: Some("/nowhere/ca.pem".into()),
        ..Tls::default()
    };
    let start = |change: &dyn Fn(&mut CollectorConfig)| {
        let mut config = CollectorConfig::new(&server.dir);
        change(&mut config);
        let started = emberline_collector::Collector::new(config, server.store.clone(), server.clock.clone());
        started.map(|_| ()).unwrap_err().to_string()
    };
    let error = start(&|config| config.webhook_tls = missing.clone());
    assert!(
        error.contains("TLS settings of the webhook: cannot read `ca_file` /nowhere/ca.pem"),
        "{error}"
    );
    let yaml = "scrape_configs: [{job_name: shop, scheme: https, tls_config: {ca_file: /nowhere/ca.pem}, static_configs: [{targets: [a]}]}]";
    let error = start(&|config| config.scrape = Some(scrape::parse(Path::new("scrape.yaml"), yaml).unwrap()));
    assert!(
        error.contains("`tls_config` of job `shop`") && error.contains("/nowhere/ca.pem"),
        "{error}"
    );
    server.stop().await;
}
