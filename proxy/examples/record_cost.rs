//! What telemetry costs per request: prints one JSON object with nanoseconds per step, the best of several rounds.
//!
//! `cargo run --release -p emberline-proxy --example record_cost`

use std::{hint::black_box, sync::Arc, time::Instant};

use emberline_model::{Side, time::SystemClock};
use emberline_proxy::telemetry::{Protocol, RequestRecord, ResponseFlags, Source, Telemetry, TelemetryOptions};

const ROUNDS: usize = 15;
const CALLS: u64 = 200_000;

/// Nanoseconds per call in the fastest round.
fn best(mut call: impl FnMut(u64)) -> f64 {
    let round = |call: &mut dyn FnMut(u64)| {
        let begin = Instant::now();
        for n in 0..CALLS {
            call(n);
        }
        begin.elapsed().as_nanos() as f64 / CALLS as f64
    };
    (0..ROUNDS).map(|_| round(&mut call)).fold(f64::INFINITY, f64::min)
}

fn main() {
    let telemetry = Telemetry::new(TelemetryOptions::default(), Arc::new(SystemClock));
    let routes: Vec<_> = (0..16)
        .map(|n| telemetry.route(&format!("/route/{n}/{{id}}")))
        .collect();
    let header = "v1;demo;frontend;v1;frontend-1";
    let peer = telemetry.peers().resolve(header.as_bytes(), Source::OWN);
    let series: Vec<_> = routes
        .iter()
        .map(|route| telemetry.series(telemetry.label(Side::Server, *route, peer), "GET", Protocol::Http1))
        .collect();
    let record = |n: u64| RequestRecord {
        series: series[n as usize % series.len()],
        status: if n.is_multiple_of(50) { 404 } else { 200 },
        error: false,
        // Spread over about three octaves, as real latencies are.
        duration_ns: 1_000_000 + (n.wrapping_mul(2_654_435_761) % 7_000_000),
        streaming_ns: 0,
        request_bytes: 100,
        response_bytes: 1000,
        flags: ResponseFlags::NONE,
        upstream_ns: Some(900_000),
    };

    let record_ns = best(|n| telemetry.record(&record(n)));
    let label_ns = best(|n| {
        black_box(telemetry.label(Side::Server, routes[n as usize % routes.len()], peer));
    });
    let label = telemetry.label(Side::Server, routes[0], peer);
    let series_ns = best(|_| {
        black_box(telemetry.series(label, "GET", Protocol::Http1));
    });
    let peer_ns = best(|_| {
        black_box(telemetry.peers().resolve(black_box(header.as_bytes()), Source::OWN));
    });
    let in_flight_ns = best(|_| drop(telemetry.start_request(Side::Server)));
    let clock_ns = best(|_| {
        black_box(telemetry.clock().now_unix_ns());
    });
    println!(
        "{{\"record_ns\":{record_ns:.1},\"label_ns\":{label_ns:.1},\"series_ns\":{series_ns:.1},\"peer_ns\":{peer_ns:.1},\"in_flight_ns\":{in_flight_ns:.1},\"of_record_clock_ns\":{clock_ns:.1}}}"
    );
}
