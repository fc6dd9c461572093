//! A canary: two releases of `checkout`, called by `frontend`, with a slowdown planted on one route.

use emberline_collector::Collector;
use emberline_model::{Side, WorkloadWindow, alert::Alert};

use super::{Numbers, Server, T0, profile, release, series, window};

/// The slow route.
pub const PLANTED: &str = "/quote/{id}";
/// The route beside it.
pub const UNTOUCHED: &str = "/pay";
/// The function that is slow.
pub const GUILTY: &str = "emberline_demo::checkout::price_basket";
const HANDLER: &str = "emberline_demo::checkout::quote";
const POLL: &str = "tokio::runtime::task::raw::poll";
/// First window of the candidate.
pub const CANARY_STARTS: i64 = 6;

/// Start of a window by its number.
pub fn start(window: i64) -> i64 {
    T0 + window * 10
}

/// What happens in one window; `slow_ms` is what the candidate adds to the planted route.
pub fn windows(number: i64, slow_ms: f64, canary: bool) -> Vec<WorkloadWindow> {
    let mut numbers = Numbers(number as u64 * 7_919 + 3);
    let mut frontend = window("frontend", "v1", start(number));
    let mut all = Vec::new();
    for version in ["v1", "v2"] {
        if version == "v2" && !canary {
            continue;
        }
        let slow_ms = if version == "v2" { slow_ms } else { 0.0 };
        let mut checkout = window("checkout", version, start(number));
        let quote = numbers.durations(50, 1.6 + slow_ms);
        let pay = numbers.durations(60, 2.0);
        let peer = Some(release("frontend", "v1"));
        checkout.requests = vec![
            series(Side::Server, PLANTED, peer.clone(), &quote),
            series(Side::Server, UNTOUCHED, peer, &pay),
        ];
        let slow_cpu = (slow_ms * 50.0) as i64 / 10 * 10;
        let mut rows: Vec<(&str, &[&str], i64)> = vec![
            (
                PLANTED,
                &["core::str::from_utf8", "emberline_demo::checkout::read", HANDLER, POLL],
                30,
            ),
            (PLANTED, &["emberline_demo::checkout::answer", HANDLER, POLL], 30),
            (UNTOUCHED, &["emberline_demo::checkout::pay", POLL], 80),
            ("", &["epoll_wait", "tokio::runtime::park"], 20),
        ];
        if slow_cpu > 0 {
            rows.push((PLANTED, &["core::num::wrapping_mul", GUILTY, HANDLER, POLL], slow_cpu));
        }
        checkout.profiles = vec![profile(start(number), &rows)];
        all.push(checkout);
        let slower: Vec<u64> = quote.iter().map(|ns| ns + 300_000).collect();
        frontend.requests.push(series(
            Side::Client,
            PLANTED,
            Some(release("checkout", version)),
            &slower,
        ));
    }
    frontend
        .requests
        .push(series(Side::Server, "/shop", None, &numbers.durations(100, 9.0)));
    frontend.profiles = vec![profile(
        start(number),
        &[("/shop", &["emberline_demo::frontend::shop"], 90)],
    )];
    all.push(frontend);
    all
}

/// Stores the windows `from..to`, the canary slow until `slow_until`.
pub async fn play(server: &Server, from: i64, to: i64, slow_ms: f64, slow_until: i64) {
    for number in from..to {
        let slow_ms = if number < slow_until { slow_ms } else { 0.0 };
        server.append(windows(number, slow_ms, number >= CANARY_STARTS)).await;
    }
    server.store.flush_applied().await.unwrap();
}

/// The alerts when window `last` has ended and its batches are there.
pub async fn judge_after(server: &Server, collector: &Collector, last: i64) -> Vec<Alert> {
    server.clock.set(start(last + 1) + 5);
    collector.judge_now().await.unwrap()
}
