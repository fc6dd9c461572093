//! A day of one service: processes come and go, releases are tried, fixed, rolled back and scaled to zero, processes start
//! cold, nights are quiet, streams stay open and callers leave. Exactly the slowdowns that were planted are stated, each
//! ends, and nothing else is said; with a restart of the server each hour, too.
//!
//! `EMBERLINE_DAY_HOURS=0-24` plays all of it (some minutes); by default the hours in which most happens.

use std::{collections::BTreeMap, time::Duration};

use emberline_model::{Release, RequestSeries, Side, WorkloadWindow, alert::AlertStatus};

use crate::support::{ManualClock, Numbers, Server, T0, release, series, window};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
/// Processes of the service.
const PROCESSES: usize = 3;
/// A process is replaced after so many seconds.
const LIFE_S: i64 = 47 * MINUTE;
/// Processes start cold.
const COLD_S: i64 = 40;

/// When a release runs, how many of the processes are its, and how slow it makes `/pay`.
struct Stay {
    version: &'static str,
    from_s: i64,
    to_s: i64,
    processes: usize,
    factor: f64,
}

const fn stay(version: &'static str, from_s: i64, to_s: i64, processes: usize, factor: f64) -> Stay {
    Stay {
        version,
        from_s,
        to_s,
        processes,
        factor,
    }
}

/// The day. v2 is good; v3 is a slow canary that is rolled back; v4 is slow, goes out to all, and is fixed by v5; v6 is a slow
/// canary when everything is scaled to zero; v5 is deployed once more; at last everything goes back to v2.
const DAY: [Stay; 12] = [
    stay("v1", 0, 9 * HOUR, 3, 1.0),
    stay("v2", 8 * HOUR, 9 * HOUR, 1, 1.0),
    stay("v2", 9 * HOUR, 13 * HOUR + 15 * MINUTE, 3, 1.0),
    stay("v3", 11 * HOUR, 11 * HOUR + 25 * MINUTE, 1, 3.0),
    stay("v4", 13 * HOUR, 13 * HOUR + 15 * MINUTE, 1, 3.0),
    stay("v4", 13 * HOUR + 15 * MINUTE, 13 * HOUR + 40 * MINUTE, 3, 3.0),
    stay("v5", 13 * HOUR + 40 * MINUTE, 16 * HOUR + 20 * MINUTE, 3, 1.0),
    stay("v6", 16 * HOUR, 16 * HOUR + 20 * MINUTE, 1, 3.0),
    // Scaled to zero for 40 minutes.
    stay("v5", 17 * HOUR, 19 * HOUR, 3, 1.0),
    stay("v5", 19 * HOUR, 20 * HOUR, 3, 1.0),
    stay("v2", 20 * HOUR, 22 * HOUR, 3, 1.0),
    stay("v2", 22 * HOUR, 24 * HOUR, 2, 1.0),
];

/// What is planted: release and the hour in which it begins.
const PLANTED: [(&str, i64); 3] = [("v3", 11), ("v4", 13), ("v6", 16)];

/// Requests of a process in one window: many by day, few by night.
fn rate(second: i64, numbers: &mut Numbers) -> usize {
    match second / HOUR {
        0..=5 | 23 => usize::from(numbers.unit() < 0.2),
        6..=7 | 22 => 4 + (numbers.unit() * 6.0) as usize,
        _ => 25 + (numbers.unit() * 20.0) as usize,
    }
}

/// The windows that begin at a second of the day.
fn windows_at(second: i64) -> Vec<WorkloadWindow> {
    let mut all = Vec::new();
    let mut numbers = Numbers(second as u64 * 7_919 + 3);
    // The whole service is a little slower at times, all releases alike; by less than the floor, because a release that
    // follows another is charged with what the weather adds beyond it (`analysis::latency` says so).
    let weather = 1.0 + 0.08 * (second as f64 / 2_000.0).sin().max(0.0);
    for (place, stay) in DAY.iter().enumerate() {
        if !(stay.from_s..stay.to_s).contains(&second) {
            continue;
        }
        for process in 0..stay.processes.min(PROCESSES) {
            // Each process has a time of its own at which it is replaced; the first were there before.
            let shift = LIFE_S * process as i64 / PROCESSES as i64;
            let generation = (second - stay.from_s + shift) / LIFE_S;
            let born_s = (stay.from_s - shift + generation * LIFE_S).max(stay.from_s);
            let born_s = born_s - born_s.rem_euclid(10);
            let is_cold = second - born_s < COLD_S && stay.from_s > 0;
            let mut one = window("pay", stay.version, T0 + second);
            one.workload.instance = format!("{place}-{process}-{generation}");
            one.has_profiles = false;
            let cold = if is_cold { 6.0 } else { 1.0 };
            one.requests = requests(second, 5.0 * weather * cold, stay.factor, &mut numbers);
            all.push(one);
        }
    }
    all
}

fn requests(second: i64, median_ms: f64, factor: f64, numbers: &mut Numbers) -> Vec<RequestSeries> {
    let caller = || Some(release("frontend", "v1"));
    let count = rate(second, numbers);
    let mut pay = series(
        Side::Server,
        "/pay",
        caller(),
        &numbers.durations(count, median_ms * factor),
    );
    pay.method = "POST".into();
    let look = series(
        Side::Server,
        "/look",
        caller(),
        &numbers.durations(count / 2, median_ms),
    );
    // Callers that left: whatever was done by then.
    let left: Vec<u64> = (0..count / 10).map(|_| (numbers.unit() * 2e6) as u64).collect();
    let mut left = series(Side::Server, "/look", caller(), &left);
    (left.status, left.error) = (0, true);
    // Streams end when they end.
    let streams: Vec<u64> = (0..usize::from(count > 0))
        .map(|_| ((numbers.unit() * 8.0).exp() * 1e8) as u64)
        .collect();
    let streams = series(Side::Server, "/events", None::<Release>, &streams);
    vec![pay, look, left, streams]
}

async fn server(dir: &std::path::Path, clock: &std::sync::Arc<ManualClock>) -> Server {
    Server::start_in(dir.to_owned(), clock.clone(), |config| {
        config.verdict.wait_for_symbols = Duration::ZERO;
    })
    .await
}

/// How often each alert (candidate and route) began to fire, and how often it ended.
type Told = BTreeMap<(String, String), (u32, u32)>;

async fn play(hours: std::ops::Range<i64>, restarts: bool) -> Told {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(T0 + hours.start * HOUR);
    let mut running = server(dir.path(), &clock).await;
    let mut told = Told::new();
    let mut standing: BTreeMap<(String, String), AlertStatus> = BTreeMap::new();
    for minute in hours.start * 60..hours.end * 60 {
        // What was sent in this minute, then a look at it.
        let windows: Vec<WorkloadWindow> = (0..6).flat_map(|n| windows_at(minute * MINUTE + n * 10)).collect();
        running.clock.set(T0 + (minute + 1) * MINUTE + 5);
        if !windows.is_empty() {
            running.append(windows).await;
        }
        if restarts && minute % 60 == 7 {
            running.stop().await;
            running = server(dir.path(), &clock).await;
        }
        let alerts = running.collector.judge_now().await.unwrap();
        let mut now = BTreeMap::new();
        for alert in &alerts {
            if alert.suppressed_reason.is_none() && alert.state != AlertStatus::Suspected {
                now.insert((alert.candidate.clone(), alert.route.clone()), alert.state);
            }
        }
        for (key, state) in &now {
            let before = standing.get(key);
            let was_over = before.is_none_or(|state| *state == AlertStatus::Resolved);
            let is_over = *state == AlertStatus::Resolved;
            let count = told.entry(key.clone()).or_default();
            count.0 += u32::from(was_over && !is_over);
            count.1 += u32::from(!was_over && is_over);
        }
        for (key, state) in &standing {
            assert!(
                *state == AlertStatus::Resolved || now.contains_key(key),
                "{key:?} vanished at minute {minute}"
            );
        }
        standing = now;
    }
    running.stop().await;
    told
}

async fn exactly_what_was_planted(restarts: bool) {
    let hours = std::env::var("EMBERLINE_DAY_HOURS").unwrap_or_else(|_| "10-15".to_owned());
    let (from, to) = hours.split_once('-').expect("hours as 0-24");
    let hours: std::ops::Range<i64> = from.parse().unwrap()..to.parse().unwrap();
    let planted = PLANTED.iter().filter(|(_, hour)| hours.contains(hour));
    let expected: Told = planted
        .map(|(version, _)| (((*version).to_owned(), "/pay".to_owned()), (1, 1)))
        .collect();
    assert_eq!(play(hours, restarts).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_day_exactly_what_was_planted_is_stated_and_ends() {
    exactly_what_was_planted(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_add_nothing_to_a_day_and_take_nothing_from_it() {
    exactly_what_was_planted(true).await;
}
