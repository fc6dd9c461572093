//! Every request counts in exactly one window and one series, whatever threads, clocks and names do.
//!
//! One file because each test records the same requests into the same telemetry and looks at another promise of it. Delivery is tested
//! elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::export_support::ManualClock;
use emberline_model::{
    Histogram, LabelSet, Release, RequestSeries, Side, Workload, time::Clock, workload::ROUTE_OTHER,
};
use emberline_proxy::telemetry::{
    Cut, Label, PeerId, Protocol, RequestRecord, ResponseFlags, RouteId, SeriesId, Source, Telemetry, TelemetryOptions,
    encode_peer, parse_peer,
};
use proptest::prelude::*;

/// A window boundary, in milliseconds.
const START_MS: i64 = 1_700_000_000_000;
pub(crate) const START_S: i64 = START_MS / 1000;

pub(crate) fn telemetry(options: TelemetryOptions) -> (Arc<ManualClock>, Telemetry) {
    let clock = ManualClock::at_ms(START_MS);
    let telemetry = Telemetry::new(options, Arc::clone(&clock) as Arc<dyn Clock>);
    (clock, telemetry)
}

pub(crate) fn request(series: SeriesId, status: u16, duration_ns: u64) -> RequestRecord {
    RequestRecord {
        series,
        status,
        error: status >= 500,
        duration_ns,
        streaming_ns: 0,
        request_bytes: 3,
        response_bytes: 5,
        flags: ResponseFlags::NONE,
        upstream_ns: None,
    }
}

fn series_of(telemetry: &Telemetry, side: Side, route: &str) -> SeriesId {
    let label = telemetry.label(side, telemetry.route(route), None);
    telemetry.series(label, "GET", Protocol::Http1)
}

pub(crate) fn count(series: &[RequestSeries]) -> u64 {
    series.iter().map(|s| s.duration.count()).sum()
}

#[test]
fn the_key_of_a_series_is_written_out_in_full() {
    let (_, telemetry) = telemetry(TelemetryOptions::default());
    let peer = Release {
        namespace: "shop".into(),
        service: "front".into(),
        version: "v2".into(),
    };
    let route = telemetry.route("/cart/{id}");
    let label = telemetry.label(Side::Server, route, Some(telemetry.peers().intern(&peer)));
    let labels = LabelSet {
        side: Some(Side::Server),
        route: "/cart/{id}".into(),
        peer: Some(peer.clone()),
    };
    assert_eq!(
        telemetry.label_set(label),
        labels,
        "a stack sample with this label joins the requests below"
    );
    let series = telemetry.series(label, "POST", Protocol::Grpc);
    telemetry.record(&RequestRecord {
        error: true,
        ..request(series, 14, 2_000_000)
    });
    let windows = telemetry.take_windows(Cut::All);
    let [only] = &windows[&START_S][..] else {
        panic!("{windows:?}")
    };
    let mut duration = Histogram::new();
    duration.record_ns(2_000_000);
    let expected = RequestSeries {
        side: Side::Server,
        route: "/cart/{id}".into(),
        method: "POST".into(),
        peer: Some(peer),
        destination: String::new(),
        protocol: "grpc".into(),
        status: 14,
        error: true,
        duration,
        streaming_s: 0.0,
        request_bytes: 3,
        response_bytes: 5,
        open: 0,
    };
    assert_eq!(*only, expected);
}

#[test]
fn names_are_interned_once_and_unknown_methods_are_one() {
    let (_, telemetry) = telemetry(TelemetryOptions::default());
    let route = telemetry.route("/a");
    assert_eq!(route, telemetry.route("/a"));
    assert_ne!(
        telemetry.label(Side::Server, route, None),
        telemetry.label(Side::Client, route, None)
    );
    let label = telemetry.label(Side::Server, route, None);
    assert_ne!(label, Label::NONE);
    let elsewhere = std::thread::scope(|s| s.spawn(|| telemetry.label(Side::Server, route, None)).join()).unwrap();
    assert_eq!(label, elsewhere, "threads agree");
    let series = |method| telemetry.series(label, method, Protocol::Http1);
    assert_eq!(series("GET"), series("GET"));
    assert_ne!(series("GET"), series("PUT"));
    assert_eq!(series("BREW"), series("WHEN"));
    assert_eq!(telemetry.label_set(Label::NONE), LabelSet::none());
    assert_eq!(telemetry.label_set(Label::new(123_456)), LabelSet::none());
    assert_eq!(telemetry.label_set(Label::OVERFLOW).route, ROUTE_OTHER);
}

#[test]
fn a_request_counts_in_the_window_in_which_it_ended() {
    let (clock, telemetry) = telemetry(TelemetryOptions::default());
    let series = series_of(&telemetry, Side::Server, "/a");
    clock.set_ms(START_MS + 9_999);
    telemetry.record(&request(series, 200, 60_000_000_000));
    assert!(telemetry.take_windows(Cut::Ended).is_empty(), "the window still runs");
    clock.set_ms(START_MS + 10_000);
    telemetry.record(&request(series, 200, 1));
    telemetry.record(&request(series, 200, 1));
    let windows = telemetry.take_windows(Cut::Ended);
    assert_eq!(windows.keys().copied().collect::<Vec<_>>(), [START_S]);
    assert_eq!(count(&windows[&START_S]), 1);
    clock.set_ms(START_MS + 35_000);
    telemetry.record(&request(series, 200, 1));
    let windows = telemetry.take_windows(Cut::All);
    let counts: Vec<_> = windows
        .iter()
        .map(|(start, series)| (start - START_S, count(series)))
        .collect();
    assert_eq!(counts, [(10, 2), (30, 1)]);
    assert!(telemetry.take_windows(Cut::All).is_empty(), "taken once");
    assert_eq!(count(&telemetry.totals()), 4, "totals keep everything");
}

#[test]
fn a_clock_that_steps_back_loses_nothing() {
    let (clock, telemetry) = telemetry(TelemetryOptions::default());
    let series = series_of(&telemetry, Side::Server, "/a");
    telemetry.record(&request(series, 200, 1));
    // A little: still the running window.
    clock.advance_ms(-500);
    telemetry.record(&request(series, 200, 1));
    // A lot: the window of then.
    clock.advance_ms(-3_600_000);
    telemetry.record(&request(series, 200, 1));
    let windows = telemetry.take_windows(Cut::All);
    let counts: Vec<_> = windows
        .iter()
        .map(|(start, series)| (start - START_S, count(series)))
        .collect();
    assert_eq!(counts, [(-3610, 1), (0, 2)]);
}

#[test]
fn nothing_is_lost_or_doubled_while_threads_record_across_rollovers() {
    const THREADS: u64 = 4;
    const EACH: u64 = 50_000;
    let (clock, telemetry) = telemetry(TelemetryOptions {
        shards: 2,
        windows_kept: usize::MAX,
        ..TelemetryOptions::default()
    });
    let done = AtomicBool::new(false);
    let mut taken: BTreeMap<i64, u64> = BTreeMap::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|worker| {
                let telemetry = &telemetry;
                scope.spawn(move || {
                    let route = format!("/{worker}");
                    for n in 0..EACH {
                        let series = series_of(telemetry, Side::Client, &route);
                        telemetry.record(&request(series, 200, 1 + n));
                    }
                })
            })
            .collect();
        let ticker = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                clock.advance_ms(7_000);
                std::thread::yield_now();
            }
        });
        let mut cut = |cut| {
            for (start, series) in telemetry.take_windows(cut) {
                assert_eq!(start % 10, 0);
                *taken.entry(start).or_default() += count(&series);
            }
        };
        while workers.iter().any(|worker| !worker.is_finished()) {
            cut(Cut::Ended);
        }
        done.store(true, Ordering::Relaxed);
        ticker.join().unwrap();
        cut(Cut::All);
    });
    assert_eq!(taken.values().sum::<u64>(), THREADS * EACH);
    let totals = telemetry.totals();
    assert_eq!(totals.len(), THREADS as usize);
    for route in totals {
        assert_eq!(
            (route.duration.count(), route.request_bytes),
            (EACH, 3 * EACH),
            "{}",
            route.route
        );
    }
    assert_eq!(telemetry.counters().windows_lost, 0);
}

#[test]
fn windows_that_nobody_takes_are_dropped_and_counted_but_stay_in_the_totals() {
    let options = TelemetryOptions {
        windows_kept: 3,
        shards: 1,
        ..TelemetryOptions::default()
    };
    let (clock, telemetry) = telemetry(options);
    let series = series_of(&telemetry, Side::Server, "/a");
    for _ in 0..10 {
        telemetry.record(&request(series, 200, 1));
        clock.advance_ms(10_000);
    }
    assert_eq!(telemetry.take_windows(Cut::All).len(), 3);
    assert_eq!(telemetry.counters().windows_lost, 7);
    assert_eq!(count(&telemetry.totals()), 10);
}

#[test]
fn routes_over_the_limit_are_one_visible_other() {
    let (_, telemetry) = telemetry(TelemetryOptions {
        max_routes: 3,
        ..TelemetryOptions::default()
    });
    for n in 0..50 {
        telemetry.record(&request(series_of(&telemetry, Side::Server, &format!("/{n}")), 200, 1));
    }
    let series = &telemetry.take_windows(Cut::All)[&START_S];
    let routes: BTreeSet<&str> = series.iter().map(|s| s.route.as_str()).collect();
    assert_eq!(routes, BTreeSet::from(["/0", "/1", "/2", ROUTE_OTHER]));
    assert_eq!(count(series), 50);
    assert_eq!(telemetry.route("/1000"), RouteId::OTHER);
}

#[test]
fn labels_and_series_over_the_limit_keep_side_route_and_protocol() {
    for options in [
        TelemetryOptions {
            max_labels: 10,
            ..TelemetryOptions::default()
        },
        TelemetryOptions {
            max_series: 8,
            ..TelemetryOptions::default()
        },
    ] {
        let (_, telemetry) = telemetry(options);
        let mut labels = BTreeSet::new();
        for n in 0..100 {
            let side = if n % 2 == 0 { Side::Client } else { Side::Server };
            let route = telemetry.route(&format!("/{}", n % 4));
            let label = telemetry.label(side, route, Some(telemetry.peers().intern(&release(n))));
            labels.insert(label);
            telemetry.record(&request(telemetry.series(label, "GET", Protocol::Http2), 200, 1));
        }
        let series = &telemetry.take_windows(Cut::All)[&START_S];
        assert!(labels.len() <= 100.min(options.max_labels + 8), "{options:?}");
        assert!(series.len() <= 20, "{options:?}: {}", series.len());
        assert_eq!(count(series), 100);
        for n in 0..4 {
            let side = if n % 2 == 0 { Side::Client } else { Side::Server };
            let of_route = |s: &&RequestSeries| s.side == side && s.route == format!("/{n}") && s.protocol == "http/2";
            let of_route: Vec<_> = series.iter().filter(of_route).collect();
            assert_eq!(
                of_route.iter().map(|s| s.duration.count()).sum::<u64>(),
                25,
                "{options:?}"
            );
            let is_other = |s: &&RequestSeries| s.peer.as_ref().is_some_and(|peer| peer.service == ROUTE_OTHER);
            assert!(of_route.iter().copied().any(|s| is_other(&s)), "{options:?}");
        }
    }
}

fn release(n: u32) -> Release {
    Release {
        namespace: String::new(),
        service: format!("made-up-{n}"),
        version: "v1".into(),
    }
}

#[test]
fn made_up_statuses_do_not_grow_the_window() {
    let (_, telemetry) = telemetry(TelemetryOptions {
        max_series: 20,
        ..TelemetryOptions::default()
    });
    let good = series_of(&telemetry, Side::Server, "/good");
    telemetry.record(&request(good, 200, 1));
    let series = series_of(&telemetry, Side::Server, "/a");
    for status in 100..1000 {
        telemetry.record(&request(series, status, 1));
    }
    telemetry.record(&request(good, 200, 1));
    let window = &telemetry.take_windows(Cut::All)[&START_S];
    assert_eq!(count(window), 902);
    assert!(window.len() <= 20 + 9, "{}", window.len());
    let kept = window.iter().find(|s| s.route == "/good").unwrap();
    assert_eq!(kept.duration.count(), 2, "what was known before goes on");
    let folded: BTreeSet<u16> = window
        .iter()
        .filter(|s| s.method == "_OTHER")
        .map(|s| s.status)
        .collect();
    assert!(!folded.is_empty());
    assert!(folded.iter().all(|status| status % 100 == 0), "{folded:?}");
}

#[test]
fn label_combinations_are_unique_within_a_window() {
    let (_, telemetry) = telemetry(TelemetryOptions {
        max_labels: 4,
        max_series: 6,
        ..TelemetryOptions::default()
    });
    for n in 0..20 {
        let label = telemetry.label(Side::Server, telemetry.route(&format!("/{n}")), None);
        for method in ["", "GET"] {
            telemetry.record(&request(telemetry.series(label, method, Protocol::Http1), 200, 1));
        }
    }
    let other = telemetry.label(Side::Server, RouteId::OTHER, None);
    telemetry.record(&request(telemetry.series(other, "", Protocol::Http1), 200, 1));
    let window = &telemetry.take_windows(Cut::All)[&START_S];
    let keys: BTreeSet<_> = window.iter().map(|s| (&s.route, &s.method, s.status)).collect();
    assert_eq!(keys.len(), window.len(), "{window:?}");
    assert_eq!(count(window), 41);
}

#[test]
fn peers_over_the_limit_are_one_visible_other() {
    let (_, telemetry) = telemetry(TelemetryOptions {
        max_peers: 2,
        ..TelemetryOptions::default()
    });
    let value = |service: &str, instance: &str| {
        let workload = Workload {
            namespace: "shop".into(),
            service: service.into(),
            version: "v1".into(),
            instance: instance.into(),
        };
        encode_peer(&workload)
    };
    let peers = telemetry.peers();
    let a = peers.resolve(value("a", "1").as_bytes(), Source::OWN).unwrap();
    assert_eq!(
        peers.resolve(value("a", "2").as_bytes(), Source::OWN),
        Some(a),
        "instances of a release are one peer"
    );
    assert_eq!(
        peers.release(a),
        Release {
            namespace: "shop".into(),
            service: "a".into(),
            version: "v1".into()
        }
    );
    let b = peers.resolve(value("b", "1").as_bytes(), Source::OWN).unwrap();
    assert_ne!(a, b);
    peers.resolve(value("b", "1").as_bytes(), Source::OWN);
    let c = peers.resolve(value("c", "1").as_bytes(), Source::OWN);
    assert_ne!(c, Some(PeerId::OTHER), "the one with the fewest requests makes place");
    for n in 0..1000 {
        let instance = n.to_string();
        peers.resolve(value(&format!("d{n}"), &instance).as_bytes(), Source::OWN);
    }
    let late = peers.resolve(value("e", "1").as_bytes(), Source::OWN);
    assert_eq!(late, Some(PeerId::OTHER), "a window has so many new ones");
    assert_eq!(peers.release(PeerId::OTHER).to_string(), "other@other");
}

#[test]
fn identity_headers_that_are_none_are_refused_and_counted() {
    let (_, telemetry) = telemetry(TelemetryOptions::default());
    let long = format!("v1;{};a;b;c", "x".repeat(5000));
    let bad: [&[u8]; 10] = [
        b"",
        b"v1",
        b"v2;shop;a;v1;i",
        b"v1;shop;a;v1",
        b"v1;shop;a;v1;i;more",
        b"v1;shop;;v1;i",
        b"v1;shop;%zz;v1;i",
        b"v1;shop;a%2;v1;i",
        b"v1;shop;%ff;v1;i",
        long.as_bytes(),
    ];
    for value in bad {
        assert_eq!(
            telemetry.peers().resolve(value, Source::OWN),
            None,
            "{}",
            String::from_utf8_lossy(value)
        );
    }
    assert_eq!(telemetry.counters().peers_invalid, bad.len() as u64);
    let control = parse_peer(b"v1;;a%1b[31m;;").unwrap();
    assert_eq!(
        control.service, "a\u{fffd}[31m",
        "control characters cannot reach a terminal"
    );
    assert_eq!(
        (control.version.as_str(), control.instance.as_str()),
        ("unknown", "unknown")
    );
}

#[test]
fn in_flight_requests_may_end_on_another_thread() {
    let (_, telemetry) = telemetry(TelemetryOptions::default());
    let guard = telemetry.start_request(Side::Client);
    let other = telemetry.start_request(Side::Server);
    assert_eq!(
        (telemetry.in_flight(Side::Client), telemetry.in_flight(Side::Server)),
        (1, 1)
    );
    std::thread::spawn(move || drop(guard)).join().unwrap();
    assert_eq!(
        (telemetry.in_flight(Side::Client), telemetry.in_flight(Side::Server)),
        (0, 1)
    );
    drop(other);
    assert_eq!(telemetry.in_flight(Side::Server), 0);
}

#[test]
fn response_flags_and_upstream_waits_are_counted() {
    let (_, telemetry) = telemetry(TelemetryOptions::default());
    let series = series_of(&telemetry, Side::Client, "/a");
    let flags = ResponseFlags::UT | ResponseFlags::URX;
    assert_eq!(flags.names().collect::<Vec<_>>(), ["UT", "URX"]);
    telemetry.record(&RequestRecord {
        flags,
        upstream_ns: Some(1_500_000_000),
        ..request(series, 504, 1)
    });
    telemetry.record(&RequestRecord {
        flags: ResponseFlags::UT,
        ..request(series, 504, 1)
    });
    let counters = telemetry.counters();
    assert_eq!((counters.upstream_count, counters.upstream_seconds), (1, 1.5));
    let counted: Vec<_> = ResponseFlags::ALL
        .into_iter()
        .zip(counters.flags)
        .filter(|(_, n)| *n > 0)
        .collect();
    assert_eq!(
        counted.iter().map(|((name, _), n)| (*name, *n)).collect::<Vec<_>>(),
        [("UT", 2), ("URX", 1)]
    );
}

proptest! {
    #[test]
    fn the_histogram_of_a_window_equals_the_durations_recorded(
        durations in prop::collection::vec(
            prop_oneof![Just(0u64), 1u64..1000, 1_000u64..10_000_000_000, any::<u64>()], 1..200),
    ) {
        let (_, telemetry) = telemetry(TelemetryOptions::default());
        let series = series_of(&telemetry, Side::Server, "/a");
        let mut expected = Histogram::new();
        // Two threads, so that merging over shards is part of the test.
        let (left, right) = durations.split_at(durations.len() / 2);
        left.iter().for_each(|d| telemetry.record(&request(series, 200, *d)));
        std::thread::scope(|s| {
            s.spawn(|| right.iter().for_each(|d| telemetry.record(&request(series, 200, *d))));
        });
        durations.iter().for_each(|d| expected.record_ns(*d));
        let windows = telemetry.take_windows(Cut::All);
        let read = &windows[&START_S][0].duration;
        prop_assert_eq!(read.buckets(), expected.buckets());
        prop_assert_eq!(read.zero_count(), expected.zero_count());
        prop_assert_eq!(read.count(), durations.len() as u64);
        prop_assert_eq!((read.min(), read.max()), (expected.min(), expected.max()));
        prop_assert!((read.sum() - expected.sum()).abs() <= expected.sum() * 1e-9);
    }

    #[test]
    fn identities_survive_the_header(names in prop::array::uniform4("\\PC{0,20}")) {
        let [namespace, service, version, instance] = names;
        prop_assume!(!service.is_empty());
        let workload = Workload { namespace, service, version, instance };
        let value = encode_peer(&workload);
        prop_assert!(value.bytes().all(|b| b.is_ascii_graphic()), "{}", value);
        let read = parse_peer(value.as_bytes()).unwrap();
        let or_unknown = |name: &str| if name.is_empty() { "unknown".to_owned() } else { name.to_owned() };
        let expected =
            Workload { version: or_unknown(&workload.version), instance: or_unknown(&workload.instance), ..workload };
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn any_header_bytes_do_no_harm(value in prop::collection::vec(any::<u8>(), 0..100)) {
        let prefixed = [b"v1;", &value[..]].concat();
        for value in [value, prefixed] {
            if let Ok(peer) = parse_peer(&value) {
                prop_assert!(!peer.service.is_empty() && value.starts_with(b"v1;"));
                // Cleaned names are introduced as they were read.
                prop_assert_eq!(parse_peer(encode_peer(&peer).as_bytes()), Ok(peer));
            }
        }
    }
}
