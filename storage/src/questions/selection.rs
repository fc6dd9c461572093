//! What a question is about: which workloads, and which of their windows.

use emberline_model::{Component, Release};

use crate::{
    hot::{Span, database::WINDOWS, hours::HOUR_S},
    questions::sql::Sql,
};

/// Route that stands for samples that belong to no request.
pub const NO_LABEL: &str = "(none)";

/// Which workloads; what is `None` is not restricted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkloadFilter {
    /// Group of services.
    pub namespace: Option<String>,
    /// Name of the service.
    pub service: Option<String>,
    /// Version of the service.
    pub version: Option<String>,
    /// Name of the process among those of its release.
    pub instance: Option<String>,
}

impl WorkloadFilter {
    /// All workloads of a service, in any namespace.
    pub fn service(service: &str) -> WorkloadFilter {
        WorkloadFilter {
            service: Some(service.to_owned()),
            ..WorkloadFilter::default()
        }
    }

    /// All instances of a release.
    pub fn release(release: &Release) -> WorkloadFilter {
        WorkloadFilter {
            namespace: Some(release.namespace.clone()),
            service: Some(release.service.clone()),
            version: Some(release.version.clone()),
            instance: None,
        }
    }

    /// Adds `AND ...` on columns of the table `series`, known as `d`.
    pub(super) fn push(&self, sql: &mut Sql) {
        sql.and_equals("d.namespace", self.namespace.as_ref())
            .and_equals("d.service", self.service.as_ref())
            .and_equals("d.version", self.version.as_ref())
            .and_equals("d.instance", self.instance.as_ref());
    }
}

/// Adds `AND d.component = ...`, when there is one.
pub(super) fn push_component(sql: &mut Sql, component: Option<Component>) {
    if let Some(component) = component {
        sql.push(" AND d.component = ").bind(component.code());
    }
}

/// Adds the tables `marks` (which signals of which window arrived, one row per window, workload and component) and
/// `complete` (those whose CPU can be divided by requests) to a `WITH`.
///
/// No window of an hour without samples is complete. A window of an application is complete when its profile arrived and somebody's requests signal did: its own, or that
/// of the proxy beside it. A window of a proxy is complete when both signals of the proxy arrived: its CPU is divided by
/// the requests it carried itself.
pub(super) fn push_complete(sql: &mut Sql, who: &WorkloadFilter, span: &Span) {
    sql.push(
        "marks AS (SELECT ts, workload_id, component, bool_or(has_requests) AS requests,
            bool_or(has_profiles) AS profiles, max(length) AS length FROM ",
    );
    sql.hours(WINDOWS, span).push(" WHERE ").within("ts", span);
    for hours in span.hours_without_samples() {
        sql.push(" AND NOT (ts >= ").bind(hours.start * HOUR_S as u32);
        sql.push(" AND ts < ").bind(hours.end * HOUR_S as u32).push(")");
    }
    sql.push(" AND workload_id IN (SELECT d.workload_id FROM series d WHERE true");
    who.push(sql);
    sql.push(
        ") GROUP BY 1, 2, 3),
        complete AS (SELECT m.ts, m.workload_id, m.component, m.length FROM marks m WHERE m.profiles AND (m.requests
            OR (m.component = 1 AND EXISTS (FROM marks o
                WHERE o.ts = m.ts AND o.workload_id = m.workload_id AND o.requests))))",
    );
}
