//! Everything a comparison needs of one release: stacks and requests of the same instances, side, route and windows.
//!
//! Guarantee: however long the range, there are at most [`MOST_WINDOWS`] windows: longer ones are made of those of ten
//! seconds, each of which is judged by itself. Memory and time of a comparison thus grow with the stacks, not with the range.

use std::collections::{BTreeMap, BTreeSet};

use emberline_model::{
    Component, Release, Side,
    comparison::{SideData, WindowCost},
};

use crate::{
    hot::Span,
    questions::{
        requests::{self, RequestQuery},
        selection::{WorkloadFilter, push_complete},
        services,
        sql::Sql,
        stacks::{self, Labels, StackQuery},
    },
    range::{Range, Step},
    readers::{Failure, Reader},
};

/// Most windows of an answer: far more than a variance needs.
const MOST_WINDOWS: u32 = 100;

/// Which side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideQuery {
    /// The release.
    pub release: Release,
    /// One instance, or all.
    pub instance: Option<String>,
    /// One route; `None`: all, and then samples that belong to no request count, too.
    pub route: Option<String>,
    /// Whose CPU.
    pub component: Component,
    /// The side of the requests, and of the labels of samples.
    pub side: Side,
    /// What is measured.
    pub profile_type: String,
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
            component: Component::Application,
            side: Side::Server,
            profile_type: emberline_model::ProfileType::CPU.to_owned(),
            range,
        }
    }
}

/// Answers a side query; the stacks are not named yet. Only windows whose two signals arrived are there.
pub(crate) fn side_data(reader: &Reader<'_>, span: &Span, query: &SideQuery) -> Result<SideData, Failure> {
    let who = WorkloadFilter {
        instance: query.instance.clone(),
        ..WorkloadFilter::release(&query.release)
    };
    let mut answer = SideData {
        release: query.release.clone(),
        from_unix_s: query.range.from_unix_s,
        to_unix_s: query.range.to_unix_s,
        windows: Vec::new(),
        resolved: Default::default(),
        build_ids: Vec::new(),
    };
    if span.is_empty() {
        return Ok(answer);
    }
    // One state for all: a batch that becomes visible in between must not add requests without its stacks.
    reader.snapshot(|| {
        let complete = CompleteWindows::find(reader, span, &who, query.component)?;
        if complete.seconds.is_empty() {
            return Ok(());
        }
        let step = complete.step();
        let mut windows = complete.added_up(step);
        let stacks = StackQuery {
            component: Some(query.component),
            only_complete: true,
            step,
            ..StackQuery::new(who.clone(), &query.profile_type, query.range)
        };
        let labels = match &query.route {
            Some(route) => Labels::Exactly {
                side: Some(query.side),
                route: Some(route),
            },
            None => Labels::SideOrNone(query.side),
        };
        for row in stacks::sums(reader, span, &stacks, &labels)?.rows {
            if let Some(window) = u32::try_from(row.window_start_s)
                .ok()
                .and_then(|ts| windows.get_mut(&ts))
            {
                window.stacks.push((row.stack_id, row.value, row.samples));
            }
        }
        let requests = RequestQuery {
            component: Some(query.component),
            side: Some(query.side),
            route: query.route.clone(),
            only_complete: true,
            step,
            ..RequestQuery::new(who.clone(), query.range)
        };
        for row in requests::requests(reader, span, &requests)? {
            if let Some(window) = u32::try_from(row.window_start_s)
                .ok()
                .and_then(|ts| windows.get_mut(&ts))
            {
                window.requests = window.requests.saturating_add(row.duration.count());
                window.latency.merge(&row.duration);
            }
        }
        answer.build_ids = services::builds(reader)?.of(complete.workloads.iter().copied(), query.component);
        answer.windows = windows.into_values().collect();
        Ok(())
    })?;
    Ok(answer)
}

/// Windows whose CPU can be divided by requests, and the workloads that have any.
#[derive(Default)]
struct CompleteWindows {
    /// Start → seconds observed, all instances together.
    seconds: BTreeMap<u32, f64>,
    workloads: BTreeSet<u64>,
}

impl CompleteWindows {
    fn find(
        reader: &Reader<'_>,
        span: &Span,
        who: &WorkloadFilter,
        component: Component,
    ) -> Result<CompleteWindows, Failure> {
        let mut sql = Sql::new("WITH ");
        push_complete(&mut sql, who, span);
        sql.push(" SELECT ts, workload_id, length FROM complete WHERE component = ")
            .bind(component.code());
        let mut found = CompleteWindows::default();
        sql.run(reader, |columns| {
            let (start, workload, length) = (columns.u32(0)?, columns.u64(1)?, columns.u32(2)?);
            for row in 0..columns.rows() {
                found.workloads.insert(workload[row]);
                *found.seconds.entry(start[row]).or_default() += f64::from(length[row]);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Which of them share a window of the answer: none, where there are few enough.
    fn step(&self) -> Step {
        let ends = self.seconds.keys().next().zip(self.seconds.keys().next_back());
        match ends {
            Some((first, last)) if self.seconds.len() > MOST_WINDOWS as usize => {
                Step::Seconds(Step::length_s(*first, *last, MOST_WINDOWS))
            }
            _ => Step::Window,
        }
    }

    /// Windows of the answer, without stacks and requests yet.
    fn added_up(&self, step: Step) -> BTreeMap<u32, WindowCost> {
        let mut windows: BTreeMap<u32, WindowCost> = BTreeMap::new();
        for (&start, seconds) in &self.seconds {
            let start = step.start_of(start);
            let window = windows.entry(start).or_default();
            window.start_unix_s = i64::from(start);
            window.windows += 1;
            window.instance_seconds += seconds;
        }
        windows
    }
}
