//! The verdict runner on stored windows: what it alerts on, what it names, and that a restart repeats it.

use crate::support::{
    ManualClock, Numbers, Server, T0,
    canary::{self, CANARY_STARTS, GUILTY, PLANTED, judge_after, play},
    profile, release, series, window,
};
use emberline_collector::{Collector, CollectorConfig};
use emberline_model::{
    Frame, LabelSet, Location, Mapping, Profile, Sample, Side,
    alert::{Alert, AlertStatus, ComparisonMode},
};

fn fresh_collector(server: &Server) -> Collector {
    Collector::new(
        CollectorConfig::new(&server.dir),
        server.store.clone(),
        server.clock.clone(),
    )
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_planted_route_and_its_function_are_named_and_nothing_else() {
    let server = Server::start(|_| {}).await;
    play(&server, 0, 16, 4.0, i64::MAX).await;
    let alerts = judge_after(&server, &server.collector, 15).await;
    assert_eq!(alerts.len(), 1, "{alerts:#?}");
    let alert = &alerts[0];
    assert_eq!((alert.service.as_str(), alert.route.as_str()), ("checkout", PLANTED));
    assert_eq!((alert.baseline.as_str(), alert.candidate.as_str()), ("v1", "v2"));
    assert_eq!(
        (alert.state, alert.mode),
        (AlertStatus::Firing, ComparisonMode::Concurrent)
    );
    assert_eq!(alert.source.as_deref(), Some("demo/frontend@v1"));
    assert!(alert.e_value >= 1.0 / alert.alpha, "{}", alert.e_value);

    let function = alert.function.as_ref().unwrap();
    assert_eq!(function.name, GUILTY);
    assert!(
        (function.delta_ns_per_request - 4e6).abs() < 0.2e6,
        "{}",
        function.delta_ns_per_request
    );
    assert!(function.share > 0.9, "{}", function.share);
    assert_eq!(alert.functions[0].delta_total.round(), 4e6);

    let p50 = &alert.latency.quantiles[0];
    let (before, after) = (p50.baseline_ms.unwrap(), p50.candidate_ms.unwrap());
    assert!(
        (1.3..2.1).contains(&before) && (4.8..6.9).contains(&after),
        "{before} {after}"
    );
    assert!(p50.baseline_low_ms.unwrap() <= before && before <= p50.baseline_high_ms.unwrap());
    let split = &alert.client_server;
    assert!(
        (split.client_delta_ms.unwrap() - split.server_delta_ms.unwrap()).abs() < 0.3,
        "{split:?}"
    );
    assert!((3.0..5.5).contains(&split.server_delta_ms.unwrap()), "{split:?}");

    assert!(
        alert
            .sentence
            .starts_with("checkout v2 is slower than v1 on /quote/{id}: p50 "),
        "{}",
        alert.sentence
    );
    assert!(
        alert
            .sentence
            .contains("`emberline_demo::checkout::price_basket` takes 4.00 ms more CPU per request"),
        "{}",
        alert.sentence
    );
    let url = "/compare?namespace=demo&service=checkout&baseline=v1&candidate=v2&route=%2Fquote%2F%7Bid%7D&component=application&per=request&from=";
    assert!(alert.diff_url.starts_with(url), "{}", alert.diff_url);
    assert_eq!(server.collector.alerts().snapshot(), alerts);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alert_fires_soon_after_the_warm_up_and_is_dated_by_its_window() {
    let server = Server::start(|_| {}).await;
    play(&server, 0, 16, 4.0, i64::MAX).await;
    let mut first = None;
    for last in 0..16 {
        let alerts = judge_after(&server, &server.collector, last).await;
        if let Some(alert) = alerts.iter().find(|alert| alert.state == AlertStatus::Firing) {
            first.get_or_insert((last, alert.started_ms));
        }
    }
    let (window, started_ms) = first.unwrap();
    // The candidate's first five windows are its warm-up; they count for what is gross, which takes seven blocks.
    assert_eq!(window, CANARY_STARTS + 7);
    assert_eq!(started_ms, canary::start(CANARY_STARTS + 7) * 1000);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_repeats_the_alert_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(T0);
    let server = Server::start_in(dir.path().to_owned(), clock.clone(), |_| {}).await;
    play(&server, 0, 20, 4.0, i64::MAX).await;
    let mut watched = Vec::new();
    for last in 0..20 {
        watched = judge_after(&server, &server.collector, last).await;
    }
    assert_eq!(watched.len(), 1);
    assert_eq!(
        fresh_collector(&server).judge_now().await.unwrap(),
        watched,
        "another collector on the same store"
    );
    server.stop().await;
    let server = Server::start_in(dir.path().to_owned(), clock, |_| {}).await;
    server.store.flush_applied().await.unwrap();
    assert_eq!(server.collector.judge_now().await.unwrap(), watched, "after a restart");
    server.stop().await;
}

/// Watches are kept between runs; whoever begins in the middle builds them from the store, and says the same from then on.
#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_was_restarted_in_the_middle_says_the_same() {
    let server = Server::start(|_| {}).await;
    let (mut others, mut stated) = (Vec::new(), 0);
    for last in 0..22 {
        play(&server, last, last + 1, if last < 16 { 4.0 } else { 0.0 }, i64::MAX).await;
        let alerts = judge_after(&server, &server.collector, last).await;
        if [9, 18].contains(&last) {
            others.push(fresh_collector(&server));
        }
        for (at, other) in others.iter().enumerate() {
            assert_eq!(other.judge_now().await.unwrap(), alerts, "runner {at}, window {last}");
        }
        stated += usize::from(!alerts.is_empty());
    }
    assert!(stated > 5, "{stated}");
    server.stop().await;
}

/// A batch that comes two minutes late counts as if it had come in time.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_batch_counts() {
    let server = Server::start(|_| {}).await;
    let (mut late, mut stated) = (Vec::new(), 0);
    for last in 0..20 {
        let mut all = canary::windows(last, 4.0, last >= CANARY_STARTS);
        if (8..12).contains(&last) {
            late.extend(all.extract_if(.., |window| window.workload.version == "v2"));
        }
        if last == 18 {
            server.append(std::mem::take(&mut late)).await;
        }
        server.append(all).await;
        server.store.flush_applied().await.unwrap();
        let alerts = judge_after(&server, &server.collector, last).await;
        assert_eq!(
            fresh_collector(&server).judge_now().await.unwrap(),
            alerts,
            "window {last}"
        );
        stated += usize::from(!alerts.is_empty());
    }
    assert!(stated > 1, "{stated}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_regression_there_is_silence() {
    let server = Server::start(|_| {}).await;
    play(&server, 0, 40, 0.0, 0).await;
    for last in 0..40 {
        let alerts = judge_after(&server, &server.collector, last).await;
        assert_eq!(alerts, Vec::<Alert>::new(), "after window {last}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slowdown_of_both_releases_is_no_regression() {
    let server = Server::start(|_| {}).await;
    for number in 0..30 {
        let mut all = canary::windows(number, 0.0, number >= CANARY_STARTS);
        // From window 15 on the machine is slow for everybody.
        for window in all
            .iter_mut()
            .filter(|w| number >= 15 && w.workload.service == "checkout")
        {
            for series in &mut window.requests {
                let slower: Vec<u64> = vec![30_000_000 + number as u64; series.duration.count() as usize];
                *series = crate::support::series(series.side, &series.route, series.peer.clone(), &slower);
            }
        }
        server.append(all).await;
    }
    server.store.flush_applied().await.unwrap();
    assert_eq!(judge_after(&server, &server.collector, 29).await, Vec::<Alert>::new());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_recovers_and_is_resolved_when_the_slowdown_ends() {
    let server = Server::start(|_| {}).await;
    play(&server, 0, 36, 4.0, 14).await;
    let mut states = Vec::new();
    for last in 0..36 {
        let alerts = judge_after(&server, &server.collector, last).await;
        let state = alerts.first().map(|alert| alert.state);
        if states.last() != Some(&state) {
            states.push(state);
        }
    }
    use AlertStatus::{Firing, Recovering, Resolved};
    assert_eq!(states, [None, Some(Firing), Some(Recovering), Some(Resolved)]);
    let resolved = &server.collector.alerts().snapshot()[0];
    assert!(resolved.resolved_ms.unwrap() > canary::start(14) * 1000);
    assert_eq!(resolved.suppressed_reason, None);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn releases_that_follow_each_other_are_compared_and_it_is_said() {
    let server = Server::start(|_| {}).await;
    for number in 0..48 {
        let mut all = canary::windows(number, 4.0, true);
        let gone = if number < 12 { "v2" } else { "v1" };
        all.retain(|w| w.workload.service != "checkout" || w.workload.version != gone);
        server.append(all).await;
    }
    server.store.flush_applied().await.unwrap();
    let alerts = judge_after(&server, &server.collector, 47).await;
    let alert = alerts.iter().find(|alert| alert.route == PLANTED).expect("an alert");
    assert_eq!(alert.mode, ComparisonMode::BeforeAfter);
    assert_eq!(alert.function.as_ref().unwrap().name, GUILTY);
    assert!(alert.diff_url.contains("&baseline_from="), "{}", alert.diff_url);
    assert_eq!(alerts.len(), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slowdown_without_cpu_is_said_to_be_waiting() {
    let server = Server::start(|_| {}).await;
    for number in 0..16 {
        let mut all = canary::windows(number, 4.0, number >= CANARY_STARTS);
        for window in all.iter_mut().filter(|w| w.workload.version == "v2") {
            window.profiles = canary::windows(number, 0.0, true)[1].profiles.clone();
        }
        server.append(all).await;
    }
    server.store.flush_applied().await.unwrap();
    let alerts = judge_after(&server, &server.collector, 15).await;
    assert_eq!(alerts.len(), 1);
    assert_eq!(alerts[0].function, None);
    assert!(
        alerts[0].sentence.ends_with("the time is spent waiting"),
        "{}",
        alerts[0].sentence
    );
    server.stop().await;
}

/// One window of `pay`, called by `shop`; to v2 the server takes `server_ms` and its caller waits `client_ms` longer. Both releases
/// take about 150 ms, so what is added is not gross.
fn edge(number: i64, server_ms: f64, client_ms: f64) -> Vec<emberline_model::WorkloadWindow> {
    let mut numbers = Numbers(number as u64 * 6_007 + 11);
    let mut shop = window("shop", "v1", canary::start(number));
    let mut all = Vec::new();
    for version in ["v1", "v2"] {
        if version == "v2" && number < CANARY_STARTS {
            continue;
        }
        let is_new = f64::from(u8::from(version == "v2"));
        let later = |of: &[u64], ms: f64| -> Vec<u64> { of.iter().map(|ns| ns + (ms * 1e6) as u64).collect() };
        let taken = later(&numbers.durations(12, 150.0), is_new * server_ms);
        let mut pay = window("pay", version, canary::start(number));
        pay.requests = vec![series(Side::Server, "/pay", Some(release("shop", "v1")), &taken)];
        all.push(pay);
        let waited = later(&taken, 0.4 + is_new * client_ms);
        shop.requests
            .push(series(Side::Client, "/pay", Some(release("pay", version)), &waited));
    }
    shop.requests
        .push(series(Side::Server, "/shop", None, &numbers.durations(20, 400.0)));
    all.push(shop);
    all
}

/// Kinds of the alerts after each of so many windows of an edge, without repetitions, and the last alerts.
async fn kinds_on_edge(windows: i64, server_ms: f64, client_ms: f64) -> (Vec<Vec<String>>, Vec<Alert>) {
    let server = Server::start(|_| {}).await;
    let (mut kinds, mut alerts) = (Vec::new(), Vec::new());
    for last in 0..windows {
        server.append(edge(last, server_ms, client_ms)).await;
        server.store.flush_applied().await.unwrap();
        alerts = judge_after(&server, &server.collector, last).await;
        let now: Vec<String> = alerts.iter().map(|alert| alert.kind.clone()).collect();
        if kinds.last() != Some(&now) {
            kinds.push(now);
        }
    }
    // Whoever begins now says the same.
    assert_eq!(fresh_collector(&server).judge_now().await.unwrap(), alerts);
    server.stop().await;
    (kinds, alerts)
}

/// Ten minutes in which callers wait 100 ms longer for v2, which itself does not take longer.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_callers_wait_longer_is_stated_on_their_side() {
    let (kinds, alerts) = kinds_on_edge(CANARY_STARTS + 60, 0.0, 100.0).await;
    assert_eq!(kinds, [vec![], vec!["client_latency"]]);
    let alert = &alerts[0];
    assert_eq!(alert.state, AlertStatus::Firing);
    assert_eq!((alert.service.as_str(), alert.candidate.as_str()), ("pay", "v2"));
    assert_eq!(alert.source.as_deref(), Some("demo/shop@v1"));
    assert!(
        alert
            .sentence
            .starts_with("callers of pay wait longer for v2 than for v1 on /pay: p50 "),
        "{}",
        alert.sentence
    );
    assert!(
        alert
            .sentence
            .ends_with("; pay itself does not take longer: the network, a proxy or queueing"),
        "{}",
        alert.sentence
    );
    let split = &alert.client_server;
    assert!((80.0..120.0).contains(&split.client_delta_ms.unwrap()), "{split:?}");
    assert!(split.server_delta_ms.unwrap().abs() < 20.0, "{split:?}");
    assert_eq!(alert.function, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_is_slower_is_not_stated_on_both_sides() {
    let (kinds, alerts) = kinds_on_edge(CANARY_STARTS + 60, 100.0, 0.0).await;
    assert_eq!(kinds, [vec![], vec!["latency"]]);
    assert!(alerts[0].client_server.client_delta_ms.unwrap() > 80.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_on_which_nothing_changes_is_silent_from_both_ends() {
    let (kinds, _) = kinds_on_edge(CANARY_STARTS + 60, 0.0, 0.0).await;
    assert_eq!(kinds, [Vec::<String>::new()]);
}

/// Replaces the candidate's guilty stack by addresses.
fn native(all: &mut [emberline_model::WorkloadWindow], number: i64) {
    for window in all.iter_mut().filter(|w| w.workload.service == "checkout") {
        let slow = window.workload.version == "v2";
        let mut native = Profile::empty_cpu(canary::start(number) * 1_000_000_000, 10_000_000_000);
        native.period = 10_000_000;
        native.mappings = vec![Mapping {
            build_id: format!("{:0>8}", window.workload.version.trim_start_matches('v')),
            path: "/srv/checkout".into(),
        }];
        native.locations = [0x100, 0x200, 0x300]
            .map(|offset| Location::Native { mapping: 0, offset })
            .to_vec();
        native.stacks = vec![vec![0, 1, 2], vec![2]];
        native.label_sets = vec![LabelSet {
            side: Some(Side::Server),
            route: PLANTED.into(),
            peer: None,
        }];
        let mut sample = |stack, milliseconds: i64| {
            native.samples.push(Sample {
                stack,
                label_set: 0,
                value: milliseconds * 1_000_000,
                count: milliseconds.unsigned_abs() / 10,
            });
        };
        sample(1, 60);
        if slow {
            sample(0, 200);
        }
        window.profiles = vec![native];
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_waits_for_names_and_then_goes_without() {
    let server = Server::start(|_| {}).await;
    for number in 0..16 {
        let mut all = canary::windows(number, 4.0, number >= CANARY_STARTS);
        native(&mut all, number);
        server.append(all).await;
    }
    server.store.flush_applied().await.unwrap();
    let stated = CANARY_STARTS + 7;
    let waiting = judge_after(&server, &server.collector, stated + 2).await;
    assert_eq!((waiting.len(), waiting[0].state), (1, AlertStatus::Suspected));
    let tired = judge_after(&server, &server.collector, stated + 3).await;
    assert_eq!((tired.len(), tired[0].state), (1, AlertStatus::Firing));

    let frame = |function: &str| {
        vec![Frame {
            function: function.to_owned(),
            ..Frame::default()
        }]
    };
    for build in ["00000001", "00000002"] {
        let names = vec![
            (0x100, frame("core::num::wrapping_mul")),
            (0x200, frame(GUILTY)),
            (0x300, frame("emberline_demo::checkout::quote")),
        ];
        server.store.put_symbols(build, names).unwrap();
    }
    let named = judge_after(&server, &server.collector, stated + 3).await;
    assert_eq!(named[0].function.as_ref().unwrap().name, GUILTY);
    assert_eq!(named[0].id, tired[0].id);
    // Names that are known in time let it fire at once.
    let early = judge_after(&server, &fresh_collector(&server), stated + 1).await;
    assert_eq!(early[0].state, AlertStatus::Firing);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_is_slow_because_of_its_callee_is_listed_below_it() {
    let server = Server::start(|_| {}).await;
    // Both services roll out v2 at the same time; frontend v2 calls checkout v2 only. The caller is not twice as slow, so it
    // takes five minutes.
    for number in 0..60 {
        let mut all = Vec::new();
        for version in ["v1", "v2"] {
            if version == "v2" && number < CANARY_STARTS {
                continue;
            }
            let slow = if version == "v2" { 4_000_000 } else { 0 };
            let durations = |base: u64| (0..50u64).map(|n| base + slow + n * 10_000).collect::<Vec<_>>();
            let mut checkout = window("checkout", version, canary::start(number));
            checkout.requests = vec![series(
                Side::Server,
                "/quote/{id}",
                Some(release("frontend", version)),
                &durations(1_600_000),
            )];
            let cpu = 60 + slow as i64 / 20_000;
            checkout.profiles = vec![profile(canary::start(number), &[("/quote/{id}", &[GUILTY], cpu)])];
            let mut frontend = window("frontend", version, canary::start(number));
            frontend.requests = vec![series(Side::Server, "/shop", None, &durations(5_000_000))];
            frontend.profiles = vec![profile(
                canary::start(number),
                &[("/shop", &["emberline_demo::frontend::shop"], 90)],
            )];
            all.extend([checkout, frontend]);
        }
        server.append(all).await;
    }
    server.store.flush_applied().await.unwrap();
    let alerts = judge_after(&server, &server.collector, 59).await;
    assert_eq!(alerts.len(), 1, "{alerts:#?}");
    assert_eq!(alerts[0].service, "checkout");
    assert_eq!(alerts[0].folded.len(), 1);
    assert!(
        alerts[0].folded[0].starts_with("demo/frontend@v2 on /shop"),
        "{:?}",
        alerts[0].folded
    );
    server.stop().await;
}
