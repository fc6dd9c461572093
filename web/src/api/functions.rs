//! `/api/v1/functions`: only the function table, of one release (`version`) or of a comparison (`baseline`,
//! `candidate`). Guarantee: the same rows as in `/api/v1/profile` and `/api/v1/diff`, without a tree.

use axum::extract::{RawQuery, State};
use emberline_model::{
    comparison::{FunctionRow, Per, SideSummary},
    id::HexId,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    comparison::Question,
    diff::{DiffFunctionsCut, cut_functions},
    profile::{self, FunctionsCut, ProfileFunction, Shape},
};
use crate::{
    answers::json::Json,
    http::error::{ApiError, ErrorBody},
    query::params::{
        BASELINE, BASELINE_FROM, BASELINE_TO, CANDIDATE, CANDIDATE_FROM, CANDIDATE_TO, COMPONENT, FROM,
        FUNCTIONS_LIMIT, INSTANCE, NAMESPACE, PER, PROFILE_TYPE, Parameter, Params, ROUTE, SERVICE, SIDE, TO, VERSION,
    },
    state::Web,
};

pub(super) const PARAMETERS: &[Parameter] = &[
    SERVICE,
    NAMESPACE,
    VERSION,
    INSTANCE,
    BASELINE,
    CANDIDATE,
    ROUTE,
    COMPONENT,
    SIDE,
    PROFILE_TYPE,
    PER,
    FROM,
    TO,
    BASELINE_FROM,
    BASELINE_TO,
    CANDIDATE_FROM,
    CANDIDATE_TO,
    FUNCTIONS_LIMIT,
];

/// Parameters allowed only for comparisons; a query about one release may not have them.
const OF_A_COMPARISON: [&Parameter; 7] = [
    &BASELINE,
    &CANDIDATE,
    &PER,
    &BASELINE_FROM,
    &BASELINE_TO,
    &CANDIDATE_FROM,
    &CANDIDATE_TO,
];

/// Every function of one release.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProfileFunctions {
    version: String,
    profile_type: String,
    /// Unit of values.
    unit: String,
    /// Sum of all stacks.
    total: i64,
    samples: u64,
    requests: u64,
    functions: Vec<ProfileFunction>,
    functions_cut: FunctionsCut,
}

/// Every function of two releases.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DiffFunctions {
    /// What was measured.
    pub profile_type: String,
    /// Unit of raw values and, per `per`, of costs.
    pub unit: String,
    /// What costs are divided by.
    pub per: Per,
    /// The baseline release.
    pub baseline: SideSummary,
    /// The candidate release.
    pub candidate: SideSummary,
    /// ID of the guilty function.
    // Without this, serde would read a missing field as none.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(value_type = Option<String>)]
    pub guilty: Option<HexId>,
    /// Sorted by the size of `contribution`.
    pub functions: Vec<FunctionRow>,
    /// Rows omitted by `functions_limit`.
    pub functions_cut: DiffFunctionsCut,
}

/// Either response.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Functions {
    /// `version` was given.
    Profile(ProfileFunctions),
    /// It was not.
    Diff(Box<DiffFunctions>),
}

/// The full function table: of one release when `version` is given, else of a comparison.
#[utoipa::path(get, path = "/api/v1/functions", responses(
    (status = 200, body = Functions), (status = "default", body = ErrorBody),
))]
pub(crate) async fn functions(State(web): State<Web>, RawQuery(query): RawQuery) -> Result<Json<Functions>, ApiError> {
    let params = Params::read(query.as_deref(), PARAMETERS, web.clock.now_unix_ns())?;
    let limit = params.count(&FUNCTIONS_LIMIT)?;
    if params.text(&VERSION).is_some() {
        if let Some(other) = OF_A_COMPARISON.iter().find(|p| params.text(p).is_some()) {
            let message = format!(
                "`version` selects one release, `{}` a comparison: use only one of them",
                other.name
            );
            return Err(ApiError::bad_request("bad_parameter", message));
        }
        let answer = profile::Question::read(&web, &params)
            .await?
            .answer(
                &web,
                Shape {
                    tree_limit: Some(0),
                    functions_limit: limit,
                    node: None,
                },
            )
            .await?;
        return Ok(Json(Functions::Profile(ProfileFunctions {
            version: answer.query.version,
            profile_type: answer.profile_type,
            unit: answer.unit,
            total: answer.total,
            samples: answer.samples,
            requests: answer.requests,
            functions: answer.functions,
            functions_cut: answer.functions_cut,
        })));
    }
    if params.text(&INSTANCE).is_some() {
        let message = "`instance` selects within one release: set `version` too".to_owned();
        return Err(ApiError::bad_request("bad_parameter", message));
    }
    let question = Question::read(&web, &params).await?;
    let comparison = question.answer(&web, Some(0)).await?;
    let mut functions = comparison.functions;
    let functions_cut = cut_functions(&mut functions, limit);
    Ok(Json(Functions::Diff(Box::new(DiffFunctions {
        unit: question.profile_type.unit().to_owned(),
        profile_type: question.profile_type.0,
        per: comparison.per,
        baseline: comparison.baseline,
        candidate: comparison.candidate,
        guilty: comparison.guilty.map(|guilty| guilty.id),
        functions,
        functions_cut,
    }))))
}
