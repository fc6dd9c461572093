//! Requests and profiles of senders of every interval, phase, name and fate, of a load and a cost that are known, over
//! HTTP into a real store: what a comparison then says is the true cost per request, or why there is none; and releases
//! that differ only in how they report do not differ.
//!
//! `analysis/tests/analysis/coverage.rs` holds the same of the join alone, with more combinations.
//!
//! One file because the senders' known truth, what they send of it and what has to come back are one model. Half of it would check
//! the other half against nothing.

use std::collections::BTreeMap;

use crate::support::{Numbers, Server, T0, wire::post};
use emberline_analysis::compare::{CompareOptions, Comparison, compare};
use emberline_model::{
    ProfileType, Release,
    comparison::{Confidence, Judgement, Per},
    coverage::{JoinedBy, Missing},
};
use emberline_storage::{Range, SideQuery};
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, profiles::v1development::ExportProfilesServiceRequest},
    common::v1::{AnyValue, KeyValue, any_value::Value},
    metrics::v1::{Histogram, HistogramDataPoint, Metric, ResourceMetrics, ScopeMetrics, metric::Data},
    profiles::v1development as otlp,
    resource::v1::Resource,
};
use prost::Message;

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
/// When the first processes begin: after the server, as its memory of growing counters asks.
const START_S: i64 = T0 + 100;
/// Functions that share the CPU.
const FUNCTIONS: [&str; 3] = ["shop::price", "shop::tax", "shop::render"];
/// CPU of one sample, milliseconds.
const SAMPLE_MS: i64 = 10;

/// How one signal of a process is sent.
#[derive(Debug, Clone, Copy)]
struct Reports {
    every_ms: i64,
    /// When the sender's timer first fires, after the start of the process.
    phase_ms: i64,
    /// Counted from the start of the process, not from the last export.
    cumulative: bool,
}

const fn every(seconds: i64, cumulative: bool) -> Reports {
    Reports {
        every_ms: seconds * 1000,
        phase_ms: 0,
        cumulative,
    }
}

const METRICS: [Reports; 7] = [
    every(5, false),
    every(10, false),
    every(15, false),
    every(30, false),
    every(60, false),
    every(60, true),
    every(10, true),
];
const PROFILES: [Reports; 4] = [every(5, false), every(10, false), every(15, false), every(60, false)];

/// What had happened by each second.
struct Curve(Vec<f64>);

impl Curve {
    /// Up to an instant, spread evenly within its second.
    fn at(&self, ms: i64) -> i64 {
        let second = (ms / 1000) as usize;
        let (before, after) = (self.0[second], self.0[second + 1]);
        (before + (after - before) * (ms % 1000) as f64 / 1000.0).floor() as i64
    }

    fn between(&self, from_ms: i64, until_ms: i64) -> i64 {
        self.at(until_ms) - self.at(from_ms)
    }
}

/// One release of a service and how its processes report.
struct Sender {
    service: String,
    version: &'static str,
    metrics: Reports,
    profiles: Reports,
    /// The telemetry names instances otherwise than the profiler, another one at each start.
    foreign: bool,
    /// What was not sent yet goes out when a process ends.
    flushes: bool,
    /// Starts and ends of its processes, milliseconds.
    lives: Vec<(i64, i64)>,
    served: Curve,
    samples: Vec<Curve>,
}

/// Load and cost of a release.
#[derive(Clone, Copy)]
struct Truth {
    seconds: usize,
    cost_ms: f64,
    /// Samples come as chance wants it; otherwise each costs what all do.
    by_chance: bool,
}

impl Truth {
    fn curves(self, numbers: &mut Numbers) -> (Curve, Vec<Curve>) {
        let phase = numbers.unit() * 6.0;
        let (mut served, mut samples) = (vec![0.0], vec![vec![0.0]; FUNCTIONS.len()]);
        for second in 0..=self.seconds {
            let swing = 1.0 + 0.3 * (second as f64 / 90.0 + phase).sin();
            let now = (60.0 * swing + 12.0 * (numbers.unit() - 0.5)).round();
            served.push(served[second] + now);
            for of in &mut samples {
                let expected = now * self.cost_ms / SAMPLE_MS as f64 / FUNCTIONS.len() as f64;
                let taken = match self.by_chance {
                    true => poisson(numbers, expected),
                    false => expected,
                };
                of.push(of[second] + taken);
            }
        }
        (Curve(served), samples.into_iter().map(Curve).collect())
    }
}

/// Knuth's way, for small means.
fn poisson(numbers: &mut Numbers, mean: f64) -> f64 {
    let (limit, mut product, mut count) = ((-mean).exp(), numbers.unit(), 0.0);
    while product > limit {
        product *= numbers.unit();
        count += 1.0;
    }
    count
}

/// What one export covers, and the start of its process.
#[derive(Debug, Clone, Copy)]
struct Window {
    from_ms: i64,
    until_ms: i64,
    life: usize,
}

impl Sender {
    fn windows(&self, reports: Reports) -> Vec<Window> {
        let mut windows = Vec::new();
        for (life, &(from, to)) in self.lives.iter().enumerate() {
            let first = if reports.phase_ms == 0 {
                reports.every_ms
            } else {
                reports.phase_ms
            };
            let mut from_ms = from;
            let ends = (from + first..=to).step_by(reports.every_ms as usize);
            let last = Some(to).filter(|_| self.flushes);
            for until_ms in ends.chain(last).filter(|&until| until > from) {
                if until_ms > from_ms {
                    windows.push(Window {
                        from_ms,
                        until_ms,
                        life,
                    });
                }
                from_ms = until_ms;
            }
        }
        windows
    }

    fn resource(&self, instance: &str) -> Resource {
        let attributes = [
            ("service.name", self.service.as_str()),
            ("service.version", self.version),
            ("service.instance.id", instance),
        ];
        Resource {
            attributes: attributes.into_iter().map(|(key, value)| text(key, value)).collect(),
            ..Resource::default()
        }
    }

    fn metrics_of(&self, window: Window) -> ResourceMetrics {
        let from = match self.metrics.cumulative {
            true => self.lives[window.life].0,
            false => window.from_ms,
        };
        let count = self.served.between(from, window.until_ms).unsigned_abs();
        let point = HistogramDataPoint {
            attributes: vec![text("http.route", "/pay")],
            start_time_unix_nano: unix_ns(from),
            time_unix_nano: unix_ns(window.until_ms),
            count,
            sum: Some(count as f64 * 0.03),
            bucket_counts: vec![0, count, 0],
            explicit_bounds: vec![0.01, 0.1],
            ..HistogramDataPoint::default()
        };
        let metric = Metric {
            name: "http.server.request.duration".into(),
            unit: "s".into(),
            data: Some(Data::Histogram(Histogram {
                data_points: vec![point],
                aggregation_temporality: if self.metrics.cumulative { 2 } else { 1 },
            })),
            ..Metric::default()
        };
        let instance = match self.foreign {
            true => format!("{}-{}-4f1c-{}", self.service, self.version, window.life),
            false => "i1".to_owned(),
        };
        ResourceMetrics {
            resource: Some(self.resource(&instance)),
            scope_metrics: vec![ScopeMetrics {
                metrics: vec![metric],
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }
    }

    fn profiles_of(&self, window: Window) -> otlp::ResourceProfiles {
        let samples = self.samples.iter().enumerate().map(|(at, curve)| otlp::Sample {
            stack_index: at as i32 + 1,
            values: vec![curve.between(window.from_ms, window.until_ms) * SAMPLE_MS * 1_000_000],
            ..otlp::Sample::default()
        });
        let cpu = otlp::ValueType {
            type_strindex: 1,
            unit_strindex: 2,
        };
        let profile = otlp::Profile {
            sample_type: Some(cpu),
            period_type: Some(cpu),
            period: SAMPLE_MS * 1_000_000,
            samples: samples.filter(|sample| sample.values[0] > 0).collect(),
            time_unix_nano: unix_ns(window.from_ms),
            duration_nano: ((window.until_ms - window.from_ms) * 1_000_000).unsigned_abs(),
            ..otlp::Profile::default()
        };
        otlp::ResourceProfiles {
            resource: Some(self.resource("i1")),
            scope_profiles: vec![otlp::ScopeProfiles {
                profiles: vec![profile],
                ..otlp::ScopeProfiles::default()
            }],
            ..otlp::ResourceProfiles::default()
        }
    }
}

fn unix_ns(ms: i64) -> u64 {
    (START_S * 1_000 + ms).unsigned_abs() * 1_000_000
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.into())),
        }),
        ..KeyValue::default()
    }
}

/// One stack for each of [`FUNCTIONS`]; their names are the strings from 3 on.
fn dictionary() -> otlp::ProfilesDictionary {
    let mut dictionary = otlp::ProfilesDictionary {
        string_table: vec![String::new(), "cpu".into(), "nanoseconds".into()],
        mapping_table: vec![otlp::Mapping::default()],
        location_table: vec![otlp::Location::default()],
        function_table: vec![otlp::Function::default()],
        link_table: vec![otlp::Link::default()],
        attribute_table: vec![otlp::KeyValueAndUnit::default()],
        stack_table: vec![otlp::Stack::default()],
    };
    for (at, name) in FUNCTIONS.into_iter().enumerate() {
        let index = at as i32 + 1;
        dictionary.string_table.push(name.into());
        dictionary.function_table.push(otlp::Function {
            name_strindex: index + 2,
            ..otlp::Function::default()
        });
        dictionary.location_table.push(otlp::Location {
            lines: vec![otlp::Line {
                function_index: index,
                ..otlp::Line::default()
            }],
            ..otlp::Location::default()
        });
        dictionary.stack_table.push(otlp::Stack {
            location_indices: vec![index],
        });
    }
    dictionary
}

/// Sends everything that all of them report, in the order of time, and moves the server's clock with it.
async fn report(server: &Server, senders: &[Sender]) {
    // The exports of five seconds travel together, as a gateway sends them on.
    let mut steps: BTreeMap<i64, [Vec<(usize, Window)>; 2]> = BTreeMap::new();
    for (at, sender) in senders.iter().enumerate() {
        for (signal, reports) in [sender.metrics, sender.profiles].into_iter().enumerate() {
            for window in sender.windows(reports) {
                steps.entry(window.until_ms / 5_000).or_default()[signal].push((at, window));
            }
        }
    }
    for (step, [metrics, profiles]) in steps {
        server.clock.set(START_S + (step + 1) * 5);
        let request = ExportMetricsServiceRequest {
            resource_metrics: metrics
                .iter()
                .map(|&(at, window)| senders[at].metrics_of(window))
                .collect(),
        };
        send(server, "/v1/metrics", &request.encode_to_vec()).await;
        let request = ExportProfilesServiceRequest {
            resource_profiles: profiles
                .iter()
                .map(|&(at, window)| senders[at].profiles_of(window))
                .collect(),
            dictionary: Some(dictionary()),
        };
        send(server, "/v1development/profiles", &request.encode_to_vec()).await;
    }
    server.store.flush_applied().await.unwrap();
}

async fn send(server: &Server, path: &str, body: &[u8]) {
    let (status, answer) = post(server.http, path, &[PROTOBUF], body).await;
    assert!(
        status == 200 && answer.ends_with("\r\n\r\n"),
        "nothing is left out: {answer}"
    );
}

/// What `/api/v1/diff` says of v1 and v2 of a service.
async fn diff(server: &Server, service: &str) -> Comparison {
    let side = |version: &str| {
        let release = Release {
            namespace: String::new(),
            service: service.to_owned(),
            version: version.to_owned(),
        };
        SideQuery::new(release, Range::ALL)
    };
    let sides = server.store.both_sides(side("v1"), side("v2"), false).await.unwrap();
    let options = CompareOptions {
        profile_type: &ProfileType::cpu(),
        per: sides.per,
        route: None,
        whole_service: sides.whole_service,
        tree_limit: None,
        own: &[],
    };
    compare(&sides.baseline, &sides.candidate, options)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cost_per_request_is_the_true_one_whatever_is_sent_when_and_under_which_name() {
    const SECONDS: usize = 600;
    const COSTS_MS: [f64; 2] = [1.0, 2.0];
    let mut numbers = Numbers(1);
    let mut senders: Vec<Sender> = Vec::new();
    // A pair of releases of each combination: the other one's processes live otherwise.
    let lives = [
        vec![(0, 600_000)],
        vec![(0, 203_400), (217_000, 600_000)],
        vec![(2_300, 150_000), (151_000, 277_700), (350_000, 599_000)],
    ];
    for metrics in METRICS {
        for profiles in PROFILES {
            for phases_ms in [(0, 0), (0, 3_000), (7_400, 2_600), (31_250, 8_700)] {
                for foreign in [false, true] {
                    let service = format!("s{}", senders.len() / 2);
                    for (side, cost_ms) in COSTS_MS.into_iter().enumerate() {
                        let at = senders.len();
                        let truth = Truth {
                            seconds: SECONDS,
                            cost_ms,
                            by_chance: false,
                        };
                        let (served, samples) = truth.curves(&mut numbers);
                        let later = |reports: Reports, ms: i64| Reports {
                            phase_ms: ms % reports.every_ms,
                            ..reports
                        };
                        senders.push(Sender {
                            service: service.clone(),
                            version: ["v1", "v2"][side],
                            metrics: later(metrics, phases_ms.0),
                            profiles: later(profiles, phases_ms.1),
                            foreign,
                            flushes: (at / 2 + side).is_multiple_of(2),
                            lives: lives[(at / 2 + side) % 3].clone(),
                            served,
                            samples,
                        });
                    }
                }
            }
        }
    }
    let server = Server::start(|_| {}).await;
    report(&server, &senders).await;
    let (mut worst, mut wrong, mut stated) = (0.0f64, Vec::new(), 0);
    for pair in senders.chunks(2) {
        let answer = diff(&server, &pair[0].service).await;
        for (side, sender, cost_ms) in [
            (&answer.baseline, &pair[0], COSTS_MS[0]),
            (&answer.candidate, &pair[1], COSTS_MS[1]),
        ] {
            let error = (side.value / cost_ms / 1e6 - 1.0).abs();
            worst = worst.max(error);
            let joined_by = if sender.foreign {
                JoinedBy::Release
            } else {
                JoinedBy::Instance
            };
            let said = side.coverage.missing.is_none() && side.coverage.joined_by == joined_by;
            // What a process served and spent in its first and last moments is not lost with them.
            if error > 0.02 || !said || side.coverage.covered_s < 250 {
                wrong.push(format!(
                    "{:?} {:?} foreign {} flushes {} {:?}: {} ms, {:?}",
                    sender.metrics,
                    sender.profiles,
                    sender.foreign,
                    sender.flushes,
                    sender.lives,
                    side.value / 1e6,
                    side.coverage
                ));
            }
        }
        stated += u32::from(answer.judgement == Judgement::Changed);
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(senders.len(), 7 * 4 * 4 * 2 * 2);
    println!(
        "{} releases, furthest from the truth: {:.2} %; of {} pairs, {stated} are said to differ",
        senders.len(),
        worst * 100.0,
        senders.len() / 2
    );
    // One release costs twice the other. A few windows of a minute, cut by restarts, may not be enough to state it.
    assert!(stated >= 216, "{stated} of {}", senders.len() / 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn releases_that_report_otherwise_do_not_differ() {
    const PAIRS: usize = 200;
    const SECONDS: usize = 900;
    let mut numbers = Numbers(3);
    let mut senders = Vec::new();
    for at in 0..2 * PAIRS {
        let truth = Truth {
            seconds: SECONDS,
            cost_ms: 2.0,
            by_chance: true,
        };
        let (served, samples) = truth.curves(&mut numbers);
        let mut any = |all: &[Reports]| {
            let reports = all[(numbers.unit() * all.len() as f64) as usize];
            let phase_ms = (numbers.unit() * reports.every_ms as f64) as i64;
            Reports { phase_ms, ..reports }
        };
        senders.push(Sender {
            service: format!("s{}", at / 2),
            version: ["v1", "v2"][at % 2],
            metrics: any(&METRICS),
            profiles: any(&PROFILES),
            foreign: numbers.unit() < 0.5,
            flushes: numbers.unit() < 0.5,
            lives: match numbers.unit() < 0.5 {
                true => vec![(0, 900_000)],
                false => vec![(0, 303_400), (317_000, 900_000)],
            },
            served,
            samples,
        });
    }
    let server = Server::start(|_| {}).await;
    report(&server, &senders).await;
    let (mut changed, mut strong) = (0, 0);
    for pair in senders.chunks(2) {
        let answer = diff(&server, &pair[0].service).await;
        assert_eq!(answer.per, Per::Request);
        changed += u32::from(answer.judgement == Judgement::Changed);
        strong += u32::from(answer.functions.iter().any(|row| row.confidence == Confidence::Strong));
    }
    println!("{changed} of {PAIRS} pairs are said to differ, {strong} in some function");
    // 1 % of them are expected at most; more than 7 would be by chance once in a thousand runs.
    assert!(changed <= 7, "{changed} of {PAIRS}");
    assert!(strong <= 7, "{strong} of {PAIRS}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_divided_says_why() {
    let mut numbers = Numbers(5);
    let mut sender = |version, lives: Vec<(i64, i64)>| {
        let truth = Truth {
            seconds: 600,
            cost_ms: 1.0,
            by_chance: false,
        };
        let (served, samples) = truth.curves(&mut numbers);
        Sender {
            service: "s".to_owned(),
            version,
            metrics: every(60, true),
            profiles: every(10, false),
            foreign: false,
            flushes: false,
            lives,
            served,
            samples,
        }
    };
    // A process that ends before its first export of metrics is known by its profiles only.
    let senders = [sender("v1", vec![(0, 600_000)]), sender("v2", vec![(0, 55_000)])];
    let server = Server::start(|_| {}).await;
    report(&server, &senders).await;
    let answer = diff(&server, "s").await;
    assert_eq!(answer.candidate.coverage.missing, Some(Missing::Requests));
    assert_eq!(
        (answer.candidate.value, answer.judgement),
        (0.0, Judgement::TooFewSamples)
    );
    assert!(answer.summary.contains("v2 sent no requests"), "{}", answer.summary);
    server.stop().await;
}
