//! The endpoints: one file each, and [`endpoints`], their only list.

pub(crate) mod alerts;
mod callers;
mod cardinality;
mod comparison;
mod delete_service;
pub(crate) mod diff;
mod exemplars;
pub(crate) mod functions;
mod heatmap;
mod labels;
pub(crate) mod merge;
pub(crate) mod profile;
mod releases;
pub(crate) mod series;
mod service;
mod services;
mod state_release;
mod status;
mod topology;

use std::collections::BTreeSet;

use axum::response::{IntoResponse, Response};
use emberline_model::ProfileType;
use emberline_storage::{ProfileTypesQuery, Range, RequestQuery, Step, Store, TotalsQuery, WorkloadFilter};
use http::HeaderMap;
use serde::Serialize;
use utoipa_axum::{router::UtoipaMethodRouter, routes};

use crate::{
    answers::json::Json,
    exports::{self, Format, columns::Columns},
    http::error::{ApiError, shorten},
    query::{
        catalog::KnownService,
        names::suggestion,
        params::{LIMIT, NONE, PROFILE_TYPE, Parameter, Params},
    },
    state::Web,
};

/// One endpoint of the API.
pub(crate) struct Endpoint {
    /// The parameters of its queries.
    pub(crate) parameters: &'static [Parameter],
    /// It is answered from lists and counters in memory, and never waits for a turn.
    pub(crate) is_light: bool,
    /// The handlers by method, and their description.
    pub(crate) routes: UtoipaMethodRouter<Web>,
}

impl Endpoint {
    fn light(parameters: &'static [Parameter], routes: UtoipaMethodRouter<Web>) -> Endpoint {
        Endpoint {
            parameters,
            is_light: true,
            routes,
        }
    }

    fn heavy(parameters: &'static [Parameter], routes: UtoipaMethodRouter<Web>) -> Endpoint {
        Endpoint {
            is_light: false,
            ..Endpoint::light(parameters, routes)
        }
    }

    /// The path.
    pub(crate) fn path(&self) -> &str {
        let (_, paths, _) = &self.routes;
        let mut addresses = paths.paths.keys();
        addresses.next().expect("each handler says its address")
    }

    /// The method of its queries; the parameters belong to it.
    pub(crate) fn method(&self) -> &'static str {
        let (_, paths, _) = &self.routes;
        match paths.paths.values().any(|item| item.get.is_some()) {
            true => "get",
            false => "delete",
        }
    }
}

/// All of them: the router, the OpenAPI document and the suggestions for unknown paths are based on this list.
pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::light(services::PARAMETERS, routes!(services::services)),
        Endpoint::light(delete_service::PARAMETERS, routes!(delete_service::delete_service)),
        Endpoint::light(
            releases::PARAMETERS,
            routes!(releases::releases, state_release::state_release),
        ),
        Endpoint::heavy(service::PARAMETERS, routes!(service::service)),
        Endpoint::heavy(profile::PARAMETERS, routes!(profile::profile)),
        Endpoint::heavy(diff::PARAMETERS, routes!(diff::diff)),
        Endpoint::heavy(functions::PARAMETERS, routes!(functions::functions)),
        Endpoint::heavy(merge::PARAMETERS, routes!(merge::merge)),
        Endpoint::heavy(series::PARAMETERS, routes!(series::series)),
        Endpoint::heavy(heatmap::PARAMETERS, routes!(heatmap::heatmap)),
        Endpoint::heavy(exemplars::PARAMETERS, routes!(exemplars::exemplars)),
        Endpoint::heavy(callers::PARAMETERS, routes!(callers::callers)),
        Endpoint::light(labels::PARAMETERS, routes!(labels::labels)),
        Endpoint::light(labels::VALUES_PARAMETERS, routes!(labels::label_values)),
        Endpoint::light(labels::PARAMETERS, routes!(labels::profile_types)),
        Endpoint::heavy(cardinality::PARAMETERS, routes!(cardinality::cardinality)),
        Endpoint::heavy(topology::PARAMETERS, routes!(topology::topology)),
        Endpoint::light(alerts::PARAMETERS, routes!(alerts::alerts)),
        Endpoint::light(status::PARAMETERS, routes!(status::status)),
    ]
}

/// The parameters of a query whose response may be a file, and the format to write.
fn with_format(
    web: &Web,
    query: Option<&str>,
    known: &'static [Parameter],
    headers: &HeaderMap,
) -> Result<(Params, Format), ApiError> {
    let params = Params::read(query, known, web.clock.now_unix_ns())?;
    let format = Format::of(&params, headers);
    params.no_node_in_files(!format.is_answer())?;
    Ok((params, format))
}

/// A response as JSON, or with its tree as columns.
fn written<A: Serialize>(
    mut answer: A,
    tree: impl FnOnce(&mut A) -> Columns,
    format: Format,
    name: &str,
) -> Result<Response, ApiError> {
    if format == Format::Json {
        return Ok(Json(answer).into_response());
    }
    let tree = tree(&mut answer);
    Ok(exports::answer(exports::columns::write(&answer, tree)?, format, name))
}

/// The default number of nodes.
const DEFAULT_LIMIT: usize = 8192;

/// The display limit of a query: 0 means none.
fn tree_limit(params: &Params) -> Result<Option<usize>, ApiError> {
    Ok(Some(params.count(&LIMIT)?.unwrap_or(DEFAULT_LIMIT)).filter(|&limit| limit > 0))
}

/// The profile type queried.
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

/// Refuses a route that no request had and a profile type that was never sent. Called only if a response would
/// otherwise be empty, so that other queries do not pay for it.
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
    // Stacks carry routes, too, and lists offer these.
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
        "route `{}` of service `{}` had no requests in this range{}",
        shorten(route),
        known.service,
        suggestion(route, routes.iter().map(String::as_str))
    );
    Err(ApiError::not_found("unknown_route", message))
}
