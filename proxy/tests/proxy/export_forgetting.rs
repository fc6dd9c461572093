//! Names that callers make up take nobody's place for long, and are forgotten.

use std::collections::{BTreeMap, BTreeSet};

use crate::export_telemetry::{count, request, telemetry};
use emberline_model::{Side, workload::ROUTE_OTHER};
use emberline_proxy::telemetry::{Cut, Label, Protocol, Source, Telemetry, TelemetryOptions};

/// One request of a caller at an address; what it is counted as.
fn call(telemetry: &Telemetry, service: &str, address: [u8; 4]) -> (String, Option<String>, Label) {
    let header = format!("v1;;{service};v1;i");
    let peer = telemetry
        .peers()
        .resolve(header.as_bytes(), Source::of_caller(address.into()));
    let label = telemetry.label(Side::Server, telemetry.route("/checkout"), peer);
    telemetry.record(&request(telemetry.series(label, "GET", Protocol::Http1), 200, 1));
    let set = telemetry.label_set(label);
    (set.route, set.peer.map(|peer| peer.service), label)
}

#[test]
fn after_a_hundred_thousand_made_up_identities_a_real_caller_is_known_within_a_window() {
    let (clock, telemetry) = telemetry(TelemetryOptions::default());
    let known = call(&telemetry, "payments", [10, 0, 0, 3]);
    for n in 0..100_000 {
        let (route, _, _) = call(&telemetry, &format!("x{n}"), [10, 0, 0, 1]);
        assert_eq!(route, "/checkout", "the route is kept whatever becomes of the peer");
    }
    let expected = |service: &str| ("/checkout".to_owned(), Some(service.to_owned()));
    let of = |(route, peer, _): (String, Option<String>, Label)| (route, peer);
    // Another address at once, the address that brought all of them with the next window.
    assert_eq!(of(call(&telemetry, "front", [10, 0, 0, 2])), expected("front"));
    assert_eq!(of(call(&telemetry, "beside", [10, 0, 0, 1])), expected(ROUTE_OTHER));
    clock.advance_ms(10_000);
    call(&telemetry, "beside", [10, 0, 0, 1]);
    assert_eq!(of(call(&telemetry, "beside", [10, 0, 0, 1])), expected("beside"));
    assert_eq!(
        call(&telemetry, "payments", [10, 0, 0, 3]).2,
        known.2,
        "whoever was there before keeps its number"
    );
    assert_eq!(count(&telemetry.totals()), 100_006);
    let counters = telemetry.counters();
    assert!(counters.peers <= 500, "{counters:?}");
    let folded: u64 = counters.peers_folded.iter().map(|(_, n)| n).sum();
    assert!(folded > 99_000, "{counters:?}");
}

#[test]
fn peers_that_lasted_are_not_pushed_out_by_those_that_did_not() {
    let (clock, telemetry) = telemetry(TelemetryOptions {
        max_peers: 40,
        ..TelemetryOptions::default()
    });
    let real: Vec<String> = (0..8).map(|n| format!("real{n}")).collect();
    let mut labels = BTreeMap::new();
    for window in 0..6 {
        for service in real.iter().chain(&real).chain(&real) {
            let (_, peer, label) = call(&telemetry, service, [10, 0, 0, 2]);
            assert!(window < 2 || peer.as_deref() == Some(service), "{window}: {peer:?}");
            if window >= 2 {
                assert_eq!(*labels.entry(service.clone()).or_insert(label), label);
            }
        }
        for n in 0..500 {
            call(&telemetry, &format!("x{window}-{n}"), [10, 0, 1, (n % 100) as u8]);
        }
        clock.advance_ms(10_000);
    }
}

#[test]
fn numbers_of_forgotten_names_are_nobody_elses() {
    let (clock, telemetry) = telemetry(TelemetryOptions {
        max_peers: 4,
        max_labels: 64,
        ..TelemetryOptions::default()
    });
    let (_, _, first) = call(&telemetry, "first", [10, 0, 0, 1]);
    let mut labels = BTreeSet::from([first]);
    let mut all = 1;
    for window in 0..20_u8 {
        clock.advance_ms(10_000);
        for n in 0..50 {
            labels.insert(call(&telemetry, &format!("x{window}-{n}"), [10, 0, window, n]).2);
            all += 1;
        }
        let of_first = telemetry.label_set(first);
        assert_eq!(
            (of_first.side, of_first.route.as_str()),
            (Some(Side::Server), "/checkout"),
            "{window}"
        );
        assert_ne!(of_first.peer.map(|peer| peer.service), Some(format!("x{window}-0")));
    }
    assert!(labels.len() > 20, "places are taken over: {}", labels.len());
    assert_eq!(telemetry.label_set(first).peer.unwrap().service, ROUTE_OTHER);
    let mut seen = 0;
    for series in telemetry.take_windows(Cut::All).values() {
        let keys: BTreeSet<_> = series
            .iter()
            .map(|s| (&s.route, &s.method, &s.peer, s.status))
            .collect();
        assert_eq!(keys.len(), series.len(), "{series:?}");
        seen += count(series);
    }
    assert_eq!((seen, count(&telemetry.totals())), (all, all));
}

#[test]
fn names_that_nobody_uses_are_forgotten_after_an_hour() {
    let (clock, telemetry) = telemetry(TelemetryOptions::default());
    for _ in 0..3 {
        call(&telemetry, "gone", [10, 0, 0, 1]);
        clock.advance_ms(10_000);
    }
    for _ in 0..362 {
        call(&telemetry, "here", [10, 0, 0, 1]);
        clock.advance_ms(10_000);
    }
    call(&telemetry, "here", [10, 0, 0, 1]);
    assert_eq!(telemetry.counters().peers, 1);
    let totals = telemetry.totals();
    assert_eq!(count(&totals), 366, "its counts go on as those of others");
    assert!(
        !totals
            .iter()
            .any(|s| s.peer.as_ref().is_some_and(|peer| peer.service == "gone"))
    );
}
