//! `/api/openapi.json`: every endpoint, parameter and answer. Guarantee: parameters come from the tables that parse
//! them, schemas from the types that are answered, and a test holds the rest against the router and against real answers.

pub(crate) mod typescript;

use axum::{
    Json,
    extract::{RawQuery, State},
};
use serde_json::{Value, json};
use utoipa::OpenApi;

use crate::{
    api,
    http::error::{ApiError, ErrorBody},
    query::params::{Kind, Parameter, Params},
    state::Web,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Emberline",
        description = "Which release, route, edge and function of a service mesh got slower, and since when. Times are unix seconds in questions and milliseconds (`_ms`) in answers, CPU is nanoseconds (`_ns`), and values without a unit in their name are in the `unit` of the answer; null means not reported, never zero.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        api::services::services,
        api::delete_service::delete_service,
        api::releases::releases,
        api::state_release::state_release,
        api::service::service,
        api::profile::profile,
        api::diff::diff,
        api::functions::functions,
        api::merge::merge,
        api::series::series,
        api::heatmap::heatmap,
        api::exemplars::exemplars,
        api::callers::callers,
        api::labels::labels,
        api::labels::label_values,
        api::labels::profile_types,
        api::cardinality::cardinality,
        api::topology::topology,
        api::alerts::alerts,
        api::status::status,
    ),
    components(schemas(ErrorBody))
)]
struct Document;

/// The document.
pub(crate) fn describe(version: &str) -> Value {
    let mut document = serde_json::to_value(Document::openapi()).expect("the document is plain data");
    document["info"]["version"] = json!(version);
    for endpoint in &api::ENDPOINTS {
        let parameters: Vec<Value> = endpoint.parameters.iter().map(describe_parameter).collect();
        document["paths"][endpoint.path]["get"]["parameters"] = json!(parameters);
    }
    for endpoint in &api::DELETIONS {
        let described = document["paths"][endpoint.path]["delete"]["parameters"].as_array_mut();
        // Those in the path stand there already.
        if let Some(described) = described {
            described.extend(endpoint.parameters.iter().map(describe_parameter));
        }
    }
    document
}

fn describe_parameter(parameter: &Parameter) -> Value {
    let schema = match parameter.kind {
        Kind::Text | Kind::Time => json!({ "type": "string" }),
        Kind::Node => json!({ "type": "string", "pattern": "^[0-9a-fA-F]{16}$" }),
        Kind::Count => json!({ "type": "integer", "minimum": 0 }),
        Kind::OneOf(words) => json!({ "type": "string", "enum": words }),
    };
    json!({
        "name": parameter.name,
        "in": "query",
        "required": parameter.required,
        "description": parameter.description,
        "schema": schema,
    })
}

/// `/api/openapi.json`.
pub(crate) async fn document(State(web): State<Web>, RawQuery(query): RawQuery) -> Result<Json<Value>, ApiError> {
    Params::read(query.as_deref(), &[], web.clock.now_unix_ns())?;
    Ok(Json(describe(&web.version)))
}
