//! Which time two signals cover, and how much of each window lies in it: by hand, and second by second.

use emberline_model::{
    Component, Profile, Side, Workload, WorkloadWindow,
    coverage::{Join, JoinedBy, Missing, Run, Stretch},
    otlp::{decode_metrics, decode_profiles, encode_profiles, encode_requests},
};
use proptest::prelude::*;

fn seconds(window: &Stretch) -> std::ops::Range<u64> {
    u64::from(window.start_s)..u64::from(window.start_s) + u64::from(window.length_s)
}

fn windows(instance: u64, start_s: u32, length_s: u32, count: u32) -> Vec<Stretch> {
    let window = |n| Stretch {
        instance,
        start_s: start_s + n * length_s,
        length_s,
    };
    (0..count).map(window).collect()
}

#[test]
fn windows_that_begin_and_end_together_count_whole() {
    let profiles = windows(1, 1000, 10, 6);
    let join = Join::new(&profiles, &profiles);
    assert!(profiles.iter().all(|w| join.share(w) == 1.0));
    assert_eq!((join.coverage().covered_s, join.coverage().missing), (60, None));
    assert_eq!(join.piece_s(), 10);
}

#[test]
fn a_window_that_is_covered_in_part_counts_in_part() {
    // A minute of requests from :07 on, profiles of 15 s from :03 on.
    let (requests, profiles) = (windows(1, 1007, 60, 1), windows(1, 1003, 15, 4));
    let join = Join::new(&profiles, &requests);
    assert_eq!(join.coverage().covered_s, 56);
    assert_eq!(join.share(&profiles[0]), 11.0 / 15.0);
    assert_eq!(join.share(&profiles[1]), 1.0);
    assert_eq!(join.share(&requests[0]), 56.0 / 60.0);
    assert_eq!(join.piece_s(), 60);
}

#[test]
fn a_window_lies_in_the_piece_of_its_middle() {
    // Twenty seconds of a minute from :40 on lie in one minute and forty in the next.
    let minute = windows(1, 60_040, 60, 1)[0];
    assert_eq!(Join::piece_of(&minute, 60), 60_060);
    let ten = windows(1, 60_050, 10, 2);
    assert_eq!(Join::piece_of(&ten[0], 60), 60_000);
    assert_eq!(Join::piece_of(&ten[1], 60), 60_060);
}

#[test]
fn instances_are_joined_with_themselves_and_releases_where_none_has_both() {
    let profiles = [windows(1, 0, 10, 6), windows(2, 0, 10, 6)].concat();
    let some = Join::new(&profiles, &windows(2, 0, 10, 6));
    assert_eq!(some.coverage().joined_by, JoinedBy::Instance);
    assert_eq!(some.share(&profiles[0]), 0.0, "nobody knows its requests");
    let foreign = Join::new(&profiles, &windows(7, 0, 60, 1));
    assert_eq!(foreign.coverage().joined_by, JoinedBy::Release);
    assert!(profiles.iter().all(|w| foreign.share(w) == 1.0));
}

#[test]
fn what_is_missing_is_said() {
    let ten = windows(1, 0, 10, 2);
    let missing = |profiles: &[Stretch], requests: &[Stretch]| Join::new(profiles, requests).coverage().missing;
    assert_eq!(missing(&ten, &[]), Some(Missing::Requests));
    assert_eq!(missing(&[], &ten), Some(Missing::Profiles));
    assert_eq!(missing(&[], &[]), Some(Missing::Both));
    assert_eq!(missing(&ten, &windows(1, 100, 10, 2)), Some(Missing::SameTime));
    assert_eq!(missing(&ten, &ten), None);
}

#[test]
fn what_the_application_counted_is_not_counted_again_for_its_proxy() {
    // The SDK reports every minute, the proxy beside it every ten seconds and a minute longer.
    let (own, proxy) = (windows(1, 0, 60, 1), windows(1, 0, 10, 12));
    let mut join = Join::new(&windows(1, 0, 10, 12), &[own.clone(), proxy.clone()].concat());
    join.prefer(Side::Server, &own);
    let count = |side| proxy.iter().map(|w| join.share_besides(side, w)).sum::<f64>();
    assert_eq!((count(Side::Server), count(Side::Client)), (6.0, 12.0));
}

fn some_windows() -> impl Strategy<Value = Vec<Stretch>> {
    let window = (0u64..4, 0u32..300, 1u32..70).prop_map(|(instance, start_s, length_s)| Stretch {
        instance,
        start_s,
        length_s,
    });
    prop::collection::vec(window, 0..30)
}

proptest! {
    #[test]
    fn shares_are_of_seconds_that_both_cover(profiles in some_windows(), requests in some_windows()) {
        let join = Join::new(&profiles, &requests);
        let covers = |windows: &[Stretch], second: u64, of: Option<u64>| windows.iter().any(|w| {
            of.is_none_or(|of| of == w.instance) && seconds(w).contains(&second)
        });
        let by_instance = profiles.iter().any(|p| requests.iter().any(|r| r.instance == p.instance));
        prop_assert_eq!(join.coverage().joined_by == JoinedBy::Instance, by_instance);
        let mut all = std::collections::BTreeSet::new();
        for window in profiles.iter().chain(&requests) {
            let of = by_instance.then_some(window.instance);
            let both: Vec<u64> = seconds(window)
                .filter(|&second| covers(&profiles, second, of) && covers(&requests, second, of))
                .collect();
            let share = both.len() as f64 / f64::from(window.length_s);
            prop_assert!((join.share(window) - share).abs() < 1e-12);
            prop_assert_eq!(join.times_of(window).seconds(), both.len() as u64);
            all.extend(both);
        }
        prop_assert_eq!(join.coverage().covered_s, all.len() as u64);
        prop_assert_eq!(join.coverage().missing.is_some(), all.is_empty());
    }

    #[test]
    fn a_piece_holds_the_longer_window(a in 1u32..700, b in 1u32..700) {
        let join = Join::new(&windows(1, 0, a, 3), &windows(1, 0, b, 3));
        prop_assert!(join.piece_s() >= a.max(b));
    }
}

/// SDKs and profilers begin whenever their process did: what they send covers its own time, not the window it began in.
#[test]
fn windows_of_others_cover_their_own_time() {
    let window = |start_unix_s, length_s| WorkloadWindow {
        workload: Workload {
            service: "shop".to_owned(),
            ..Workload::default()
        },
        component: Component::Application,
        start_unix_s,
        length_s,
        has_requests: true,
        has_profiles: false,
        requests: Vec::new(),
        profiles: Vec::new(),
    };
    let times = |windows: &[WorkloadWindow]| -> Vec<(i64, u32)> {
        windows.iter().map(|w| (w.start_unix_s, w.length_s)).collect()
    };
    let decoded = decode_metrics(encode_requests(&window(1007, 60)));
    assert_eq!(times(&decoded.windows), [(1007, 60)]);
    let mut profiled = window(1003, 15);
    profiled.profiles = vec![Profile::empty_cpu(1_003_000_000_000, 15_000_000_000)];
    let decoded = decode_profiles(&encode_profiles(&profiled)).unwrap();
    assert_eq!(times(&decoded.windows), [(1003, 15)]);
}

proptest! {
    /// Runs are shorthand: windows taken from them one by one say the same.
    #[test]
    fn runs_say_what_their_windows_say(
        runs in prop::collection::vec((0u64..3, 0u32..400, prop_oneof![Just(7u32), Just(10), Just(60)], 1u32..30), 1..6),
        piece_s in 1u32..200, from_s in 0u32..500, length_s in 1u32..400,
    ) {
        let run = |&(instance, start_s, length_s, windows): &(u64, u32, u32, u32)| Run {
            first: Stretch { instance, start_s, length_s },
            windows,
        };
        let runs: Vec<Run> = runs.iter().map(run).collect();
        let windows: Vec<Stretch> = runs.iter().flat_map(|run| run.windows()).collect();
        for run in &runs {
            let pieces: Vec<(u32, Stretch)> =
                run.pieces(piece_s).flat_map(|(start, piece)| piece.windows().map(move |w| (start, w))).collect();
            let expected: Vec<(u32, Stretch)> = run.windows().map(|w| (Join::piece_of(&w, piece_s), w)).collect();
            prop_assert_eq!(pieces, expected);
            let within = run.beginning_within(from_s, from_s + length_s);
            let within: Vec<Stretch> = within.into_iter().flat_map(Run::windows).collect();
            let expected: Vec<Stretch> =
                run.windows().filter(|w| (from_s..from_s + length_s).contains(&w.start_s)).collect();
            prop_assert_eq!(within, expected);
            prop_assert_eq!(run.windows().last().map(|w| w.start_s), Some(run.last_start_s()));
        }
        let half = runs.len() / 2;
        let of = |runs: &[Run]| runs.iter().flat_map(|run| run.windows()).collect::<Vec<_>>();
        let by_run = Join::of_runs(&runs[..half], &runs[half..]);
        let by_window = Join::new(&of(&runs[..half]), &of(&runs[half..]));
        prop_assert_eq!(by_run.coverage(), by_window.coverage());
        prop_assert_eq!(by_run.piece_s(), by_window.piece_s());
        prop_assert!(windows.iter().all(|w| by_run.share(w) == by_window.share(w)));
    }
}
