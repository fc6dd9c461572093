//! Everything a comparison needs about one release: stacks and requests of the same instances, side, route and time.
//!
//! Guarantees: however long the range, there are at most [`MOST_PIECES`] pieces of time, each at least as long as the
//! longer of the two signals' windows; every window is in exactly one of them. Memory and time of a comparison thus
//! grow with the stacks, not with the range. If both sides' time is [`LONG_S`] or more, pieces are two hours or more,
//! which come from sums where every window of them counts; sums of the range are the same to the nanosecond and the
//! request. Only what is judged by how pieces differ (intervals, p-values) then rests on fewer of them, twelve a day:
//! intervals of functions are typically 4 % wider than with the day's 96 quarters of an hour. The 36 for [`SHORT_S`] or
//! more hold a third of the stacks that a hundred would.
//!
//! Wrong on purpose: a window of samples that come from sums is in the hour in which it begins, one of requests in that
//! of its middle.

use std::collections::{BTreeMap, BTreeSet};

use emberline_model::{
    Component, ProfileType, Release, Side,
    comparison::{Per, SideData, WindowCost},
    coverage::{Join, Stretch},
};

use crate::{
    hot::{
        Grain, Span,
        cut::{Cut, HOUR},
    },
    ids::IdMap,
    questions::{
        Question, View,
        coverage::Covered,
        marks::Starts,
        requests::{self, Dividing, RequestQuery},
        selection::WorkloadFilter,
        services,
        sql::Sql,
        stacks::{self, Labels, StackQuery},
    },
    range::{Range, Step},
    readers::{Failure, Reader},
};

/// Most pieces in an answer: far more than a variance needs.
const MOST_PIECES: u32 = 100;
/// The same from [`SHORT_S`] on: each piece then holds most stacks of a busy service, and a comparison holds all
/// pieces.
const MOST_LONGER_PIECES: u32 = 36;
const SHORT_S: u32 = 20 * 60;
/// Time from the first profile to the last from which pieces are at least [`LONG_PIECE_S`] long: enough for a variance.
const LONG_S: u32 = 23 * HOUR;
const LONG_PIECE_S: u32 = 2 * HOUR;
/// Memory of a stack of a piece while it is added up, in bytes; part of a table that may just have grown.
const ADDED_BYTES: usize = 56;
/// Memory of a stack as part of an answer.
const STACK_BYTES: usize = size_of::<(u64, i64, u64)>();

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideQuery {
    /// The release.
    pub release: Release,
    /// One instance, or all.
    pub instance: Option<String>,
    /// One route; `None`: all, and then samples that belong to no request count, too.
    pub route: Option<String>,
    /// CPU and its divisor are those of all routes, whatever `route` says: only latency is restricted to the route.
    pub whole_service: bool,
    /// Whose CPU.
    pub component: Component,
    /// The side of the requests, and of the labels of samples.
    pub side: Side,
    /// What is measured.
    pub profile_type: String,
    /// What it is to be divided by: for requests, only the time that both signals cover counts. Gauges (memory in use,
    /// goroutines) are averaged over the whole time and divided by nothing, whatever this says.
    pub per: Per,
    /// When.
    pub range: Range,
}

impl SideQuery {
    /// CPU of an application by the requests it served.
    pub fn new(release: Release, range: Range) -> SideQuery {
        SideQuery {
            release,
            instance: None,
            route: None,
            whole_service: false,
            component: Component::Application,
            side: Side::Server,
            profile_type: ProfileType::CPU.to_owned(),
            per: Per::Request,
            range,
        }
    }

    /// What it is divided by.
    pub(crate) fn divided_by(&self) -> Per {
        match ProfileType::is_gauge_text(&self.profile_type) {
            true => Per::Total,
            false => self.per,
        }
    }

    /// The route that CPU is restricted to.
    fn route_of_cpu(&self) -> Option<&String> {
        self.route.as_ref().filter(|_| !self.whole_service)
    }
}

/// Both sides of a comparison.
#[derive(Debug, Clone)]
pub struct BothSides {
    /// The baseline release.
    pub baseline: SideData,
    /// The release being judged.
    pub candidate: SideData,
    /// What their CPU is to be divided by.
    pub per: Per,
    /// Their CPU is that of all routes, although one was requested: no stack has a route.
    pub whole_service: bool,
}

/// One side of a comparison without the names of its stacks; [`crate::Store::side_data`] names them.
#[derive(Debug, Clone)]
pub(crate) struct Unnamed(pub(crate) SideQuery);

impl Question for Unnamed {
    type Answer = SideData;

    fn range(&self) -> Range {
        self.0.range
    }

    fn run(&self, view: &View<'_>) -> Result<SideData, Failure> {
        side_data(view.reader, view.span, &self.0)
    }
}

/// Answers a side query; the stacks are not named yet.
fn side_data(reader: &Reader<'_>, span: &Span, query: &SideQuery) -> Result<SideData, Failure> {
    let who = WorkloadFilter {
        instance: query.instance.clone(),
        ..WorkloadFilter::release(&query.release)
    };
    let mut answer = SideData {
        release: query.release.clone(),
        from_unix_s: query.range.from_unix_s,
        to_unix_s: query.range.to_unix_s,
        windows: Vec::new(),
        latency: Default::default(),
        coverage: Default::default(),
        is_gauge: ProfileType::is_gauge_text(&query.profile_type),
        has_stacks_of_routes: false,
        resolved: Default::default(),
        build_ids: Vec::new(),
    };
    if span.is_empty() {
        return Ok(answer);
    }
    // One state for everything: a batch that becomes visible in between must not add requests without their stacks.
    reader.snapshot(|| {
        // Coverage is reported whatever the divisor.
        let by_request = Covered::read(reader, span, &who, &query.profile_type, Per::Request)?;
        answer.coverage = by_request.coverage(query.component);
        let covered = match query.divided_by() {
            Per::Request => by_request,
            per => Covered::read(reader, span, &who, &query.profile_type, per)?,
        };
        let piece_s = piece_s(&covered, query.component);
        let mut pieces = pieces(&covered, query.component, piece_s);
        let mut workloads = BTreeSet::new();
        let profiles = covered.profiles(query.component);
        workloads.extend(profiles.iter().map(|(run, _)| run.first.instance));
        add_requests(reader, span, query, &who, &covered, piece_s, &mut answer, &mut pieces)?;
        if !workloads.is_empty() {
            add_stacks(reader, span, query, &who, &covered, piece_s, &mut pieces)?;
        }
        let has_stacks = pieces.values().any(|piece| !piece.stacks.is_empty());
        answer.has_stacks_of_routes = match query.route_of_cpu() {
            Some(_) if !has_stacks => has_stacks_of_routes(reader, span, query, &who)?,
            Some(_) => has_stacks,
            None => false,
        };
        answer.build_ids = services::builds(reader, &who)?
            .of(workloads.into_iter(), query.component)
            .into_iter()
            .collect();
        answer.windows = pieces.into_values().collect();
        Ok(())
    })?;
    Ok(answer)
}

/// Length of the pieces of an answer.
fn piece_s(covered: &Covered, component: Component) -> u32 {
    let piece_s = covered.piece_s(component);
    let mut starts: BTreeSet<u32> = BTreeSet::new();
    for (run, _) in covered.profiles(component) {
        // One over the limit is enough to know.
        let pieces = run.pieces(piece_s).take(MOST_PIECES as usize + 1);
        starts.extend(pieces.map(|(start, _)| start));
        let last = Stretch {
            start_s: run.last_start_s(),
            ..run.first
        };
        starts.insert(Join::piece_of(&last, piece_s));
    }
    let (Some(&first), Some(&last)) = (starts.first(), starts.last()) else {
        return piece_s;
    };
    let length_s = last - first;
    let most = if length_s >= SHORT_S {
        MOST_LONGER_PIECES
    } else {
        MOST_PIECES
    };
    if starts.len() <= most as usize {
        return piece_s;
    }
    let least_s = if length_s >= LONG_S { LONG_PIECE_S } else { piece_s };
    Step::length_s(first, last, most).max(least_s).max(piece_s)
}

/// The pieces that profiles cover, still without stacks and requests.
fn pieces(covered: &Covered, component: Component, piece_s: u32) -> BTreeMap<u32, WindowCost> {
    let mut pieces: BTreeMap<u32, WindowCost> = BTreeMap::new();
    let mut starts: BTreeMap<u32, Starts> = BTreeMap::new();
    for (run, share) in covered.profiles(component) {
        for (start, run) in run.pieces(piece_s) {
            let piece = pieces.entry(start).or_default();
            piece.start_unix_s = i64::from(start);
            piece.instance_seconds += f64::from(run.whole().length_s) * share;
            starts.entry(start).or_default().add(&run);
        }
    }
    for (start, starts) in starts {
        pieces.entry(start).or_default().windows = starts.count();
    }
    pieces
}

/// Adds the divisor for the CPU of each piece, and all durations of the range.
fn add_requests(
    reader: &Reader<'_>,
    span: &Span,
    query: &SideQuery,
    who: &WorkloadFilter,
    covered: &Covered,
    piece_s: u32,
    answer: &mut SideData,
    pieces: &mut BTreeMap<u32, WindowCost>,
) -> Result<(), Failure> {
    let mut seen = RequestQuery {
        component: Some(query.component).filter(|&of| of == Component::Proxy),
        side: Some(query.side),
        route: query.route.clone(),
        step: Step::Range,
        ..RequestQuery::new(who.clone(), query.range)
    };
    requests::each(reader, span, &seen, None, |columns, row, _| {
        if !requests::given_up(columns, row)? {
            answer.latency.merge(&requests::duration(columns, row)?);
        }
        Ok(())
    })?;
    if query.divided_by() != Per::Request || answer.coverage.missing.is_some() {
        return Ok(());
    }
    seen.component = None;
    seen.step = Step::Seconds(piece_s);
    seen.route = query.route_of_cpu().cloned();
    seen.dividing = Some(Dividing {
        component: query.component,
        profile_type: query.profile_type.clone(),
    });
    requests::each(reader, span, &seen, Some(covered), |columns, row, counts| {
        let start = Join::piece_of(&counts.window, piece_s);
        let piece = pieces.entry(start).or_default();
        piece.start_unix_s = i64::from(start);
        piece.requests += requests::count(columns, row)? as f64 * counts.share;
        Ok(())
    })
}

/// Adds the stacks of each piece.
fn add_stacks(
    reader: &Reader<'_>,
    span: &Span,
    query: &SideQuery,
    who: &WorkloadFilter,
    covered: &Covered,
    piece_s: u32,
    pieces: &mut BTreeMap<u32, WindowCost>,
) -> Result<(), Failure> {
    let stacks = StackQuery {
        component: Some(query.component),
        only_complete: true,
        step: Step::Seconds(piece_s),
        ..StackQuery::new(who.clone(), &query.profile_type, query.range)
    };
    let labels = match query.route_of_cpu() {
        Some(route) => Labels::Exactly {
            side: Some(query.side),
            route: Some(route),
        },
        None => Labels::SideOrNone(query.side),
    };
    let is_summed = query.instance.is_none() && !ProfileType::is_gauge_text(&query.profile_type);
    let cut = is_summed.then(|| {
        let obstacles = covered.classes(&[query.component], HOUR).obstacles();
        Cut::new(span, HOUR, piece_s, &obstacles)
    });
    let mut sums: BTreeMap<i64, IdMap<(i64, u64)>> = BTreeMap::new();
    let count = pieces.len();
    stacks::each(
        reader,
        span,
        &stacks,
        &labels,
        Some(covered),
        cut.as_ref(),
        count,
        |rows| {
            let mut added = 0;
            // Sums of a stack are adjacent, one per hour.
            for rows in rows.chunk_by(|a, b| (a.stack_id, a.window_start_s) == (b.stack_id, b.window_start_s)) {
                let of_piece = sums.entry(rows[0].window_start_s).or_default();
                let before = of_piece.len();
                let sum = of_piece.entry(rows[0].stack_id).or_default();
                for row in rows {
                    *sum = (sum.0.saturating_add(row.value), sum.1.saturating_add(row.samples));
                }
                added += of_piece.len() - before;
            }
            reader.hold(added * ADDED_BYTES)
        },
    )?;
    for (start_s, stacks) in sums {
        let piece = pieces.entry(u32::try_from(start_s).unwrap_or(u32::MAX)).or_default();
        piece.start_unix_s = start_s;
        piece.stacks = stacks
            .into_iter()
            .map(|(stack, (value, samples))| (stack, value, samples))
            .collect();
        reader.release(piece.stacks.len() * (ADDED_BYTES - STACK_BYTES));
    }
    Ok(())
}

/// True when any stack has a route.
fn has_stacks_of_routes(
    reader: &Reader<'_>,
    span: &Span,
    query: &SideQuery,
    who: &WorkloadFilter,
) -> Result<bool, Failure> {
    let mut sql = Sql::new("SELECT 1::UBIGINT FROM ");
    sql.samples(span, Grain::Windows)
        .push(" s JOIN series d ON d.series_id = s.series_id WHERE d.profile_type = ")
        .bind(query.profile_type.clone())
        .push(" AND d.component = ")
        .bind(query.component.code());
    who.push(&mut sql);
    sql.push(" AND s.label_set IN (SELECT label_set FROM label_sets WHERE route <> '') LIMIT 1");
    sql.finds_any(reader)
}
