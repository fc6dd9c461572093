//! The increase of cumulative histograms, which every SDK sends by default.
//!
//! A stream is a metric of a process with equal attributes and one start. Guarantees: nothing is counted twice,
//! whatever is lost, repeated or reordered in transit; a stream's increase covers exactly the time between two of its
//! exports, or from its start to the first; a new start is a new stream, and counts that decreased under an old start
//! count in full. Values are compared bucket by bucket as sent.
//!
//! An unknown stream counts in full only if it began after the last time at which one may have been forgotten (the
//! start of the server, or an eviction): otherwise counting begins with its first point, which is reported.
//!
//! Wrong on purpose: nothing is seen between the last export of a process and its end. Two processes with equal
//! resources, attributes and starts (nanoseconds) would be one stream.

use std::collections::{HashMap, HashSet};

use super::{
    Decoded,
    buckets::{Counts, Extremes},
    durations::Duration,
    points::{drawn, window_of},
};
use crate::{
    batch::RequestSeries,
    workload::{Component, Workload},
};

/// What a stream weighs apart from its buckets, in buckets (of eight bytes).
const STREAM_BUCKETS: usize = 20;
/// A stream that has been silent for this long is forgotten, in nanoseconds: its process is gone.
const IDLE_NS: u64 = 3_600_000_000_000;
/// Its name in refusals.
pub(super) const SHAPE: &str = "cumulative histogram";

/// A point that counts from the start of its stream.
#[derive(Debug, Clone, PartialEq)]
pub struct CumulativePoint {
    pub(super) workload: Workload,
    pub(super) component: Component,
    /// Hash of the whole resource: identifies the process.
    pub(super) process: u128,
    /// Hash of process, scope, metric, attributes and start: identifies the stream.
    pub(super) stream: u128,
    pub(super) start_unix_ns: u64,
    pub(super) time_unix_ns: u64,
    pub(super) metric: &'static Duration,
    pub(super) unit: f64,
    pub(super) series: RequestSeries,
    pub(super) counts: Counts,
    pub(super) said: Extremes,
}

impl CumulativePoint {
    /// When it was exported, by its sender's clock.
    pub fn time_unix_ns(&self) -> u64 {
        self.time_unix_ns
    }

    /// The sending process, as far as it is identified.
    pub fn process(&self) -> (&Workload, u128) {
        (&self.workload, self.process)
    }
}

/// The previous counts of one process's streams.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Streams {
    streams: HashMap<u128, Stream>,
}

#[derive(Debug, Clone, PartialEq)]
struct Stream {
    time_unix_ns: u64,
    counts: Counts,
    said: Extremes,
}

/// How points compare with the previous ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Growth {
    /// The windows of the increase, and what could not be determined.
    pub decoded: Decoded,
    /// What the next points are compared with.
    pub next: Streams,
    /// The newest export of what was forgotten; 0 if nothing was.
    pub forgotten_unix_ns: u64,
}

impl Decoded {
    /// Counts points that cannot be compared for an external reason.
    pub fn refuse_points(&mut self, points: &[CumulativePoint], reason: &'static str) {
        for point in points {
            self.refuse(&point.workload.service, point.metric.name, SHAPE, reason, 1);
        }
    }
}

impl Streams {
    /// Buckets tracked, with the overhead of streams counted as buckets.
    pub fn buckets(&self) -> usize {
        self.streams
            .values()
            .map(|stream| stream.counts.len() + STREAM_BUCKETS)
            .sum()
    }

    /// The newest export.
    pub fn newest_unix_ns(&self) -> u64 {
        self.streams
            .values()
            .map(|stream| stream.time_unix_ns)
            .max()
            .unwrap_or(0)
    }
}

/// The increase of one process's points since `previous`; unknown streams that began after `sure_since_unix_ns` count
/// in full. `room` is how many buckets may be created.
pub fn grow(
    previous: Option<&Streams>,
    points: &[CumulativePoint],
    sure_since_unix_ns: u64,
    room: &mut usize,
) -> Growth {
    let mut decoded = Decoded::default();
    let mut next = previous.cloned().unwrap_or_default();
    let since = Since::of(&next, points, sure_since_unix_ns);
    for point in points {
        let known = next.streams.get(&point.stream);
        if known.is_some_and(|known| point.time_unix_ns <= known.time_unix_ns) {
            // A repeated or reordered export: a later one includes it.
            continue;
        }
        let from = match known {
            Some(known) => Some(known.time_unix_ns),
            None if since.is_sure(point) => Some(since.start_of(point)),
            None => None,
        };
        let grown = match known.map(|known| (known, point.counts.since(&known.counts))) {
            Some((known, Some(grown))) => (grown, grown_extremes(&known.said, &point.said)),
            // A counter that decreased was restarted without a new start.
            Some((_, None)) | None => (point.counts.clone(), point.said),
        };
        let window = from.map(|from| window_of(from, point.time_unix_ns));
        match window {
            None => decoded.refuse(&point.workload.service, point.metric.name, SHAPE, "cumulative_base", 1),
            Some((start, length)) => {
                let (counts, said) = &grown;
                match counts.histogram(*said, point.unit, drawn(point.stream, point.time_unix_ns), room) {
                    Ok(duration) => {
                        if counts.are_too_wide(*said, point.unit) {
                            let service = &point.workload.service;
                            decoded.doubt(service, point.metric.name, SHAPE, "bounds_too_wide", 1);
                        }
                        let window = decoded.window(&point.workload, point.component, start, length);
                        window.has_requests = true;
                        if duration.count() > 0 {
                            window.requests.push(RequestSeries {
                                duration,
                                ..point.series.clone()
                            });
                        }
                    }
                    Err(reason) => {
                        // Not stored, so that a later export includes what was missed.
                        decoded.refuse(&point.workload.service, point.metric.name, SHAPE, reason, 1);
                        continue;
                    }
                }
            }
        }
        let stream = Stream {
            time_unix_ns: point.time_unix_ns,
            counts: point.counts.clone(),
            said: point.said,
        };
        next.streams.insert(point.stream, stream);
    }
    let forgotten_unix_ns = next.forget_idle();
    Growth {
        decoded,
        next,
        forgotten_unix_ns,
    }
}

impl Streams {
    fn forget_idle(&mut self) -> u64 {
        let oldest = self.newest_unix_ns().saturating_sub(IDLE_NS);
        let mut forgotten = 0;
        self.streams.retain(|_, stream| {
            let stays = stream.time_unix_ns >= oldest;
            if !stays {
                forgotten = forgotten.max(stream.time_unix_ns);
            }
            stays
        });
        forgotten
    }
}

/// The extremes of a stream bound its increase; if they changed, they are the increase's own.
fn grown_extremes(before: &Extremes, now: &Extremes) -> Extremes {
    Extremes {
        sum: now
            .sum
            .zip(before.sum)
            .map(|(now, before)| now - before)
            .filter(|sum| *sum >= 0.0),
        min: now.min,
        max: now.max,
        min_is_older: now.min == before.min,
        max_is_older: now.max == before.max,
    }
}

/// Since when unknown streams of a request have counted.
struct Since {
    sure_since_unix_ns: u64,
    /// By the time of an export: the process's previous export, taken from known streams; otherwise the start of its
    /// first stream. A process exports all its streams at once, so a new one began to count then.
    by_export: HashMap<u64, u64>,
    /// Exports and starts of known streams: if an SDK gives all streams the start of the process, it shows that a new
    /// one belongs to a known process.
    known: HashSet<(u64, u64)>,
}

impl Since {
    fn of(streams: &Streams, points: &[CumulativePoint], sure_since_unix_ns: u64) -> Since {
        let mut before: HashMap<u64, u64> = HashMap::new();
        let mut begun: HashMap<u64, u64> = HashMap::new();
        let mut known = HashSet::new();
        for point in points {
            match streams.streams.get(&point.stream) {
                Some(stream) if stream.time_unix_ns < point.time_unix_ns => {
                    let at = before.entry(point.time_unix_ns).or_default();
                    *at = (*at).max(stream.time_unix_ns);
                    known.insert((point.time_unix_ns, point.start_unix_ns));
                }
                Some(_) => {}
                None if point.start_unix_ns > sure_since_unix_ns => {
                    let at = begun.entry(point.time_unix_ns).or_insert(u64::MAX);
                    *at = (*at).min(point.start_unix_ns);
                }
                None => {}
            }
        }
        begun.extend(before);
        Since {
            sure_since_unix_ns,
            by_export: begun,
            known,
        }
    }

    fn is_sure(&self, point: &CumulativePoint) -> bool {
        let of_known_process =
            point.start_unix_ns > 0 && self.known.contains(&(point.time_unix_ns, point.start_unix_ns));
        point.start_unix_ns > self.sure_since_unix_ns || of_known_process
    }

    fn start_of(&self, point: &CumulativePoint) -> u64 {
        self.by_export
            .get(&point.time_unix_ns)
            .copied()
            .unwrap_or(point.start_unix_ns)
    }
}
