//! `/api/v1/merge`: where CPU (or any other profile type) is spent in all samples that a selector matches, across
//! services, releases and routes.
//!
//! Guarantees: as for `/api/v1/profile`; nothing is divided by requests, since a selection need not match how requests
//! are counted.

use axum::{
    extract::{RawQuery, State},
    response::Response,
};
use emberline_model::ProfileType;
use emberline_storage::{LabelFilter, ProfileTypesQuery, Range};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::profile::{Described, FunctionsCut, ProfileFunction, Shape};
use crate::{
    answers::{
        stacks::{Stacks, blocking},
        tree_columns::ProfileTree,
    },
    exports::{self, About, Format},
    http::error::{ApiError, ErrorBody, shorten},
    query::{
        names::suggestion,
        params::{FORMAT, FROM, FUNCTIONS_LIMIT, LIMIT, NODE, PROFILE_TYPE, Parameter, Params, SELECTOR, TO},
        selector::Selector,
    },
    state::Web,
};

pub(super) const PARAMETERS: &[Parameter] = &[SELECTOR, PROFILE_TYPE, FROM, TO, LIMIT, FUNCTIONS_LIMIT, NODE, FORMAT];

/// Functions of a selection.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Merge {
    /// The query.
    pub query: SelectionQuery,
    /// Sum of all stacks.
    pub total: i64,
    /// Stack samples taken.
    pub samples: u64,
    /// Sorted by self value.
    pub functions: Vec<ProfileFunction>,
    /// Rows omitted by `functions_limit`.
    pub functions_cut: FunctionsCut,
    tree: ProfileTree,
    /// Share of `total` whose leaf function has a name, 0 to 1.
    resolved_ratio: f64,
}

/// The query with defaults filled in.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SelectionQuery {
    selector: String,
    pub(super) profile_type: String,
    /// Unit of values.
    pub unit: String,
    from_ms: i64,
    to_ms: i64,
}

/// Samples of one profile type that a selector matches.
pub(super) struct Selection {
    pub(super) text: String,
    pub(super) profile_type: ProfileType,
    pub(super) range: Range,
    pub(super) filters: Option<Vec<LabelFilter>>,
}

impl Selection {
    /// Reads the parameters, and resolves regular expressions.
    pub(super) async fn read(web: &Web, params: &Params) -> Result<Selection, ApiError> {
        let range = params.shared_range()?;
        let text = params.text(&SELECTOR).unwrap_or_default().to_owned();
        let selector = Selector::strict(&text)?;
        let given = params.text(&PROFILE_TYPE);
        if let (Some(given), Some(written)) = (given, &selector.profile_type)
            && given != written
        {
            let message = "`profile_type` and the selector name different profile types: set only one".to_owned();
            return Err(ApiError::bad_request("bad_parameter", message));
        }
        let profile_type = match &selector.profile_type {
            Some(written) => ProfileType(written.clone()),
            None => super::profile_type(params),
        };
        let filters = selector.filters(&web.store, &profile_type.0, range).await?;
        Ok(Selection {
            text,
            profile_type,
            range,
            filters,
        })
    }

    pub(super) fn query(&self) -> SelectionQuery {
        SelectionQuery {
            selector: self.text.clone(),
            profile_type: self.profile_type.0.clone(),
            unit: self.profile_type.unit().to_owned(),
            from_ms: self.range.from_unix_s * 1000,
            to_ms: self.range.to_unix_s * 1000,
        }
    }

    /// The stacks, for a tree of which `shown` nodes are shown; a profile type that was never sent is refused by name
    /// instead of giving an empty response.
    pub(super) async fn stacks(&self, web: &Web, shown: Option<usize>) -> Result<Stacks, ApiError> {
        let filters = self.filters.clone();
        let stacks = Stacks::selected(&web.store, &self.profile_type.0, filters, self.range, shown).await?;
        if stacks.rows.is_empty() {
            check_type(web, &self.profile_type, self.range).await?;
        }
        Ok(stacks)
    }
}

/// Refuses a profile type that was not sent in a range.
pub(super) async fn check_type(web: &Web, profile_type: &ProfileType, range: Range) -> Result<(), ApiError> {
    if *profile_type == ProfileType::cpu() {
        return Ok(());
    }
    let types = web
        .store
        .ask(ProfileTypesQuery {
            who: emberline_storage::WorkloadFilter::default(),
            range,
        })
        .await?;
    if types.contains(&profile_type.0) {
        return Ok(());
    }
    let message = format!(
        "no profile of type `{}` was sent in this range{}",
        shorten(&profile_type.0),
        suggestion(&profile_type.0, types.iter().map(String::as_str))
    );
    Err(ApiError::not_found("unknown_profile_type", message))
}

/// Function table and flame tree of everything that a selector selects. In all formats of `/api/v1/profile`.
#[utoipa::path(get, path = "/api/v1/merge", responses(
    (status = 200, content((Merge = "application/json"), (Vec<u8> = "application/octet-stream"), (String = "text/plain"), (String = "image/svg+xml"), (String = "text/html"))),
    (status = "default", body = ErrorBody),
))]
pub(crate) async fn merge(
    State(web): State<Web>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (params, format) = super::with_format(&web, query.as_deref(), PARAMETERS, &headers)?;
    let shape = Shape::read(&params)?;
    let selection = Selection::read(&web, &params).await?;
    let shown = shape.shown().filter(|_| format.is_answer());
    let stacks = selection.stacks(&web, shown).await?;
    if !format.is_answer() {
        return blocking(move || export(&selection, &stacks, format)).await?;
    }
    let answer = blocking(move || -> Result<Response, ApiError> {
        let Described {
            functions,
            functions_cut,
            tree,
            resolved_ratio,
        } = shape.describe(&stacks, &[])?;
        let answer = Merge {
            query: selection.query(),
            total: stacks.total(),
            samples: stacks.samples(),
            functions,
            functions_cut,
            tree,
            resolved_ratio,
        };
        let tree = |answer: &mut Merge| std::mem::take(&mut answer.tree).into_columns();
        super::written(answer, tree, format, "merge")
    });
    answer.await?
}

fn export(selection: &Selection, stacks: &Stacks, format: Format) -> Result<Response, ApiError> {
    let title = match selection.text.as_str() {
        "" => "everything",
        text => text,
    };
    let about = About {
        profile_type: &selection.profile_type,
        range: selection.range,
        title,
        subtitle: &selection.profile_type.0,
    };
    let body = exports::profile(&stacks.tree().finish(None), &about, format)?;
    Ok(exports::answer(body, format, "merge"))
}
