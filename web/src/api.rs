//! The endpoints: one file each. [`ENDPOINTS`] is what the router is built from and what the OpenAPI document and
//! the suggestions for unknown addresses list.

pub(crate) mod alerts;
pub(crate) mod callers;
pub(crate) mod cardinality;
mod comparison;
pub(crate) mod delete_service;
pub(crate) mod diff;
pub(crate) mod exemplars;
pub(crate) mod functions;
pub(crate) mod heatmap;
pub(crate) mod labels;
pub(crate) mod merge;
pub(crate) mod profile;
pub(crate) mod releases;
pub(crate) mod series;
pub(crate) mod service;
pub(crate) mod services;
pub(crate) mod state_release;
pub(crate) mod status;
pub(crate) mod topology;

use std::collections::BTreeSet;

use axum::routing::{MethodRouter, delete, get};
use emberline_model::ProfileType;
use emberline_storage::{ProfileTypesQuery, Range, RequestQuery, Step, Store, TotalsQuery, WorkloadFilter};

use crate::{
    http::error::{ApiError, shorten},
    query::{
        catalog::KnownService,
        names::suggestion,
        params::{LIMIT, NONE, PROFILE_TYPE, Parameter, Params},
    },
    state::Web,
};

/// One address of the API.
pub(crate) struct Endpoint {
    /// The address.
    pub(crate) path: &'static str,
    /// What it may be asked with.
    pub(crate) parameters: &'static [Parameter],
    /// What answers.
    pub(crate) handler: fn() -> MethodRouter<Web>,
}

/// All of them.
pub(crate) const ENDPOINTS: [Endpoint; 18] = [
    Endpoint {
        path: "/api/v1/services",
        parameters: services::PARAMETERS,
        handler: || get(services::services),
    },
    Endpoint {
        path: "/api/v1/releases",
        parameters: releases::PARAMETERS,
        handler: || get(releases::releases).post(state_release::state_release),
    },
    Endpoint {
        path: "/api/v1/service",
        parameters: service::PARAMETERS,
        handler: || get(service::service),
    },
    Endpoint {
        path: "/api/v1/profile",
        parameters: profile::PARAMETERS,
        handler: || get(profile::profile),
    },
    Endpoint {
        path: "/api/v1/diff",
        parameters: diff::PARAMETERS,
        handler: || get(diff::diff),
    },
    Endpoint {
        path: "/api/v1/functions",
        parameters: functions::PARAMETERS,
        handler: || get(functions::functions),
    },
    Endpoint {
        path: "/api/v1/merge",
        parameters: merge::PARAMETERS,
        handler: || get(merge::merge),
    },
    Endpoint {
        path: "/api/v1/series",
        parameters: series::PARAMETERS,
        handler: || get(series::series),
    },
    Endpoint {
        path: "/api/v1/heatmap",
        parameters: heatmap::PARAMETERS,
        handler: || get(heatmap::heatmap),
    },
    Endpoint {
        path: "/api/v1/exemplars",
        parameters: exemplars::PARAMETERS,
        handler: || get(exemplars::exemplars),
    },
    Endpoint {
        path: "/api/v1/callers",
        parameters: callers::PARAMETERS,
        handler: || get(callers::callers),
    },
    Endpoint {
        path: "/api/v1/labels",
        parameters: labels::PARAMETERS,
        handler: || get(labels::labels),
    },
    Endpoint {
        path: "/api/v1/label_values",
        parameters: labels::VALUES_PARAMETERS,
        handler: || get(labels::label_values),
    },
    Endpoint {
        path: "/api/v1/profile_types",
        parameters: labels::PARAMETERS,
        handler: || get(labels::profile_types),
    },
    Endpoint {
        path: "/api/v1/cardinality",
        parameters: cardinality::PARAMETERS,
        handler: || get(cardinality::cardinality),
    },
    Endpoint {
        path: "/api/v1/topology",
        parameters: topology::PARAMETERS,
        handler: || get(topology::topology),
    },
    Endpoint {
        path: "/api/v1/alerts",
        parameters: alerts::PARAMETERS,
        handler: || get(alerts::alerts),
    },
    Endpoint {
        path: "/api/v1/status",
        parameters: status::PARAMETERS,
        handler: || get(status::status),
    },
];

/// Addresses that change something, each by `DELETE`.
pub(crate) const DELETIONS: [Endpoint; 1] = [Endpoint {
    path: "/api/v1/services/{service}",
    parameters: delete_service::PARAMETERS,
    handler: || delete(delete_service::delete_service),
}];

/// Addresses of questions that are answered from lists and counters that are kept.
pub(crate) const LIGHT: [&str; 8] = [
    "/api/v1/status",
    "/api/v1/alerts",
    "/api/v1/services",
    "/api/v1/services/{service}",
    "/api/v1/releases",
    "/api/v1/labels",
    "/api/v1/label_values",
    "/api/v1/profile_types",
];

/// Nodes of a tree when nothing is said.
const DEFAULT_LIMIT: usize = 8192;

/// The display limit of a question: 0 means none.
fn tree_limit(params: &Params) -> Result<Option<usize>, ApiError> {
    Ok(Some(params.count(&LIMIT)?.unwrap_or(DEFAULT_LIMIT)).filter(|&limit| limit > 0))
}

/// The profile type that is asked about.
fn profile_type(params: &Params) -> ProfileType {
    params
        .text(&PROFILE_TYPE)
        .map_or_else(ProfileType::cpu, |text| ProfileType(text.to_owned()))
}

/// All workloads of a service.
fn workloads_of(known: &KnownService) -> WorkloadFilter {
    WorkloadFilter {
        namespace: Some(known.namespace.clone()),
        ..WorkloadFilter::service(&known.service)
    }
}

/// Refuses a route that no request had and a profile type that nobody sent. Asked only when an answer would be
/// empty, so that questions with an answer do not pay for it.
async fn check_names(
    store: &Store,
    known: &KnownService,
    route: Option<&str>,
    profile_type: &ProfileType,
    range: Range,
) -> Result<(), ApiError> {
    let who = workloads_of(known);
    if *profile_type != ProfileType::cpu() {
        let types = store
            .ask(ProfileTypesQuery {
                who: who.clone(),
                range,
            })
            .await?;
        if !types.contains(&profile_type.0) {
            let message = format!(
                "service `{}` sent no profile of type `{}` in this range{}",
                known.service,
                shorten(&profile_type.0),
                suggestion(&profile_type.0, types.iter().map(String::as_str))
            );
            return Err(ApiError::not_found("unknown_profile_type", message));
        }
    }
    let Some(route) = route.filter(|&route| route != NONE) else {
        return Ok(());
    };
    let rows = store.ask(RequestQuery::new(who.clone(), range)).await?;
    let mut routes: BTreeSet<String> = rows.into_iter().map(|row| row.route).collect();
    // Stacks say routes, too, and lists offer these.
    let of_stacks = TotalsQuery {
        who,
        component: None,
        profile_type: profile_type.0.clone(),
        only_complete: false,
        step: Step::Range,
        by_route: true,
        range,
    };
    routes.extend(store.ask(of_stacks).await?.into_iter().map(|row| row.route));
    routes.remove("");
    if routes.contains(route) {
        return Ok(());
    }
    let message = format!(
        "route `{}` of service `{}` saw no request in this range{}",
        shorten(route),
        known.service,
        suggestion(route, routes.iter().map(String::as_str))
    );
    Err(ApiError::not_found("unknown_route", message))
}
