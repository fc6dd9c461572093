//! From a burning CPU to the collector's hands: labels, both signals of a window, and the debug information of the build.

use std::{hint::black_box, sync::Arc, time::Duration};

use crate::export_support::{FakeCollector, ManualClock, eventually};
use emberline_model::{Component, LabelSet, Location, Release, Side, Signal, Workload, time::Clock};
use emberline_proxy::{
    export::{ExportOptions, Exporter, FlushReport},
    telemetry::{Protocol, RequestRecord, ResponseFlags, Telemetry, TelemetryOptions},
};

const START_MS: i64 = 1_700_000_000_000;
const START_S: i64 = START_MS / 1000;

fn burn() -> u64 {
    let mut x = 88_172_645_463_325_252u64;
    for _ in 0..200_000 {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        black_box(x);
    }
    x
}

#[test]
fn cpu_and_requests_of_a_window_arrive_under_one_key_and_the_build_is_uploaded_once() {
    crate::in_a_process_of_its_own(
        "export_profiles::cpu_and_requests_of_a_window_arrive_under_one_key_and_the_build_is_uploaded_once",
        cpu_and_requests_of_a_window,
    );
}

fn cpu_and_requests_of_a_window() {
    let collector = FakeCollector::start();
    *collector.book.wants.lock() = Box::new(|_| Ok(true));
    let clock = ManualClock::at_ms(START_MS);
    let telemetry = Telemetry::new(TelemetryOptions::default(), Arc::clone(&clock) as Arc<dyn Clock>);
    let profiler = emberline_profiler::start(emberline_profiler::Config::default()).expect("nothing else samples here");
    let options = ExportOptions {
        clock_check: Duration::from_millis(1),
        upload_pause: Duration::ZERO,
        ..ExportOptions::new(
            collector.url(),
            Workload {
                namespace: "shop".into(),
                service: "burn".into(),
                version: "v1".into(),
                instance: "1".into(),
            },
            Component::Application,
        )
    };
    let handle = Exporter::start(
        options,
        telemetry.clone(),
        Some(profiler),
        Arc::clone(&clock) as Arc<dyn Clock>,
    )
    .unwrap();

    // An idle window first: both signals say that it was idle.
    clock.advance_ms(10_000);
    eventually("the idle window is stored", || handle.stats().batches_acked() == 2);
    let idle = collector.book.windows();
    assert_eq!(collector.book.starts(Signal::Requests), [START_S]);
    assert_eq!(collector.book.starts(Signal::Profiles), [START_S]);
    assert!(idle.iter().all(|w| w.requests.is_empty()));

    // Then a request that burns CPU, until enough of it was seen.
    let peer = Release {
        namespace: "shop".into(),
        service: "front".into(),
        version: "v7".into(),
    };
    let label = telemetry.label(
        Side::Server,
        telemetry.route("/burn"),
        Some(telemetry.peers().intern(&peer)),
    );
    {
        let _labelled = emberline_profiler::scope(label);
        eventually("the sampler saw the work", || {
            black_box(burn());
            handle.profiler_stats().is_some_and(|stats| stats.captured >= 20)
        });
    }
    telemetry.record(&RequestRecord {
        series: telemetry.series(label, "GET", Protocol::Http1),
        status: 200,
        error: false,
        duration_ns: 1_000_000,
        streaming_ns: 0,
        request_bytes: 0,
        response_bytes: 0,
        flags: ResponseFlags::NONE,
        upstream_ns: None,
    });
    clock.advance_ms(10_000);
    eventually("the busy window is stored", || handle.stats().batches_acked() == 4);

    let windows = collector.book.windows();
    let window = |with: fn(&emberline_model::WorkloadWindow) -> bool| {
        windows
            .iter()
            .find(|w| w.start_unix_s == START_S + 10 && with(w))
            .expect("both signals of the busy window")
    };
    let requests = window(|w| w.has_requests);
    let profiles = window(|w| w.has_profiles);
    assert_eq!(
        (&requests.workload, requests.component),
        (&profiles.workload, profiles.component)
    );
    assert_eq!((requests.length_s, profiles.length_s), (10, 10));
    let key = LabelSet {
        side: Some(Side::Server),
        route: "/burn".into(),
        peer: Some(peer),
    };
    let [series] = &requests.requests[..] else {
        panic!("{requests:?}")
    };
    assert_eq!(
        (Some(series.side), &series.route, &series.peer),
        (key.side, &key.route, &key.peer)
    );

    let [profile] = &profiles.profiles[..] else {
        panic!("{} profiles", profiles.profiles.len())
    };
    assert_eq!(
        *profile,
        *handle.last_profile().unwrap(),
        "what arrives is what was taken"
    );
    let set = profile
        .label_sets
        .iter()
        .position(|set| *set == key)
        .expect("the label of the burning request");
    let labelled: i64 = profile
        .samples
        .iter()
        .filter(|s| s.label_set as usize == set)
        .map(|s| s.value)
        .sum();
    assert!(
        labelled > 0 && labelled * 10 >= profile.total() * 9,
        "{labelled} of {}",
        profile.total()
    );
    assert!(profile.stats.rate_hz > 0.0 && profile.stats.cpu_ns > 0);

    // Each build of the samples was offered, and what arrived is the file.
    let sampled: Vec<_> = profile.mappings.iter().filter(|m| !m.build_id.is_empty()).collect();
    let own = profile.locations.iter().any(|l| matches!(l, Location::Native { .. }));
    assert!(
        own && !sampled.is_empty(),
        "the test program has a build id: {:?}",
        profile.mappings
    );
    eventually("the builds are uploaded", || {
        let stats = handle.stats();
        stats.builds_uploaded + stats.upload_wrong_file >= sampled.len() as u64
    });
    let own_file = std::fs::read("/proc/self/exe").unwrap();
    assert!(
        collector.book.files.lock().values().any(|file| *file == own_file),
        "the executable arrived unchanged"
    );
    assert!(*collector.book.largest_piece.lock() <= 256 << 10);

    let asked = collector.book.asked.lock().len();
    clock.advance_ms(10_000);
    eventually("another window is stored", || handle.stats().batches_acked() == 6);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    assert_eq!(
        runtime.block_on(handle.flush_and_stop(Duration::from_secs(60))),
        FlushReport {
            acked: 2,
            unacked: 0,
            spooled: 0
        }
    );
    assert_eq!(
        collector.book.starts(Signal::Requests),
        collector.book.starts(Signal::Profiles)
    );
    let known = collector.book.asked.lock();
    let again = known[asked..]
        .iter()
        .filter(|q| known[..asked].iter().any(|k| k.build_id == q.build_id))
        .count();
    assert_eq!(again, 0, "a build is asked about once");
}
