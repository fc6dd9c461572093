//! Everything a comparison needs of one release: stacks and requests of the same instances, side, route and windows.

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
    range::Range,
    readers::{Failure, Reader},
};

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
    /// At most so many windows, the newest.
    pub max_windows: usize,
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
            max_windows: 8640,
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
    if span.is_empty() || query.max_windows == 0 {
        return Ok(answer);
    }
    // One state for all: a batch that becomes visible in between must not add requests without its stacks.
    reader.snapshot(|| {
        let (mut windows, workloads) = complete_windows(reader, span, &who, query.component)?;
        while windows.len() > query.max_windows {
            windows.pop_first();
        }
        let Some(&first) = windows.keys().next() else {
            return Ok(());
        };
        let range = Range {
            from_unix_s: i64::from(first),
            ..query.range
        };
        let span = Span {
            from_s: span.from_s.max(first),
            ..span.clone()
        };

        let stacks = StackQuery {
            component: Some(query.component),
            only_complete: true,
            by_window: true,
            ..StackQuery::new(who.clone(), &query.profile_type, range)
        };
        let labels = match &query.route {
            Some(route) => Labels::Exactly {
                side: Some(query.side),
                route: Some(route),
            },
            None => Labels::SideOrNone(query.side),
        };
        for row in stacks::sums(reader, &span, &stacks, &labels)?.rows {
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
            by_window: true,
            ..RequestQuery::new(who.clone(), range)
        };
        for row in requests::requests(reader, &span, &requests)? {
            if let Some(window) = u32::try_from(row.window_start_s)
                .ok()
                .and_then(|ts| windows.get_mut(&ts))
            {
                window.requests = window.requests.saturating_add(row.duration.count());
                window.latency.merge(&row.duration);
            }
        }
        answer.build_ids = services::builds(reader)?.of(workloads.iter().copied(), query.component);
        answer.windows = windows.into_values().collect();
        Ok(())
    })?;
    Ok(answer)
}

/// Windows whose CPU can be divided by requests, and the workloads that have any.
fn complete_windows(
    reader: &Reader<'_>,
    span: &Span,
    who: &WorkloadFilter,
    component: Component,
) -> Result<(BTreeMap<u32, WindowCost>, BTreeSet<u64>), Failure> {
    let mut sql = Sql::new("WITH ");
    push_complete(&mut sql, who, span);
    sql.push(" SELECT ts, workload_id, length FROM complete WHERE component = ")
        .bind(component.code());
    let (mut windows, mut workloads) = (BTreeMap::new(), BTreeSet::new());
    sql.run(reader, |columns| {
        let (start, workload, length) = (columns.u32(0)?, columns.u64(1)?, columns.u32(2)?);
        for row in 0..columns.rows() {
            workloads.insert(workload[row]);
            let window: &mut WindowCost = windows.entry(start[row]).or_default();
            window.start_unix_s = i64::from(start[row]);
            window.instance_seconds += f64::from(length[row]);
        }
        Ok(())
    })?;
    Ok((windows, workloads))
}
