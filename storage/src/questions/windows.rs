//! Which windows were reported, and which of their signals arrived.

use emberline_model::{Component, ProfileStats, Workload};

use crate::{
    hot::{Span, database::WINDOWS, rows::SERIES_WINDOWS},
    questions::{
        selection::{WorkloadFilter, push_component},
        sql::Sql,
    },
    range::Range,
    readers::{Failure, Reader},
};

/// Which windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowQuery {
    /// Whose.
    pub who: WorkloadFilter,
    /// Reported by which component; `None`: both, in rows of their own.
    pub component: Option<Component>,
    /// When.
    pub range: Range,
}

/// One window of one component of one workload.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowMark {
    /// Start, seconds since the Unix epoch.
    pub window_start_s: i64,
    /// Length in seconds.
    pub length_s: u32,
    /// Who.
    pub workload: Workload,
    /// Which component reported it.
    pub component: Component,
    /// Its requests arrived, even if there were none.
    pub has_requests: bool,
    /// Its profile arrived, even if it was empty.
    pub has_profiles: bool,
    /// How well it was sampled.
    pub stats: ProfileStats,
}

/// Answers a window query, sorted by start, workload and component.
pub(crate) fn windows(reader: &Reader<'_>, span: &Span, query: &WindowQuery) -> Result<Vec<WindowMark>, Failure> {
    let mut marks = Vec::new();
    if span.is_empty() {
        return Ok(marks);
    }
    let mut sql = Sql::new(
        "SELECT w.ts, max(w.length), d.namespace, d.service, d.version, d.instance, w.component, bool_or(w.has_requests),
            bool_or(w.has_profiles), max(w.rate_hz), CAST(least(sum(w.dropped), 18446744073709551615) AS UBIGINT),
            CAST(least(sum(w.truncated), 18446744073709551615) AS UBIGINT),
            CAST(least(sum(w.cpu_ns), 18446744073709551615) AS UBIGINT),
            CAST(least(sum(w.overhead_ns), 18446744073709551615) AS UBIGINT) FROM ",
    );
    sql.hours(WINDOWS, span)
        .push(" w JOIN series d ON d.workload_id = w.workload_id AND d.component = w.component WHERE ")
        .within("w.ts", span)
        .push(" AND d.profile_type = ")
        .bind(SERIES_WINDOWS.to_owned());
    query.who.push(&mut sql);
    push_component(&mut sql, query.component);
    sql.push(" GROUP BY 1, 3, 4, 5, 6, 7");
    sql.run(reader, |columns| {
        let (start, length) = (columns.u32(0)?, columns.u32(1)?);
        let (namespace, service) = (columns.text(2)?, columns.text(3)?);
        let (version, instance) = (columns.text(4)?, columns.text(5)?);
        let component = columns.u8(6)?;
        let (has_requests, has_profiles) = (columns.flag(7)?, columns.flag(8)?);
        let (rate_hz, dropped, truncated) = (columns.f64(9)?, columns.u64(10)?, columns.u64(11)?);
        let (cpu_ns, overhead_ns) = (columns.u64(12)?, columns.u64(13)?);
        for row in 0..columns.rows() {
            marks.push(WindowMark {
                window_start_s: i64::from(start[row]),
                length_s: length[row],
                workload: Workload {
                    namespace: namespace.string(row),
                    service: service.string(row),
                    version: version.string(row),
                    instance: instance.string(row),
                },
                component: Component::from_code(u32::from(component[row])),
                has_requests: has_requests.value(row),
                has_profiles: has_profiles.value(row),
                stats: ProfileStats {
                    rate_hz: rate_hz[row],
                    dropped: dropped[row],
                    truncated: truncated[row],
                    cpu_ns: cpu_ns[row],
                    overhead_ns: overhead_ns[row],
                },
            });
        }
        Ok(())
    })?;
    marks.sort_by(|a, b| {
        (a.window_start_s, &a.workload, a.component).cmp(&(b.window_start_s, &b.workload, b.component))
    });
    Ok(marks)
}
