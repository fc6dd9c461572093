//! Which windows were reported, and which of their signals arrived.

use emberline_model::{Component, ProfileStats, Release, Workload};

use crate::{
    hot::{Span, database::WINDOWS, rows::SERIES_WINDOWS},
    questions::{
        selection::{WorkloadFilter, push_complete, push_component},
        sql::Sql,
    },
    range::{Range, Step},
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

/// Whose windows to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportQuery {
    /// Whose.
    pub who: WorkloadFilter,
    /// Which windows share their rows.
    pub step: Step,
    /// When.
    pub range: Range,
}

/// Windows of one release, all its instances together: those that start at the same second are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportRow {
    /// Start of the window or the step, seconds since the Unix epoch; 0 when all windows are counted together.
    pub window_start_s: i64,
    /// Whose.
    pub release: Release,
    /// How many, whichever component reported them.
    pub windows: u64,
    /// Their lengths added up, in seconds; more than the step has where those of several instances overlap.
    pub length_s: u64,
    /// Requests of one of them arrived, even if there were none.
    pub has_requests: bool,
    /// How many of an application have CPU that can be divided by requests.
    pub complete_of_application: u64,
    /// How many of a proxy have.
    pub complete_of_proxy: u64,
}

/// Answers a report query, sorted by start and release.
pub(crate) fn reports(reader: &Reader<'_>, span: &Span, query: &ReportQuery) -> Result<Vec<ReportRow>, Failure> {
    let mut rows = Vec::new();
    if span.is_empty() {
        return Ok(rows);
    }
    let mut sql = Sql::new("WITH ");
    push_complete(&mut sql, &query.who, span);
    sql.push(
        ", reported AS (SELECT w.ts, d.namespace, d.service, d.version, max(w.length) AS length,
            bool_or(w.has_requests) AS requests, bool_or(c.component = ",
    )
    .bind(Component::Application.code())
    .push(") AS application, bool_or(c.component = ")
    .bind(Component::Proxy.code())
    .push(") AS proxy FROM ")
    .hours(WINDOWS, span)
    .push(
        " w JOIN series d ON d.workload_id = w.workload_id AND d.component = w.component
            LEFT JOIN complete c ON c.ts = w.ts AND c.workload_id = w.workload_id AND c.component = w.component WHERE ",
    )
    .within("w.ts", span)
    .push(" AND d.profile_type = ")
    .bind(SERIES_WINDOWS.to_owned());
    query.who.push(&mut sql);
    sql.push(" GROUP BY 1, 2, 3, 4) SELECT ")
        .start_of_step("ts", query.step)
        .push(
            ", namespace, service, version, CAST(count(*) AS UBIGINT), CAST(sum(length) AS UBIGINT), bool_or(requests),
            CAST(count(*) FILTER (application) AS UBIGINT), CAST(count(*) FILTER (proxy) AS UBIGINT) FROM reported
            GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4",
        );
    sql.run(reader, |columns| {
        let start = columns.u32(0)?;
        let (namespace, service, version) = (columns.text(1)?, columns.text(2)?, columns.text(3)?);
        let (windows, length, has_requests) = (columns.u64(4)?, columns.u64(5)?, columns.flag(6)?);
        let (of_application, of_proxy) = (columns.u64(7)?, columns.u64(8)?);
        for row in 0..columns.rows() {
            rows.push(ReportRow {
                window_start_s: i64::from(start[row]),
                release: Release {
                    namespace: namespace.string(row),
                    service: service.string(row),
                    version: version.string(row),
                },
                windows: windows[row],
                length_s: length[row],
                has_requests: has_requests.value(row),
                complete_of_application: of_application[row],
                complete_of_proxy: of_proxy[row],
            });
        }
        Ok(())
    })?;
    Ok(rows)
}
