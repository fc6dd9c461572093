//! Telemetry reaches a collector behind a TLS terminator, and what is wrong with a certificate is in the log.

use std::{
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

use emberline_model::{Component, Workload, time::Clock};
use emberline_proxy::{
    Tls,
    export::{ExportOptions, Exporter, ExporterHandle},
    telemetry::{Telemetry, TelemetryOptions},
};
use emberline_terminator::{Authority, Fault, Terminator};
use parking_lot::Mutex;

use crate::export_support::{FakeCollector, ManualClock, eventually};

/// Warnings of this process.
static WARNINGS: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Keep;

impl Write for Keep {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        WARNINGS.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn keep_warnings() {
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::WARN)
        .with_writer(|| Keep);
    // Another test of this file may have been first.
    let _ = subscriber.try_init();
}

/// An exporter to an endpoint that one window waits for.
fn exporting(endpoint: String, tls: Tls) -> ExporterHandle {
    let clock = ManualClock::at_ms(1_700_000_000_000);
    let telemetry = Telemetry::new(TelemetryOptions::default(), Arc::clone(&clock) as Arc<dyn Clock>);
    let workload = Workload {
        service: "cart".into(),
        ..Workload::default()
    };
    let options = ExportOptions {
        tls,
        initial_backoff: Duration::from_millis(2),
        max_backoff: Duration::from_millis(20),
        clock_check: Duration::from_millis(1),
        ..ExportOptions::new(endpoint, workload, Component::Proxy)
    };
    let handle = Exporter::start(options, telemetry, None, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    clock.advance_ms(10_000);
    handle
}

fn settings(folder: &Path, authority: &Authority) -> Tls {
    let ca_file = folder.join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    Tls {
        ca_file: Some(ca_file),
        ..Tls::default()
    }
}

#[test]
fn telemetry_reaches_a_collector_that_demands_a_client_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let collector = FakeCollector::start();
    let certificate = authority.certificate(&["localhost"]);
    let terminator = Terminator::start(collector.addr, &certificate, Some(&authority));
    let (cert, key) = authority.certificate(&["cart"]).write(folder.path(), "own");
    let tls = Tls {
        cert_file: Some(cert),
        key_file: Some(key),
        ..settings(folder.path(), &authority)
    };
    let handle = exporting(terminator.url("localhost"), tls);
    eventually("the window is acknowledged", || handle.stats().batches_acked() > 0);
    assert!(!collector.book.acked.lock().is_empty());
    assert_eq!(terminator.accepted(), 1, "one connection for all calls");
}

#[test]
fn what_is_wrong_with_a_certificate_is_in_the_log_and_telemetry_waits_until_it_is_mended() {
    keep_warnings();
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let collector = FakeCollector::start();
    let good = authority.certificate(&["localhost"]);
    for (certificate, clients, words) in [
        (
            authority.faulty(&["localhost"], Fault::Expired),
            None,
            "expired on Wed, 03 Feb 2021",
        ),
        (
            authority.certificate(&["other.example"]),
            None,
            "not for `localhost`: it is for other.example",
        ),
        (
            Authority::new().certificate(&["localhost"]),
            None,
            "not signed by a CA in `ca_file`",
        ),
        (good.clone(), Some(&authority), "requires a client certificate"),
    ] {
        let terminator = Terminator::start(collector.addr, &certificate, clients);
        let handle = exporting(terminator.url("localhost"), settings(folder.path(), &authority));
        let at = format!("localhost:{}", terminator.address.port());
        // Not the first one: a server that refuses a certificate may end the connection before its reason is read.
        eventually(words, || {
            let log = String::from_utf8_lossy(&WARNINGS.lock()).into_owned();
            let mut of_this = log.lines().filter(|line| line.contains(&at));
            of_this.any(|line| line.contains(words) && line.contains("is unavailable"))
        });
        terminator.renew(&good, None);
        eventually("the window is acknowledged", || handle.stats().batches_acked() > 0);
    }
}

#[test]
fn a_collector_that_speaks_no_tls_is_told_as_such() {
    keep_warnings();
    let collector = FakeCollector::start();
    let endpoint = format!("https://{}", collector.addr);
    let handle = exporting(endpoint.clone(), Tls::default());
    eventually("a warning", || {
        let log = String::from_utf8_lossy(&WARNINGS.lock()).into_owned();
        log.lines()
            .any(|line| line.contains(&endpoint) && line.contains("does not speak TLS on this port: use `http://`"))
    });
    assert_eq!(handle.stats().batches_acked(), 0);
}
