//! Batches reach the collector once each, in order, whatever the collector does; and what does not is counted.

use std::{sync::Arc, time::Duration};

use crate::export_support::{FakeCollector, ManualClock, eventually};
use emberline_model::{BatchId, Component, Side, Signal, Workload, time::Clock};
use emberline_proxy::{
    export::{DropReason, ExportError, ExportOptions, Exporter, ExporterHandle, FlushReport},
    telemetry::{Protocol, RequestRecord, ResponseFlags, Source, Telemetry, TelemetryOptions},
};
use parking_lot::Mutex;
use tonic::Status;

/// A window boundary, in milliseconds.
pub(crate) const START_MS: i64 = 1_700_000_000_000;
const START_S: i64 = START_MS / 1000;

fn workload() -> Workload {
    Workload {
        namespace: "shop".into(),
        service: "cart".into(),
        version: "v1".into(),
        instance: "cart 1;%é".into(),
    }
}

pub(crate) fn options(url: String) -> ExportOptions {
    ExportOptions {
        initial_backoff: Duration::from_millis(2),
        max_backoff: Duration::from_millis(20),
        clock_check: Duration::from_millis(1),
        upload_pause: Duration::ZERO,
        ..ExportOptions::new(url, workload(), Component::Proxy)
    }
}

pub(crate) struct Sender {
    pub(crate) clock: Arc<ManualClock>,
    telemetry: Telemetry,
    pub(crate) handle: ExporterHandle,
}

impl Sender {
    pub(crate) fn start(options: ExportOptions) -> Sender {
        let clock = ManualClock::at_ms(START_MS);
        let telemetry = Telemetry::new(TelemetryOptions::default(), Arc::clone(&clock) as Arc<dyn Clock>);
        let handle = Exporter::start(options, telemetry.clone(), None, Arc::clone(&clock) as Arc<dyn Clock>)
            .expect("the options are right");
        Sender {
            clock,
            telemetry,
            handle,
        }
    }

    pub(crate) fn record(&self, requests: u64) {
        let route = self.telemetry.route("/cart/{id}");
        let label = self.telemetry.label(Side::Server, route, None);
        let series = self.telemetry.series(label, "GET", Protocol::Http1);
        for n in 0..requests {
            self.telemetry.record(&RequestRecord {
                series,
                status: 200,
                error: false,
                duration_ns: 1_000_000 + n * 1000,
                streaming_ns: 0,
                request_bytes: 0,
                response_bytes: 10,
                flags: ResponseFlags::NONE,
                upstream_ns: None,
            });
        }
    }

    /// Lets one window pass and waits until it was cut.
    pub(crate) fn pass_window(&self) {
        let cut = self.handle.stats().windows_cut;
        self.clock.advance_ms(10_000);
        eventually("the window is cut", || self.handle.stats().windows_cut > cut);
    }

    pub(crate) fn flush(self) -> FlushReport {
        self.flush_within(Duration::from_secs(60))
    }

    pub(crate) fn flush_within(self, deadline: Duration) -> FlushReport {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(self.handle.flush_and_stop(deadline))
    }
}

/// A flush without a spool.
fn report(acked: u64, unacked: u64) -> FlushReport {
    FlushReport {
        acked,
        unacked,
        spooled: 0,
    }
}

fn sequences(ids: &[BatchId]) -> Vec<u64> {
    ids.iter().map(|id| id.sequence).collect()
}

#[test]
fn a_batch_keeps_its_id_over_retries_and_batches_stay_in_order() {
    let collector = FakeCollector::start();
    collector.book.answer_with(|attempt, _| match attempt {
        0..=3 => Err(Status::unavailable("not yet")),
        5 => Err(Status::resource_exhausted("busy")),
        6 => Err(Status::deadline_exceeded("slow")),
        _ => Ok(()),
    });
    let sender = Sender::start(options(collector.url()));
    for requests in 1..=3 {
        sender.record(requests);
        sender.pass_window();
    }
    eventually("three batches are acknowledged", || {
        sender.handle.stats().requests_acked == 3
    });

    let attempts = collector.book.attempts.lock().clone();
    let ids: Vec<BatchId> = attempts.iter().map(|(id, _)| id.clone()).collect();
    assert_eq!(
        sequences(&ids),
        [1, 1, 1, 1, 1, 2, 2, 2, 3],
        "each attempt has the id of its batch, in order"
    );
    for (id, windows) in &attempts {
        assert_eq!(id.sender, "shop/cart/v1/cart%201%3B%25%C3%A9/proxy");
        assert_eq!(id.epoch, ids[0].epoch);
        assert_ne!(id.epoch, START_MS as u64 * 1000, "a number that others cannot guess");
        assert_eq!(id.signal, Signal::Requests);
        let requests: u64 = windows
            .iter()
            .flat_map(|w| &w.requests)
            .map(|r| r.duration.count())
            .sum();
        assert_eq!(requests, id.sequence, "every attempt holds the same batch");
        assert_eq!(windows[0].workload, workload());
        assert_eq!(windows[0].component, Component::Proxy);
    }
    let stats = sender.handle.stats();
    assert_eq!(
        (
            stats.retries,
            stats.batches_dropped(),
            stats.queue_batches,
            stats.queue_bytes
        ),
        (6, 0, 0, 0)
    );
    assert_eq!(
        collector.book.starts(Signal::Requests),
        [START_S, START_S + 10, START_S + 20]
    );
}

#[test]
fn idle_windows_are_reported_and_no_profiles_signal_is_sent_without_a_sampler() {
    let collector = FakeCollector::start();
    let sender = Sender::start(options(collector.url()));
    for _ in 0..3 {
        sender.pass_window();
    }
    eventually("three batches are acknowledged", || {
        sender.handle.stats().requests_acked == 3
    });
    assert_eq!(
        collector.book.starts(Signal::Requests),
        [START_S, START_S + 10, START_S + 20]
    );
    assert!(
        collector
            .book
            .windows()
            .iter()
            .all(|w| w.has_requests && w.requests.is_empty() && w.length_s == 10)
    );
    // No sampler ran, which is something else than "nothing used the CPU".
    assert!(collector.book.starts(Signal::Profiles).is_empty());
}

#[test]
fn a_killed_collector_gets_everything_once_it_is_back_on_its_port() {
    let collector = FakeCollector::start();
    let sender = Sender::start(options(collector.url()));
    sender.record(5);
    sender.pass_window();
    eventually("the first batch is acknowledged", || {
        sender.handle.stats().requests_acked == 1
    });

    let (addr, book) = collector.kill();
    for _ in 0..4 {
        sender.record(10);
        sender.pass_window();
    }
    eventually("the exporter notices", || sender.handle.stats().retries > 0);
    assert_eq!(sender.handle.stats().queue_batches, 4);

    let collector = FakeCollector::start_at(addr, book);
    eventually("the rest is acknowledged", || sender.handle.stats().requests_acked == 5);
    sender.record(7);
    assert_eq!(sender.handle.stats().reconnects, 1);
    assert_eq!(sender.flush(), report(1, 0));
    assert_eq!(collector.book.requests(), 5 + 4 * 10 + 7);
    let stored = collector.book.stored.lock();
    assert_eq!(
        stored.keys().map(|id| id.sequence).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6],
        "no gap, no doubles"
    );
}

#[test]
fn an_acknowledgement_that_was_lost_leads_to_the_same_id_again() {
    let collector = FakeCollector::start();
    // The collector stored the batch, but says so when nobody listens any more.
    let sender = Sender::start(ExportOptions {
        call_timeout: Duration::from_millis(300),
        ..options(collector.url())
    });
    let book = Arc::clone(&collector.book);
    let (go_on, stuck) = std::sync::mpsc::sync_channel(1);
    let stuck = Mutex::new(stuck);
    collector.book.answer_with(move |attempt, _| {
        if attempt == 0 {
            // Blocks the thread of the fake, as a stuck disk would, until the exporter does not wait any more.
            let _ = stuck.lock().recv();
        }
        Ok(())
    });
    sender.record(3);
    sender.pass_window();
    eventually("the exporter gives the first attempt up", || {
        sender.handle.stats().retries > 0
    });
    go_on.send(()).unwrap();
    eventually("the batch is acknowledged", || {
        sender.handle.stats().requests_acked == 1
    });
    eventually("both attempts arrived", || book.acked.lock().len() >= 2);
    assert!(book.acked.lock().iter().all(|id| id.sequence == 1));
    assert_eq!(book.requests(), 3, "a store that goes by the id holds it once");
}

#[test]
fn a_full_queue_drops_the_oldest_and_counts_them() {
    // Nobody listens here: a port that was free a moment ago.
    let nobody = FakeCollector::start();
    let (addr, book) = nobody.kill();
    let sender = Sender::start(ExportOptions {
        queue_bytes: 4000,
        ..options(format!("http://{addr}"))
    });
    for _ in 0..30 {
        sender.record(1);
        sender.pass_window();
    }
    let stats = sender.handle.stats();
    assert!(stats.queue_bytes <= 4000, "{stats:?}");
    let dropped = stats.batches_dropped[&(DropReason::QueueFull, Signal::Requests.code())];
    assert_eq!(dropped + stats.queue_batches, 30, "{stats:?}");
    assert!(dropped > 0 && stats.queue_batches > 1, "{stats:?}");

    let waiting = stats.queue_batches;
    let collector = FakeCollector::start_at(addr, book);
    eventually("what waited arrives", || {
        sender.handle.stats().requests_acked == waiting
    });
    let ids = collector.book.acked.lock().clone();
    // The first was in flight all the time; the others are the newest.
    let newest: Vec<u64> = std::iter::once(1).chain(30 - (waiting - 2)..=30).collect();
    assert_eq!(sequences(&ids), newest);
}

#[test]
fn a_refused_batch_is_dropped_and_the_next_one_goes_on() {
    let collector = FakeCollector::start();
    collector.book.answer_with(|_, id| match id.sequence {
        1 => Err(Status::invalid_argument("never")),
        2 => Err(Status::permission_denied("you?")),
        3 => Err(Status::internal(
            "a bug of the collector that this batch meets every time",
        )),
        _ => Ok(()),
    });
    let sender = Sender::start(options(collector.url()));
    for _ in 0..4 {
        sender.record(1);
        sender.pass_window();
    }
    eventually("the fourth batch is acknowledged", || {
        sender.handle.stats().requests_acked == 1
    });
    let stats = sender.handle.stats();
    let code = Signal::Requests.code();
    for reason in [DropReason::Refused, DropReason::NotAllowed, DropReason::GaveUp] {
        assert_eq!(stats.batches_dropped.get(&(reason, code)), Some(&1), "{reason:?}");
    }
    let ids: Vec<BatchId> = collector
        .book
        .attempts
        .lock()
        .iter()
        .map(|(id, _)| id.clone())
        .collect();
    assert_eq!(sequences(&ids), [1, 2, 3, 3, 3, 3, 3, 4]);
}

#[test]
fn a_huge_answer_is_not_read_and_does_not_stop_the_export() {
    let collector = FakeCollector::start();
    *collector.book.message.lock() = "x".repeat(3 << 20);
    let sender = Sender::start(options(collector.url()));
    sender.pass_window();
    eventually("the batch is given up", || sender.handle.stats().batches_dropped() == 1);
    collector.book.message.lock().clear();
    sender.pass_window();
    eventually("the next batch is acknowledged", || {
        sender.handle.stats().requests_acked == 1
    });
}

#[test]
fn a_flush_exports_the_running_window_and_waits_for_the_acknowledgement() {
    let collector = FakeCollector::start();
    let sender = Sender::start(options(collector.url()));
    sender.clock.advance_ms(3_000);
    sender.record(42);
    assert_eq!(sender.flush(), report(1, 0));
    assert_eq!(collector.book.requests(), 42);
    assert_eq!(collector.book.starts(Signal::Requests), [START_S]);
}

#[test]
fn what_arrives_equals_what_was_recorded() {
    let collector = FakeCollector::start();
    let sender = Sender::start(options(collector.url()));
    let telemetry = sender.telemetry.clone();
    let header = b"v1;shop;front;v2;front-1";
    let peers = [None, telemetry.peers().resolve(header, Source::OWN)];
    let kinds = [
        ("GET", Protocol::Http1, 200),
        ("POST", Protocol::Grpc, 14),
        ("", Protocol::Tcp, 0),
    ];
    for n in 0..600u64 {
        let side = if n % 2 == 0 { Side::Client } else { Side::Server };
        let (method, protocol, status) = kinds[n as usize % 3];
        let route = telemetry.route(["/cart/{id}", "/checkout", "tcp"][n as usize / 100 % 3]);
        let label = telemetry.label(side, route, peers[n as usize / 7 % 2]);
        telemetry.record(&RequestRecord {
            series: telemetry.series(label, method, protocol),
            status,
            error: n % 5 == 0,
            duration_ns: n * n * 977,
            streaming_ns: 0,
            request_bytes: n,
            response_bytes: 2 * n,
            flags: ResponseFlags::NONE,
            upstream_ns: None,
        });
    }
    let mut recorded = telemetry.totals();
    assert!(recorded.len() > 20 && recorded.iter().any(|series| series.peer.is_some()));
    assert_eq!(sender.flush(), report(1, 0));
    let mut arrived = collector.book.windows().remove(0).requests;
    for series in [&mut recorded, &mut arrived] {
        series.sort_by_key(|s| {
            format!(
                "{:?}",
                (s.side, &s.route, &s.method, &s.peer, &s.protocol, s.status, s.error)
            )
        });
    }
    assert_eq!(arrived, recorded);
}

#[test]
fn a_flush_without_a_collector_ends_in_time_and_says_what_is_lost() {
    let (addr, _) = FakeCollector::start().kill();
    let sender = Sender::start(options(format!("http://{addr}")));
    sender.record(1);
    sender.pass_window();
    assert_eq!(sender.flush_within(Duration::from_millis(50)), report(0, 2));
}

#[test]
fn a_flush_does_not_wait_for_a_long_back_off() {
    let collector = FakeCollector::start();
    collector.book.answer_with(|attempt, _| match attempt {
        0 => {
            let mut status = Status::resource_exhausted("come back tomorrow");
            status
                .metadata_mut()
                .insert("retry-after", "86400".parse().expect("a number is a valid value"));
            Err(status)
        }
        _ => Ok(()),
    });
    let sender = Sender::start(options(collector.url()));
    sender.record(1);
    sender.pass_window();
    eventually("the first attempt failed", || sender.handle.stats().retries == 1);
    assert_eq!(sender.flush(), report(2, 0));
    assert_eq!(collector.book.attempts.lock().len(), 3);
}

#[test]
fn windows_missed_while_the_machine_slept_are_reported_without_moving_requests() {
    let collector = FakeCollector::start();
    let options = ExportOptions {
        clock_check: Duration::from_secs(3600),
        ..options(collector.url())
    };
    let sender = Sender::start(options);
    // The exporter sleeps until the boundary by a clock that stands still, so it sees none of these.
    sender.record(1);
    sender.clock.advance_ms(10_000);
    sender.record(2);
    sender.clock.advance_ms(20_000);
    sender.record(4);
    assert_eq!(sender.flush(), report(4, 0));
    let counts: Vec<(i64, u64)> = collector
        .book
        .windows()
        .iter()
        .map(|w| {
            (
                w.start_unix_s - START_S,
                w.requests.iter().map(|r| r.duration.count()).sum(),
            )
        })
        .collect();
    assert_eq!(counts, [(0, 1), (10, 2), (20, 0), (30, 4)]);
}

#[test]
fn a_wrong_endpoint_is_refused_with_the_setting_to_change() {
    let clock = ManualClock::at_ms(START_MS);
    let start = |endpoint: &str| {
        let telemetry = Telemetry::new(TelemetryOptions::default(), Arc::clone(&clock) as Arc<dyn Clock>);
        Exporter::start(
            options(endpoint.to_owned()),
            telemetry,
            None,
            Arc::clone(&clock) as Arc<dyn Clock>,
        )
    };
    let error = start("collector:4317").expect_err("the scheme is missing");
    assert!(matches!(error, ExportError::Endpoint(_)));
    assert!(
        error.to_string().contains("collector.endpoint") && error.to_string().contains("http://"),
        "{error}"
    );
    assert!(start("not an url").is_err());
}

#[test]
fn the_counters_are_on_the_metrics_page() {
    let collector = FakeCollector::start();
    let sender = Sender::start(options(collector.url()));
    sender.record(3);
    sender.pass_window();
    eventually("the batch is acknowledged", || {
        sender.handle.stats().requests_acked == 1
    });
    let mut registry = prometheus_client::registry::Registry::default();
    registry.register_collector(Box::new(sender.handle.metrics()));
    registry.register_collector(Box::new(sender.telemetry));
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &registry).expect("writing to a string");
    for line in [
        "emberline_export_batches_acked_total{signal=\"requests\"} 1",
        "emberline_export_windows_cut_total 1",
        "emberline_export_queue_bytes 0.0",
        "emberline_proxy_requests_total{side=\"server\",route=\"/cart/{id}\",method=\"GET\",protocol=\"http/1.1\",status=\"200\",error=\"false\",destination=\"\",peer_namespace=\"\",peer_service=\"\",peer_version=\"\"} 3",
        "emberline_proxy_request_duration_seconds_bucket{le=\"0.001953125\",side=\"server\",route=\"/cart/{id}\"} 3",
        "emberline_proxy_request_duration_seconds_bucket{le=\"+Inf\",side=\"server\",route=\"/cart/{id}\"} 3",
        "emberline_proxy_requests_in_flight{side=\"client\"} 0",
    ] {
        assert!(page.contains(line), "`{line}` is missing in\n{page}");
    }
}
