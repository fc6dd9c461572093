//! What a question is about: which workloads, and which of their windows.

use std::sync::Arc;

use emberline_model::{Component, Release};

use crate::{deletions::ServiceName, questions::sql::Sql};

/// Stands for the route of samples that belong to no request.
pub const NO_LABEL: &str = "(none)";

/// Which workloads; `None` does not restrict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkloadFilter {
    /// Namespace of the service.
    pub namespace: Option<String>,
    /// Name of the service.
    pub service: Option<String>,
    /// Version of the service.
    pub version: Option<String>,
    /// Name of the process, unique within its release.
    pub instance: Option<String>,
    /// One of these services.
    pub among: Option<Arc<Vec<ServiceName>>>,
}

impl WorkloadFilter {
    /// All workloads of a service, in any namespace.
    pub fn service(service: &str) -> WorkloadFilter {
        WorkloadFilter {
            service: Some(service.to_owned()),
            ..WorkloadFilter::default()
        }
    }

    /// All workloads of some services.
    pub fn among(services: Vec<ServiceName>) -> WorkloadFilter {
        WorkloadFilter {
            among: Some(Arc::new(services)),
            ..WorkloadFilter::default()
        }
    }

    /// All instances of a release.
    pub fn release(release: &Release) -> WorkloadFilter {
        WorkloadFilter {
            namespace: Some(release.namespace.clone()),
            service: Some(release.service.clone()),
            version: Some(release.version.clone()),
            ..WorkloadFilter::default()
        }
    }

    /// Adds `AND ...` on columns of the table `series`, aliased `d`.
    pub(super) fn push(&self, sql: &mut Sql) {
        sql.and_equals("d.namespace", self.namespace.as_ref())
            .and_equals("d.service", self.service.as_ref())
            .and_equals("d.version", self.version.as_ref())
            .and_equals("d.instance", self.instance.as_ref());
        let Some(services) = &self.among else { return };
        if services.is_empty() {
            sql.push(" AND false");
            return;
        }
        sql.push(" AND (d.namespace, d.service) IN (VALUES ");
        for (at, of) in services.iter().enumerate() {
            sql.push(if at > 0 { ", (" } else { "(" }).bind(of.namespace.clone());
            sql.push(", ").bind(of.service.clone()).push(")");
        }
        sql.push(")");
    }
}

/// Adds `AND d.component = ...`, if there is a component.
pub(super) fn push_component(sql: &mut Sql, component: Option<Component>) {
    if let Some(component) = component {
        sql.push(" AND d.component = ").bind(component.code());
    }
}
