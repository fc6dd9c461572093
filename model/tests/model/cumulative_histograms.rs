//! Histograms that grow from the start of a stream: whatever is lost, repeated, overtaken or begun anew on the way, what is
//! stored is what was counted, or the loss is said.

use std::collections::HashMap;

use crate::explicit_bounds::{ADVISED, counted, request, text};
use emberline_model::otlp::{self, Decoded, Streams, grow};
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Histogram, HistogramDataPoint,
    exponential_histogram_data_point::Buckets, metric::Data,
};
use proptest::prelude::*;

const NS: u64 = 1_000_000_000;
const T0: u64 = 1_790_000_000 * NS;
const NAME: &str = "http.server.request.duration";

/// A server: what it knows, and since when it has known everything.
struct Server {
    streams: Option<Streams>,
    sure_since: u64,
}

impl Server {
    fn started(at: u64) -> Server {
        Server {
            streams: None,
            sure_since: at,
        }
    }

    fn take(&mut self, data: Data) -> Decoded {
        let mut decoded = otlp::decode_metrics(request(NAME, "s", data));
        assert!(decoded.windows.is_empty());
        let points = std::mem::take(&mut decoded.cumulative);
        assert_eq!(decoded.rejected_total(), 0);
        let growth = grow(self.streams.as_ref(), &points, self.sure_since, &mut 100_000);
        self.streams = Some(growth.next);
        self.sure_since = self.sure_since.max(growth.forgotten_unix_ns);
        growth.decoded
    }
}

fn cumulative(points: Vec<HistogramDataPoint>) -> Data {
    Data::Histogram(Histogram {
        data_points: points,
        aggregation_temporality: 2,
    })
}

fn point(route: &str, start: u64, time: u64, values: &[f64]) -> HistogramDataPoint {
    HistogramDataPoint {
        attributes: vec![text("http.route", route)],
        start_time_unix_nano: start,
        time_unix_nano: time,
        count: values.len() as u64,
        sum: Some(values.iter().sum()),
        bucket_counts: counted(values, &ADVISED),
        explicit_bounds: ADVISED.to_vec(),
        min: values.iter().copied().reduce(f64::min),
        max: values.iter().copied().reduce(f64::max),
        ..HistogramDataPoint::default()
    }
}

/// Windows as seconds after the first instant, length and requests.
fn windows(decoded: &Decoded) -> Vec<(i64, u32, u64)> {
    let count = |w: &emberline_model::WorkloadWindow| w.requests.iter().map(|r| r.duration.count()).sum();
    let mut all: Vec<_> = decoded
        .windows
        .iter()
        .map(|w| (w.start_unix_s - 1_790_000_000, w.length_s, count(w)))
        .collect();
    all.sort_unstable();
    all
}

#[test]
fn an_export_covers_the_time_since_the_one_before() {
    let mut server = Server::started(T0);
    let at = |s: u64| T0 + s * NS + 300_000_000;
    // SDKs let a stream begin with its first value.
    let first = server.take(cumulative(vec![point("/a", at(20), at(63), &[0.02; 3])]));
    assert_eq!(windows(&first), [(20, 43, 3)]);
    let values = [vec![0.02; 3], vec![0.2; 2]].concat();
    // A route that is new was not asked for in the exports before, all of which held everything.
    let both = vec![
        point("/a", at(20), at(123), &values),
        point("/b", at(110), at(123), &[0.01]),
    ];
    let second = server.take(cumulative(both));
    assert_eq!(windows(&second), [(63, 60, 3)]);
    let grown = &second.windows[0].requests[0].duration;
    assert_eq!((grown.count(), grown.max()), (2, 0.2));
    assert!((grown.sum() - 0.4).abs() < 1e-9 && grown.min() > 0.09, "{grown:?}");
    // Nothing happened: that is known too.
    let idle = vec![
        point("/a", at(20), at(183), &values),
        point("/b", at(110), at(183), &[0.01]),
    ];
    let third = server.take(cumulative(idle));
    assert_eq!(windows(&third), [(123, 60, 0)]);
    assert!(third.windows[0].has_requests && third.windows[0].requests.is_empty());
    // The export before was lost: the next one covers both, and a repeated one nothing.
    let more = [values.clone(), vec![0.02; 4]].concat();
    let late = || {
        cumulative(vec![
            point("/a", at(20), at(303), &more),
            point("/b", at(110), at(303), &[0.01]),
        ])
    };
    assert_eq!(windows(&server.take(late())), [(183, 120, 4)]);
    assert!(server.take(late()).windows.is_empty());
    assert!(
        server
            .take(cumulative(vec![point("/a", at(20), at(243), &values)]))
            .windows
            .is_empty()
    );
}

#[test]
fn a_restart_counts_whole_by_its_start_and_a_fall_under_an_old_start_too() {
    let mut server = Server::started(T0);
    let at = |s: u64| T0 + s * NS;
    server.take(cumulative(vec![point("/a", at(1), at(60), &[0.02; 5])]));
    // The same attributes and more requests than before; only the start tells.
    let restarted = server.take(cumulative(vec![point("/a", at(70), at(100), &[0.02; 9])]));
    assert_eq!(windows(&restarted), [(70, 30, 9)]);
    // The last words of the process before come late, and count as its own.
    let late = server.take(cumulative(vec![point("/a", at(1), at(65), &[0.02; 7])]));
    assert_eq!(windows(&late), [(60, 5, 2)]);
    let fell = server.take(cumulative(vec![point("/a", at(70), at(160), &[0.02; 4])]));
    assert_eq!(windows(&fell), [(100, 60, 4)]);
}

#[test]
fn a_server_that_did_not_see_the_start_takes_the_first_export_as_the_base_and_says_so() {
    let mut server = Server::started(T0 + 100 * NS);
    let at = |s: u64| T0 + s * NS;
    let base = server.take(cumulative(vec![point("/a", at(1), at(120), &[0.02; 50])]));
    assert!(base.windows.is_empty());
    let said = &base.rejected[0];
    assert_eq!(
        (said.reason, said.count, said.shape),
        ("cumulative_base", 1, "cumulative histogram")
    );
    // A new route of the process that is known now: SDKs that give every stream the start of the process.
    let next = vec![
        point("/a", at(1), at(180), &[0.02; 57]),
        point("/b", at(1), at(180), &[0.02; 2]),
    ];
    assert_eq!(windows(&server.take(cumulative(next))), [(120, 60, 9)]);
    // Streams without a start begin with their first export.
    let unknown = server.take(cumulative(vec![point("/c", 0, at(180), &[0.02; 3])]));
    assert_eq!(unknown.rejected_total(), 1);
    assert_eq!(
        windows(&server.take(cumulative(vec![point("/c", 0, at(240), &[0.02; 4])]))),
        [(180, 60, 1)]
    );
}

#[test]
fn an_exponential_stream_that_changes_its_scale_goes_on() {
    let mut server = Server::started(T0);
    let export = |second: u64, scale: i32, offset: i32, bucket_counts: Vec<u64>, zero_count: u64| {
        let count = bucket_counts.iter().sum::<u64>() + zero_count;
        let positive = Some(Buckets { offset, bucket_counts });
        let point = ExponentialHistogramDataPoint {
            start_time_unix_nano: T0 + 1,
            time_unix_nano: T0 + second * NS,
            count,
            scale,
            zero_count,
            positive,
            ..ExponentialHistogramDataPoint::default()
        };
        Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![point],
            aggregation_temporality: 2,
        })
    };
    assert_eq!(
        windows(&server.take(export(60, 20, -7_000_000, vec![2, 1], 1))),
        [(0, 60, 4)]
    );
    // 2^-6.7 seconds at scale 3 is bucket -54; a value of 2 s made the range wide.
    let mut wide = vec![0; 62];
    wide[0] = 4;
    wide[61] = 1;
    let second = server.take(export(120, 3, -54, wide, 3));
    assert_eq!(windows(&second), [(60, 60, 4)]);
    let grown = &second.windows[0].requests[0].duration;
    assert_eq!((grown.zero_count(), grown.count()), (2, 4));
    assert!(
        server.take(export(180, 3, -54, vec![3], 3)).windows[0].requests[0]
            .duration
            .count()
            == 6,
        "a fall"
    );
}

/// What happens to a process and to what it sends.
#[derive(Debug, Clone)]
enum Event {
    Serve { route: usize, values: Vec<f64> },
    Export { arrives: Arrival },
    Restart,
    ServerRestart,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Arrival {
    Once,
    Twice,
    Lost,
    /// Behind the next one.
    Late,
}

fn event() -> impl Strategy<Value = Event> {
    let arrival = prop_oneof![
        5 => Just(Arrival::Once), 1 => Just(Arrival::Twice), 1 => Just(Arrival::Lost), 1 => Just(Arrival::Late)
    ];
    prop_oneof![
        6 => (0usize..3, prop::collection::vec(0.001f64..20.0, 1..8)).prop_map(|(route, values)| Event::Serve { route, values }),
        6 => arrival.prop_map(|arrives| Event::Export { arrives }),
        1 => Just(Event::Restart),
        1 => Just(Event::ServerRestart),
    ]
}

/// Counts per bucket, stream by stream, as the sender had them.
type Export = Vec<((usize, u64), HistogramDataPoint)>;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn what_is_stored_is_what_was_counted_or_the_loss_is_said(events in prop::collection::vec(event(), 1..60), starts_agree: bool) {
        let mut server = Server::started(T0);
        let mut clock = T0;
        let mut process = T0 + 1;
        clock += 2;
        // By route: start and values of the stream of the process that runs.
        let mut running: HashMap<usize, (u64, Vec<f64>)> = HashMap::new();
        let mut waiting: Option<Export> = None;
        // By stream: what the server that runs has seen of it, and since when it counts.
        let mut seen: HashMap<(usize, u64), u64> = HashMap::new();
        let (mut stored, mut expected, mut bases, mut said) = (0u64, 0u64, 0u64, 0u64);
        let mut server_started = T0;
        for event in events {
            clock += 7 * NS;
            let mut arrived: Vec<Export> = Vec::new();
            match event {
                Event::Serve { route, values } => {
                    let start = if starts_agree { process } else { clock };
                    running.entry(route).or_insert((start, Vec::new())).1.extend(values);
                }
                Event::Restart => {
                    running.clear();
                    process = clock;
                }
                Event::ServerRestart => {
                    server = Server::started(clock);
                    seen.clear();
                    server_started = clock;
                }
                Event::Export { arrives } => {
                    let export: Export = running
                        .iter()
                        .map(|(route, (start, values))| ((*route, *start), point(&format!("/{route}"), *start, clock, values)))
                        .collect();
                    match arrives {
                        Arrival::Lost => {}
                        Arrival::Late => waiting = Some(export),
                        Arrival::Once | Arrival::Twice => {
                            arrived.push(export.clone());
                            if arrives == Arrival::Twice {
                                arrived.push(export);
                            }
                            arrived.extend(waiting.take());
                        }
                    }
                }
            }
            for export in arrived {
                // A process of which this server knows a stream of the same start has had no other before.
                let known_starts: Vec<u64> = export
                    .iter()
                    .filter(|(key, _)| seen.contains_key(key))
                    .map(|((_, start), _)| *start)
                    .collect();
                let fresh: Vec<bool> = export
                    .iter()
                    .map(|((_, start), _)| *start > server_started || known_starts.contains(start))
                    .collect();
                let time = export.first().map_or(0, |(_, point)| point.time_unix_nano);
                let overtaken = time < clock;
                for (((route, start), point), fresh) in export.iter().zip(fresh) {
                    let before = seen.get(&(*route, *start)).copied();
                    match before {
                        Some(before) => expected += point.count.saturating_sub(before),
                        None if fresh => expected += point.count,
                        None => bases += 1,
                    }
                    let now = seen.entry((*route, *start)).or_default();
                    *now = (*now).max(point.count);
                }
                let decoded = server.take(cumulative(export.into_iter().map(|(_, point)| point).collect()));
                stored += windows(&decoded).iter().map(|w| w.2).sum::<u64>();
                said += decoded.rejected_total();
                for (start, length, _) in windows(&decoded) {
                    let end = (start + i64::from(length)) as u64 * NS;
                    prop_assert!(overtaken || T0 + end <= clock + NS, "{} {}", end, clock);
                }
            }
        }
        prop_assert_eq!(said, bases, "what is not counted is said");
        prop_assert_eq!(stored, expected);
    }
}
