//! `/api/openapi.json`: every endpoint, parameter and response. Guarantee: paths and methods come from the list that
//! the router is built from ([`api::endpoints`]), parameters from the tables that parse them, schemas from the types
//! that are sent; a test checks the rest against real responses.

pub(crate) mod typescript;

use axum::{
    Json,
    extract::{RawQuery, State},
};
use serde_json::{Value, json};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

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
        description = "Which release, route, edge and function of a service mesh got slower, and since when. Times are Unix seconds in requests and milliseconds (`_ms`) in responses, CPU is in nanoseconds (`_ns`), and fields without a unit in their name use the response's `unit`; null means not reported, never zero.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(ErrorBody))
)]
struct Document;

/// The document.
pub(crate) fn describe(version: &str) -> Value {
    let mut router = OpenApiRouter::<Web>::with_openapi(Document::openapi());
    let mut parameters = Vec::new();
    for endpoint in api::endpoints() {
        parameters.push((endpoint.path().to_owned(), endpoint.method(), endpoint.parameters));
        router = router.routes(endpoint.routes);
    }
    let mut document = serde_json::to_value(router.into_openapi()).expect("the document is plain data");
    document["info"]["version"] = json!(version);
    for (path, method, parameters) in parameters {
        let described = &mut document["paths"][path.as_str()][method]["parameters"];
        if !described.is_array() {
            *described = json!([]);
        }
        // Path parameters are already there.
        if let Some(described) = described.as_array_mut() {
            described.extend(parameters.iter().map(describe_parameter));
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
