//! `/api/v1/callers`: one function between its callers and its callees.
//!
//! Guarantees: self and total are exact and count a stack once, however often the function recurs in it; the values of
//! `callers` add up to the total, and so do those of `callees`; neither depends on `limit`.

use axum::extract::{RawQuery, State};
use emberline_model::{
    function::Program,
    resolve::ResolvedStacks,
    sandwich::{Neighbour, sandwich},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    merge::{Selection, SelectionQuery},
    profile::ProfileFunction,
};
use crate::{
    answers::{
        json::Json,
        stacks::blocking,
        tree_columns::{ProfileTree, Shown},
    },
    http::error::{ApiError, ErrorBody, shorten},
    query::{
        names::suggestion,
        params::{self, FROM, FUNCTION, LIMIT, PROFILE_TYPE, Parameter, Params, SELECTOR, TO},
    },
    state::Web,
};

pub(super) const PARAMETERS: &[Parameter] = &[FUNCTION, SELECTOR, PROFILE_TYPE, FROM, TO, LIMIT];

/// A function, its callers and its callees.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Callers {
    query: SelectionQuery,
    /// Sum of all stacks, including those without the function.
    total: i64,
    /// The function.
    function: ProfileFunction,
    /// Direct callers, the largest first.
    callers: Vec<CallNeighbour>,
    /// Direct callees, the largest first.
    callees: Vec<CallNeighbour>,
    /// Inverted: the function is below the root, its callers below it, and so on.
    callers_tree: ProfileTree,
    /// The function is below the root, its callees below it.
    callees_tree: ProfileTree,
}

/// A caller or callee of the requested function.
#[derive(Debug, Serialize, ToSchema)]
struct CallNeighbour {
    /// 16 hexadecimal digits; null without a caller or callee.
    id: Option<String>,
    /// `(none)` without a caller or callee.
    name: String,
    module: String,
    /// Value of stacks that contain both.
    value: i64,
    samples: u64,
}

impl CallNeighbour {
    fn of(neighbour: &Neighbour) -> CallNeighbour {
        let function = neighbour.function.as_ref();
        CallNeighbour {
            id: function.map(|f| format!("{:016x}", f.id)),
            name: function.map_or_else(|| params::NONE.to_owned(), |f| f.name.clone()),
            module: function.map(|f| f.module.clone()).unwrap_or_default(),
            value: neighbour.value[0],
            samples: neighbour.samples[0],
        }
    }
}

/// Finds a function by identifier or by name.
fn find(resolved: &ResolvedStacks, wanted: &str) -> Result<u32, ApiError> {
    let id = params::id(wanted);
    let mut functions = resolved.functions.iter();
    let found = functions.position(|f| f.name == wanted || Some(f.id) == id);
    found.map(|at| at as u32).ok_or_else(|| {
        let message = format!(
            "no selected stack contains a function `{}`{}",
            shorten(wanted),
            suggestion(wanted, resolved.functions.iter().map(|f| f.name.as_str()))
        );
        ApiError::not_found("unknown_function", message)
    })
}

/// Who calls a function and what it calls, with exact self and total values.
#[utoipa::path(get, path = "/api/v1/callers", responses(
    (status = 200, body = Callers), (status = "default", body = ErrorBody),
))]
pub(crate) async fn callers(State(web): State<Web>, RawQuery(query): RawQuery) -> Result<Json<Callers>, ApiError> {
    let params = Params::read(query.as_deref(), PARAMETERS, web.clock.now_unix_ns())?;
    let limit = super::tree_limit(&params)?;
    let wanted = params.text(&FUNCTION).unwrap_or_default().to_owned();
    let selection = Selection::read(&web, &params).await?;
    // For two trees.
    let stacks = selection.stacks(&web, limit.map(|limit| 2 * limit)).await?;
    let answer = blocking(move || -> Result<Callers, ApiError> {
        let function = find(&stacks.resolved, &wanted)?;
        let program = Program::of(&stacks.resolved.functions, &[]);
        let found = sandwich(&stacks.resolved, stacks.rows.iter().copied(), function, limit);
        Ok(Callers {
            query: selection.query(),
            total: stacks.total(),
            function: ProfileFunction::of(&found.function, &found.totals, &program),
            callers: found.direct_callers.iter().map(CallNeighbour::of).collect(),
            callees: found.direct_callees.iter().map(CallNeighbour::of).collect(),
            callers_tree: ProfileTree::of(&Shown::whole(found.callers), &program),
            callees_tree: ProfileTree::of(&Shown::whole(found.callees), &program),
        })
    });
    Ok(Json(answer.await??))
}
