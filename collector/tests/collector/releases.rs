//! Releases on ordinary days: processes come and go, releases are fixed, rolled back, scaled to zero and deleted. Which one is
//! new stays a fact, every alert that fired ends with a word, and a cold start pages nobody.

use std::{path::Path, sync::Arc, time::Duration};

use axum::http::StatusCode;
use emberline_collector::{CollectorConfig, VerdictConfig};
use emberline_model::{
    Side, WorkloadWindow,
    alert::{Alert, AlertStatus},
};
use serde_json::Value;

use crate::{
    notifications::Recorder,
    support::{ManualClock, Numbers, Server, T0, eventually, release, series, window},
};

/// Windows of one process: `requests` around a median, from number `from` up to `to`.
fn process(version: &str, instance: &str, from: i64, to: i64, median_ms: f64) -> Vec<WorkloadWindow> {
    (from..to)
        .map(|n| one_window(version, instance, n, 60, median_ms))
        .collect()
}

fn one_window(version: &str, instance: &str, n: i64, requests: usize, median_ms: f64) -> WorkloadWindow {
    let mut numbers = Numbers(n as u64 * 7_919 + instance.len() as u64 * 31 + 3);
    let mut all = window("pay", version, T0 + n * 10);
    all.workload.instance = instance.to_owned();
    all.has_profiles = false;
    let peer = Some(release("frontend", "v1"));
    all.requests = vec![series(
        Side::Server,
        "/pay",
        peer,
        &numbers.durations(requests, median_ms),
    )];
    all
}

/// Appends windows in the order of time, and makes them visible.
async fn send(server: &Server, mut windows: Vec<WorkloadWindow>) {
    windows.sort_by_key(|window| window.start_unix_s);
    for minute in windows.chunk_by(|a, b| a.start_unix_s / 60 == b.start_unix_s / 60) {
        let end = minute.iter().map(|window| window.start_unix_s + 10).max().unwrap();
        server.clock.set(end + 2);
        server.append(minute.to_vec()).await;
    }
    server.store.flush_applied().await.unwrap();
}

/// The alerts when window `last` has ended and its batches are there.
async fn judge_after(server: &Server, last: i64) -> Vec<Alert> {
    server.clock.set(T0 + (last + 1) * 10 + 5);
    server.collector.judge_now().await.unwrap()
}

fn board(alerts: &[Alert]) -> Vec<(&str, &str, AlertStatus)> {
    let mut all = Vec::new();
    for alert in alerts {
        all.push((alert.baseline.as_str(), alert.candidate.as_str(), alert.state));
    }
    all
}

/// No stacks are sent here, so there are no names to wait for.
fn at_once(config: &mut CollectorConfig) {
    config.verdict.wait_for_symbols = Duration::ZERO;
}

/// How Alertmanager reads a moment of the day of the tests.
fn written(unix_ms: i64) -> String {
    let s = 14 * 3600 + 13 * 60 + 20 + unix_ms / 1000 - T0;
    format!("2026-09-21T{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_process_of_the_baseline_does_not_make_it_the_new_release() {
    for (v1_ms, v2_ms, is_slow) in [(5.0, 40.0, true), (40.0, 5.0, false)] {
        let server = Server::start(at_once).await;
        // The canary has run for 100 minutes; the process of v1 was replaced 66 minutes ago.
        let mut all = process("v1", "v1-a", 0, 504, v1_ms);
        all.extend(process("v1", "v1-b", 504, 900, v1_ms));
        all.extend(process("v2", "v2-a", 300, 900, v2_ms));
        send(&server, all).await;
        let alerts = judge_after(&server, 899).await;
        let expected: &[_] = if is_slow {
            &[("v1", "v2", AlertStatus::Firing)]
        } else {
            &[]
        };
        assert_eq!(board(&alerts), expected, "v1 {v1_ms} ms, v2 {v2_ms} ms");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_leaves_the_old_release_the_baseline() {
    let server = Server::start(at_once).await;
    let mut all = process("v1", "a", 0, 60, 5.0);
    all.extend(process("v2", "b", 60, 90, 40.0));
    all.extend(process("v1", "c", 90, 130, 5.0));
    send(&server, all).await;
    assert_eq!(
        board(&judge_after(&server, 85).await),
        [("v1", "v2", AlertStatus::Firing)]
    );
    let alerts = judge_after(&server, 129).await;
    assert_eq!(board(&alerts), [("v1", "v2", AlertStatus::Resolved)]);
    // The next one is compared with what it replaces, and not with what was rolled back.
    let mut all = process("v1", "c", 130, 190, 5.0);
    all.extend(process("v3", "d", 150, 190, 40.0));
    send(&server, all).await;
    let alerts = judge_after(&server, 189).await;
    assert_eq!(board(&alerts)[0], ("v1", "v3", AlertStatus::Firing));
    server.stop().await;
}

/// What happens to the slow release after it fired, in windows 90 to 160.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Hotfix,
    Rollback,
    ScaledToZero,
    Deleted,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_alert_that_fired_ends_with_a_word() {
    for end in [End::Hotfix, End::Rollback, End::ScaledToZero, End::Deleted] {
        for restart in [false, true] {
            ends_with_a_word(end, restart).await;
        }
    }
}

async fn start(dir: &Path, clock: &Arc<ManualClock>, webhook: &str, alertmanager: &str) -> Server {
    let (webhook, alertmanager) = (webhook.to_owned(), alertmanager.to_owned());
    Server::start_in(dir.to_owned(), clock.clone(), move |config| {
        config.webhook_urls = vec![webhook];
        config.alertmanager_urls = vec![alertmanager];
        at_once(config);
    })
    .await
}

async fn ends_with_a_word(end: End, restart: bool) {
    let (webhook, hook_address) = Recorder::start(0, StatusCode::OK).await;
    let (alertmanager, am_address) = Recorder::start(0, StatusCode::OK).await;
    let (hook_url, am_url) = (format!("http://{hook_address}/"), format!("http://{am_address}"));
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(T0 + 60);
    let mut server = start(dir.path(), &clock, &hook_url, &am_url).await;
    let mut all = process("v1", "a", 0, 70, 5.0);
    all.extend(process("v2", "b", 60, 90, 40.0));
    send(&server, all).await;
    let firing = judge_after(&server, 85).await;
    assert_eq!(board(&firing), [("v1", "v2", AlertStatus::Firing)], "{end:?}");
    server.spawn_tasks();
    webhook.hears("it fires", |body| body["event"] == "firing").await;
    alertmanager.hears("it fires", Value::is_array).await;
    if restart {
        server.stop().await;
        server = start(dir.path(), &clock, &hook_url, &am_url).await;
        server.spawn_tasks();
    }
    match end {
        End::Hotfix => send(&server, process("v3", "c", 88, 160, 5.0)).await,
        End::Rollback => send(&server, process("v1", "c", 88, 160, 5.0)).await,
        End::ScaledToZero => {}
        End::Deleted => {
            server.store.delete_service("demo", "pay", &mut |_| {}).await.unwrap();
        }
    }
    let mut over = Vec::new();
    for last in [95, 121, 140, 159] {
        over = judge_after(&server, last).await;
    }
    assert_eq!(board(&over), [("v1", "v2", AlertStatus::Resolved)], "{end:?}");
    assert_eq!((&over[0].id, over[0].started_ms), (&firing[0].id, firing[0].started_ms));
    assert_eq!(over[0].ended_reason.is_some(), end == End::Deleted, "{over:?}");
    let (_, told) = webhook
        .hears("the webhook hears of the end", |body| body["event"] == "resolved")
        .await;
    assert_eq!(told["alert"]["id"], firing[0].id.as_str());
    let ended = written(over[0].resolved_ms.unwrap());
    alertmanager
        .hears("Alertmanager hears of the end", |body| {
            let ends = body[0]["endsAt"].as_str().unwrap_or_default();
            body[0]["labels"]["version"] == "v2" && ends.starts_with(&ended)
        })
        .await;
    server.stop().await;
    // Whoever was told is not told again, neither of the end nor of the beginning.
    let mut server = start(dir.path(), &clock, &hook_url, &am_url).await;
    server.spawn_tasks();
    let mut all = process("v1", "z", 160, 200, 5.0);
    all.extend(process("v9", "y", 166, 200, 40.0));
    send(&server, all).await;
    let alerts = judge_after(&server, 199).await;
    assert!(
        board(&alerts).contains(&("v1", "v2", AlertStatus::Resolved)),
        "{end:?} {alerts:?}"
    );
    webhook
        .hears("the next alert fires", |body| body["alert"]["candidate"] == "v9")
        .await;
    assert_eq!(webhook.count(), 3, "{end:?}, restart {restart}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_told_when_the_receiver_comes_back_after_a_restart() {
    // It hears that the alert fires, and is away then.
    let (webhook, address) = Recorder::start(0, StatusCode::OK).await;
    let url = format!("http://{address}/");
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(T0 + 60);
    let configure = |url: String| {
        move |config: &mut CollectorConfig| {
            config.webhook_urls = vec![url];
            at_once(config);
        }
    };
    let mut server = Server::start_in(dir.path().to_owned(), clock.clone(), configure(url.clone())).await;
    let mut all = process("v1", "a", 0, 90, 5.0);
    all.extend(process("v2", "b", 60, 90, 40.0));
    send(&server, all).await;
    judge_after(&server, 85).await;
    server.spawn_tasks();
    webhook.hears("it fires", |body| body["event"] == "firing").await;
    webhook.refuse_next(1, StatusCode::SERVICE_UNAVAILABLE);
    judge_after(&server, 140).await;
    eventually("the end was refused once", || async {
        webhook.refusals_left().eq(&0).then_some(())
    })
    .await;
    server.stop().await;
    // Hours later: the alert is not among the windows of the last hour any more.
    clock.set(T0 + 8 * 3600);
    let mut server = Server::start_in(dir.path().to_owned(), clock.clone(), configure(url)).await;
    server.spawn_tasks();
    webhook
        .hears("the end reaches the webhook", |body| body["event"] == "resolved")
        .await;
    server.stop().await;
}

/// A release that is slow for some seconds after its start, each process in its own time.
fn cold(
    version: &str,
    instance: &str,
    from: i64,
    to: i64,
    warm_up_s: f64,
    born_in_window_s: f64,
) -> Vec<WorkloadWindow> {
    (from..to)
        .map(|n| {
            let age_s = (n - from) as f64 * 10.0 - born_in_window_s;
            let slow_s = (warm_up_s - age_s.max(0.0)).clamp(0.0, 10.0_f64.min(10.0 + age_s));
            // While it is slow it answers fewer: closed loops wait for it.
            let slow = (slow_s * 4.0) as usize;
            let fast = ((10.0_f64.min(10.0 + age_s) - slow_s) * 10.0).max(0.0) as usize;
            let mut window = one_window(version, instance, n, slow, 40.0);
            let more = one_window(version, instance, n, fast, 5.0);
            for (series, more) in window.requests.iter_mut().zip(more.requests) {
                series.duration.merge(&more.duration);
            }
            window
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_start_pages_nobody() {
    for born_in_window_s in [0.0, 2.5, 5.0, 7.5, 9.9] {
        let server = Server::start(at_once).await;
        let mut all = process("v1", "a", 0, 60, 5.0);
        all.extend(cold("v2", "b", 3, 60, 45.0, born_in_window_s));
        // Another process of the same release, later.
        all.extend(cold("v2", "c", 25, 60, 45.0, born_in_window_s));
        send(&server, all).await;
        for last in 3..60 {
            let alerts = judge_after(&server, last).await;
            let fired: Vec<_> = alerts.iter().filter(|a| a.state == AlertStatus::Firing).collect();
            assert!(fired.is_empty(), "born at {born_in_window_s}, window {last}: {fired:?}");
        }
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_regression_is_found_as_soon_as_the_warm_up_is_over() {
    for (warm_up_s, most) in [(0, 7), (20, 7), (45, 8), (120, 14)] {
        let server = Server::start(|config| {
            config.verdict = VerdictConfig::with_warm_up(Duration::from_secs(warm_up_s));
            at_once(config);
        })
        .await;
        let mut all = process("v1", "a", 0, 60, 5.0);
        all.extend(process("v2", "b", 20, 60, 40.0));
        send(&server, all).await;
        let mut fired = None;
        for last in 20..60 {
            let alerts = judge_after(&server, last).await;
            if alerts.iter().any(|a| a.state == AlertStatus::Firing) {
                fired = Some(last - 20);
                break;
            }
        }
        let in_time = fired.is_some_and(|windows| windows <= most);
        assert!(in_time, "warm-up of {warm_up_s} s: {fired:?} of {most}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_fails_at_once_is_an_alert_on_errors_and_ends() {
    let server = Server::start(at_once).await;
    let mut all = process("v1", "a", 0, 110, 5.0);
    for mut window in process("v2", "b", 3, 60, 1.0) {
        for series in &mut window.requests {
            (series.status, series.error) = (500, true);
        }
        all.push(window);
    }
    send(&server, all).await;
    let mut fired = None;
    for last in 3..12 {
        let alerts = judge_after(&server, last).await;
        if let Some(alert) = alerts.iter().find(|alert| alert.state == AlertStatus::Firing) {
            fired = Some((last - 3, alert.clone()));
            break;
        }
    }
    // The first window is not judged, two carry the verdict, one confirms it.
    let (after, alert) = fired.expect("an alert");
    assert_eq!((after, alert.kind.as_str()), (3, "errors"));
    assert!(
        alert
            .sentence
            .starts_with("pay v2 fails more often than v1 on /pay: 0.0 % ("),
        "{}",
        alert.sentence
    );
    assert!(alert.sentence.contains("→ 100.0 % ("), "{}", alert.sentence);
    let alerts = judge_after(&server, 109).await;
    assert_eq!(board(&alerts), [("v1", "v2", AlertStatus::Resolved)], "{alerts:?}");
    server.stop().await;
}
