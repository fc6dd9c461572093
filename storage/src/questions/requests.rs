//! Which requests were served or made, and how long they took.

mod once;

use std::collections::{BTreeMap, HashMap};

use emberline_model::{
    Component, Histogram, ProfileType, Release, Side,
    comparison::Per,
    coverage::{Join, Stretch},
    protocol::StatusKind,
};

use crate::{
    hot::{
        Span,
        cut::{Cut, Obstacles, QUARTER_OF_HOUR},
        rows::SERIES_REQUESTS,
    },
    questions::{
        Question, View,
        columns::Columns,
        coverage::{Classes, Covered},
        marks::{Lengths, Marks},
        selection::{WorkloadFilter, push_component},
        sql::Sql,
        sums::{self, Summed},
    },
    range::{Range, Step},
    readers::{Failure, Reader},
};

use once::{Once, both_count};

/// Which requests to add up.
///
/// No request counts twice: where an application and its proxy both report a side of the same time, the application's
/// report is used, unless `component` asks for one of them. A proxy belongs to the application of its own instance;
/// where no instance has both, because SDKs use other instance names, to that of its release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestQuery {
    /// Who reports them.
    pub who: WorkloadFilter,
    /// Whose report.
    pub component: Option<Component>,
    /// The end that reports. `None`: both, in separate rows.
    pub side: Option<Side>,
    /// Only this route.
    pub route: Option<String>,
    /// Only requests from (server side) or to (client side) this release.
    pub source: Option<Release>,
    /// Only those that divide certain CPU.
    pub dividing: Option<Dividing>,
    /// Which windows share their rows.
    pub step: Step,
    /// Separate rows for each instance.
    pub by_instance: bool,
    /// Separate rows for windows of these instances that begin before the given second: while they warm up.
    pub warm_until_s: BTreeMap<String, i64>,
    /// When.
    pub range: Range,
}

/// CPU that requests are to divide: that of the time covered by both signals. A proxy's CPU is divided by what the
/// proxy itself reports, an application's by requests reported by either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dividing {
    /// Whose.
    pub component: Component,
    /// What is measured.
    pub profile_type: String,
}

impl Dividing {
    /// CPU time of a component.
    pub fn cpu(component: Component) -> Dividing {
        Dividing {
            component,
            profile_type: ProfileType::CPU.to_owned(),
        }
    }
}

impl RequestQuery {
    /// True when the question only needs sums over processes and steps.
    fn takes_sums(&self) -> bool {
        !self.by_instance && self.who.instance.is_none() && self.warm_until_s.is_empty()
    }

    /// All requests of some workloads in a range.
    pub fn new(who: WorkloadFilter, range: Range) -> RequestQuery {
        RequestQuery {
            who,
            component: None,
            side: None,
            route: None,
            source: None,
            dividing: None,
            step: Step::Range,
            by_instance: false,
            warm_until_s: BTreeMap::new(),
            range,
        }
    }
}

/// Requests that agree in everything except their duration.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestRow {
    /// Start of the window or the step, seconds since the Unix epoch; 0 when all windows are added up.
    pub window_start_s: i64,
    /// Who reports them.
    pub reporter: Release,
    /// Which instance; empty when all are added up.
    pub instance: String,
    /// True for windows of instances that were warming up, as defined by the question.
    pub warming: bool,
    /// Whose report it is.
    pub component: Component,
    /// The end that reports.
    pub side: Side,
    /// Route template.
    pub route: String,
    /// The peer release, if it identified itself.
    pub peer: Option<Release>,
    /// HTTP method; empty where there is none.
    pub method: String,
    /// The target as named by the caller; empty if it gave none.
    pub destination: String,
    /// The name of a [`Protocol`](emberline_model::protocol::Protocol), or whatever another reporter calls it.
    pub protocol: String,
    /// HTTP status; for gRPC the `grpc-status`; 0 when no response came.
    pub status: u16,
    /// They failed.
    pub error: bool,
    /// One entry per request; see [`RequestRow::latency`].
    pub duration: Histogram,
    /// How many of them count: requests of partly covered windows count in part. All of them where nothing is to be
    /// divided.
    pub counted: f64,
    /// Total time for which they continued beyond their latency, in seconds.
    pub streaming_s: f64,
    /// Body bytes received from the caller.
    pub request_bytes: u64,
    /// Body bytes sent to the caller.
    pub response_bytes: u64,
    /// Streams and connections open at the end of the window. Only meaningful for a single window and instance: added
    /// up, it says nothing.
    pub open: u64,
}

impl RequestRow {
    /// True for requests that their callers gave up on: they count, but have no latency.
    pub fn is_given_up(&self) -> bool {
        StatusKind::of_name(&self.protocol).is_given_up(self.status)
    }

    /// Latencies; `None` for requests that were given up on.
    pub fn latency(&self) -> Option<&Histogram> {
        (!self.is_given_up()).then_some(&self.duration)
    }
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    window: u32,
    reporter: Release,
    instance: String,
    warming: bool,
    component: Component,
    side: Side,
    route: String,
    peer: Option<Release>,
    method: String,
    destination: String,
    protocol: String,
    status: u16,
    error: bool,
}

#[derive(Default)]
struct Sums {
    duration: Histogram,
    counted: f64,
    streaming_s: f64,
    request_bytes: u64,
    response_bytes: u64,
    open: u64,
}

/// Memory of a row with its names while it becomes part of an answer, in bytes: for a moment there are two copies.
/// Measured with the allocator's profile of tens of thousands of rows. Its buckets are counted as they come.
const ROW_BYTES: usize = 3072;

impl Question for RequestQuery {
    type Answer = Vec<RequestRow>;

    fn range(&self) -> Range {
        self.range
    }

    fn run(&self, view: &View<'_>) -> Result<Vec<RequestRow>, Failure> {
        requests(view.reader, view.span, self)
    }
}

/// Answers a request query.
pub(crate) fn requests(reader: &Reader<'_>, span: &Span, query: &RequestQuery) -> Result<Vec<RequestRow>, Failure> {
    if span.is_empty() {
        return Ok(Vec::new());
    }
    let covered = match &query.dividing {
        Some(of) => Some(Covered::read(reader, span, &query.who, &of.profile_type, Per::Request)?),
        None => None,
    };
    // Boxed, because a growing table is in memory twice, the new one with empty slots.
    let mut added: HashMap<Box<Key>, Box<Sums>> = HashMap::new();
    each(reader, span, query, covered.as_ref(), |columns, row, counts| {
        let duration = duration(columns, row)?;
        let key = key(columns, row, &counts, query)?;
        let sums = match added.get_mut(&key) {
            Some(sums) => sums,
            None => {
                reader.hold(ROW_BYTES)?;
                added.entry(Box::new(key)).or_default()
            }
        };
        sums.counted += duration.count() as f64 * counts.share;
        let before = sums.duration.buckets().len();
        sums.duration.merge(&duration);
        // A vector grows by doubling.
        let more = sums.duration.buckets().len().saturating_sub(before);
        reader.hold(2 * size_of::<(i16, u64)>() * more)?;
        let (request_bytes, response_bytes) = (columns.u64(22)?, columns.u64(23)?);
        sums.request_bytes = sums.request_bytes.saturating_add(request_bytes[row]);
        sums.response_bytes = sums.response_bytes.saturating_add(response_bytes[row]);
        sums.streaming_s += columns.f64(25)?[row];
        sums.open = sums.open.saturating_add(columns.u64(26)?[row]);
        Ok(())
    })?;
    let mut sums: Vec<(Box<Key>, Box<Sums>)> = added.into_iter().collect();
    sums.sort_by(|a, b| a.0.cmp(&b.0));
    let rows = sums.into_iter().map(|(key, sums)| (*key, *sums));
    let rows = rows.map(|(key, sums)| RequestRow {
        window_start_s: i64::from(key.window),
        reporter: key.reporter,
        instance: key.instance,
        warming: key.warming,
        component: key.component,
        side: key.side,
        route: key.route,
        peer: key.peer,
        method: key.method,
        destination: key.destination,
        protocol: key.protocol,
        status: key.status,
        error: key.error,
        duration: sums.duration,
        counted: sums.counted,
        streaming_s: sums.streaming_s,
        request_bytes: sums.request_bytes,
        response_bytes: sums.response_bytes,
        open: sums.open,
    });
    Ok(rows.collect())
}

/// How a row counts.
pub(super) struct Counts {
    /// Its window; without a length if nobody needs to know it. For a sum over several windows, a point among their
    /// middles.
    pub(super) window: Stretch,
    pub(super) side: Side,
    /// How much of it counts, above 0.
    pub(super) share: f64,
}

/// Which rows count, and how much.
enum Which<'a> {
    /// All that the statement selects.
    All,
    /// Those that divide the CPU of a component.
    Covered(&'a Covered, Component, Classes),
    /// Proxies' rows only where no application counted the same.
    Once(Box<Once>),
}

/// Passes on every row that counts.
pub(super) fn each(
    reader: &Reader<'_>,
    span: &Span,
    query: &RequestQuery,
    covered: Option<&Covered>,
    mut take: impl FnMut(&Columns<'_>, usize, Counts) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let reporter = match &query.dividing {
        Some(of) if of.component == Component::Proxy => Some(Component::Proxy),
        Some(_) => None,
        None => query.component,
    };
    let which = match (covered, &query.dividing) {
        (Some(covered), Some(of)) => {
            let classes = covered.classes(&[of.component], QUARTER_OF_HOUR);
            Which::Covered(covered, of.component, classes)
        }
        _ if reporter.is_none() && both_count(reader, &query.who)? => {
            Which::Once(Box::new(Once::read(reader, span, &query.who)?))
        }
        _ => Which::All,
    };
    let cut = match (&which, query.step.seconds().filter(|_| query.takes_sums())) {
        (Which::All, Some(step_s)) => Cut::new(span, QUARTER_OF_HOUR, step_s, &Obstacles::default()),
        (Which::Covered(_, _, classes), Some(step_s)) => Cut::new(span, QUARTER_OF_HOUR, step_s, &classes.obstacles()),
        _ => Cut::windows(span),
    };
    let alone = sums::times_of_windows(span, &cut, Summed::REQUESTS);
    let lengths = match (&which, query.step) {
        (Which::Covered(covered, ..), _) => covered.marks.lengths(&alone),
        (Which::Once(once), _) => once.marks.lengths(&alone),
        // A step has the windows whose middle is in it.
        (Which::All, Step::Seconds(_)) if !alone.is_empty() => {
            Marks::read(reader, span, &query.who, "")?.lengths(&alone)
        }
        (Which::All, _) => Lengths::default(),
    };
    statement(span, &cut, query, reporter).run(reader, |columns| {
        let (ts, workload) = (columns.u32(0)?, columns.u64(21)?);
        let (reporter, sides) = (columns.u8(5)?, columns.u8(6)?);
        let (piece, unit) = (columns.u32(27)?, columns.u32(28)?);
        for row in 0..columns.rows() {
            // Rows have had a side ever since they were written; any other code is damage.
            let Some(side) = Side::from_code(u32::from(sides[row])) else {
                continue;
            };
            let is_sum = unit[row] > 0;
            let window = Stretch {
                instance: workload[row],
                start_s: piece[row],
                length_s: match is_sum {
                    true => 0,
                    false => lengths.of(workload[row], reporter[row], ts[row]),
                },
            };
            let share = match &which {
                Which::All => Some(1.0),
                Which::Covered(covered, component, classes) if is_sum => {
                    let release = covered.marks.release_of(workload[row]);
                    let counts = |release| classes.counts(release, *component, ts[row], unit[row]);
                    release.is_some_and(counts).then_some(1.0)
                }
                Which::Covered(covered, component, _) => {
                    covered.share_of_requests(*component, &window, reporter[row], side)
                }
                Which::Once(once) => (!once.is_counted_by_application(&window, reporter[row], side)).then_some(1.0),
            };
            if let Some(share) = share {
                take(&columns, row, Counts { window, side, share })?;
            }
        }
        Ok(())
    })
}

fn statement(span: &Span, cut: &Cut, query: &RequestQuery, reporter: Option<Component>) -> Sql {
    let mut sql = Sql::new(
        "SELECT r.ts, d.namespace, d.service, d.version, d.instance, d.component, r.side, r.route, r.peer_namespace,
            r.peer_service, r.peer_version, r.method, r.protocol, r.status, r.error, r.zero_count, r.sum, r.min, r.max,
            r.bucket, r.n, d.workload_id, r.request_bytes, r.response_bytes, coalesce(r.destination, ''),
            coalesce(r.streaming_s, 0), coalesce(r.open, 0), r.piece, r.unit FROM ",
    );
    sql.requests(span, cut)
        .push(" r JOIN series d ON d.series_id = r.series_id WHERE d.profile_type = ")
        .bind(SERIES_REQUESTS.to_owned());
    query.who.push(&mut sql);
    push_component(&mut sql, reporter);
    if let Some(side) = query.side {
        sql.push(" AND r.side = ").bind(side.code());
    }
    sql.and_equals("r.route", query.route.as_ref());
    if let Some(source) = &query.source {
        sql.and_equals("r.peer_namespace", Some(&source.namespace))
            .and_equals("r.peer_service", Some(&source.service))
            .and_equals("r.peer_version", Some(&source.version));
    }
    sql
}

/// Number of requests in a row.
pub(super) fn count(columns: &Columns<'_>, row: usize) -> Result<u64, Failure> {
    let counts = columns.list(20)?.u64(row)?;
    Ok(counts.into_iter().fold(columns.u64(15)?[row], u64::saturating_add))
}

/// Durations in a row.
pub(super) fn duration(columns: &Columns<'_>, row: usize) -> Result<Histogram, Failure> {
    let (zero_count, sum, min, max) = (columns.u64(15)?, columns.f64(16)?, columns.f64(17)?, columns.f64(18)?);
    let (bucket, n) = (columns.list(19)?, columns.list(20)?);
    let buckets = bucket.i16(row)?.into_iter().zip(n.u64(row)?);
    Ok(Histogram::from_parts(
        zero_count[row],
        sum[row],
        min[row],
        max[row],
        buckets,
    ))
}

/// True for a row of requests that their callers gave up on: they count, but have no latency.
pub(super) fn given_up(columns: &Columns<'_>, row: usize) -> Result<bool, Failure> {
    Ok(StatusKind::of_name(&columns.text(12)?.string(row)).is_given_up(columns.u16(13)?[row]))
}

/// The peer of a row, if it identified itself.
pub(super) fn peer(columns: &Columns<'_>, row: usize) -> Result<Option<Release>, Failure> {
    let Some(service) = columns.text(9)?.get(row).map(str::to_owned) else {
        return Ok(None);
    };
    Ok(Some(Release {
        namespace: columns.text(8)?.string(row),
        service,
        version: columns.text(10)?.string(row),
    }))
}

fn key(columns: &Columns<'_>, row: usize, counts: &Counts, query: &RequestQuery) -> Result<Key, Failure> {
    let text = |column| columns.text(column).map(|texts| texts.string(row));
    let warming = match query.warm_until_s.is_empty() {
        true => false,
        false => (query.warm_until_s.get(&text(4)?)).is_some_and(|&until_s| i64::from(counts.window.start_s) < until_s),
    };
    Ok(Key {
        window: match query.step {
            Step::Seconds(seconds) => Join::piece_of(&counts.window, seconds),
            step => step.start_of(counts.window.start_s),
        },
        reporter: Release {
            namespace: text(1)?,
            service: text(2)?,
            version: text(3)?,
        },
        instance: if query.by_instance { text(4)? } else { String::new() },
        warming,
        component: Component::from_code(u32::from(columns.u8(5)?[row])),
        side: counts.side,
        route: text(7)?,
        peer: peer(columns, row)?,
        method: text(11)?,
        destination: text(24)?,
        protocol: text(12)?,
        status: columns.u16(13)?[row],
        error: columns.flag(14)?.value(row),
    })
}
