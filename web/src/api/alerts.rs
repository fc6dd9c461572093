//! `/api/v1/alerts`: the verdict runner's alerts.

use axum::extract::{RawQuery, State};
use emberline_model::alert::{Alert, AlertStatus};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    answers::json::Json,
    http::error::{ApiError, ErrorBody},
    query::params::{ALERT_STATE, Parameter, Params},
    state::Web,
};

pub(super) const PARAMETERS: &[Parameter] = &[ALERT_STATE];

/// Alerts, newest first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Alerts {
    /// The alerts.
    pub alerts: Vec<Alert>,
}

/// Alerts of the verdict runner.
#[utoipa::path(get, path = "/api/v1/alerts", responses(
    (status = 200, body = Alerts), (status = "default", body = ErrorBody),
))]
pub(crate) async fn alerts(State(web): State<Web>, RawQuery(query): RawQuery) -> Result<Json<Alerts>, ApiError> {
    let params = Params::read(query.as_deref(), PARAMETERS, web.clock.now_unix_ns())?;
    let mut alerts = web.alerts.snapshot();
    if params.text(&ALERT_STATE) == Some("firing") {
        alerts.retain(|alert| alert.state == AlertStatus::Firing);
    }
    Ok(Json(Alerts { alerts }))
}
