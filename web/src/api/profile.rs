//! `/api/v1/profile`: where one release spends its CPU.
//!
//! Guarantees: the self values of `functions` add up to `total` at every `limit`, and the table is the same at every
//! `limit`; exports are written from the uncut tree. `cost` divides only windows whose two signals arrived, so its
//! `cpu_ns` can be less than `total`.

use axum::{
    Json,
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
};
use emberline_model::{
    ProfileType, Side,
    resolve::{FunctionInfo, ResolvedStacks},
    tree::{FlameTree, TreeBuilder},
    workload::Component,
};
use emberline_storage::{Range, RequestQuery, StackQuery, StackRow, WorkloadFilter};
use http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    Web,
    catalog::{self, KnownService},
    error::{ApiError, ErrorBody},
    exports::{self, Format, svg::Labels},
    names::suggestion,
    params::{
        COMPONENT, FROM, FUNCTIONS_LIMIT, INSTANCE, LIMIT, NAMESPACE, PROFILE_FORMAT, PROFILE_TYPE, Parameter, Params,
        ROUTE, SERVICE, SIDE, TO, VERSION, shorten,
    },
    tree_columns::ProfileTree,
};

pub(super) const PARAMETERS: &[Parameter] = &[
    SERVICE,
    NAMESPACE,
    VERSION,
    INSTANCE,
    ROUTE,
    COMPONENT,
    SIDE,
    PROFILE_TYPE,
    FROM,
    TO,
    LIMIT,
    FUNCTIONS_LIMIT,
    PROFILE_FORMAT,
];

/// Where one release spends its CPU.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProfileAnswer {
    pub(super) query: ProfileQuery,
    pub(super) profile_type: String,
    /// Unit of values.
    unit: String,
    /// Sum of all stacks.
    pub(super) total: i64,
    /// Stack samples taken.
    pub(super) samples: u64,
    /// Requests of the same release, side and route.
    pub(super) requests: u64,
    /// What a request costs.
    cost: ProfileCost,
    /// Sorted by self value.
    pub(super) functions: Vec<ProfileFunction>,
    /// What `functions_limit` left out.
    pub(super) functions_cut: FunctionsCut,
    tree: ProfileTree,
    /// Share of `total` whose leaf function has a name, 0 to 1.
    resolved_ratio: f64,
}

/// The question, with what was not said filled in.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct ProfileQuery {
    namespace: String,
    service: String,
    pub(super) version: String,
    instance: Option<String>,
    route: Option<String>,
    #[schema(value_type = String)]
    component: Component,
    side: Option<String>,
    from_ms: i64,
    to_ms: i64,
}

/// What a request costs, by the windows whose two signals arrived.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
struct ProfileCost {
    /// In the unit of the profile.
    cpu_ns: i64,
    requests: u64,
    /// `cpu_ns / requests`; null without requests.
    cpu_ns_per_request: Option<f64>,
}

/// One function.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct ProfileFunction {
    /// 16 hexadecimal digits.
    id: String,
    name: String,
    module: String,
    /// Value of stacks that end in it.
    #[serde(rename = "self")]
    self_value: i64,
    /// Value of stacks that contain it.
    total: i64,
    /// Samples of stacks that contain it.
    samples: u64,
    /// Code that the application's owner did not write.
    library: bool,
}

/// Rows left out of a function table.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub(super) struct FunctionsCut {
    /// Rows.
    count: u64,
    /// Sum of their self values.
    #[serde(rename = "self")]
    self_value: i64,
}

/// One release, or a part of it.
pub(super) struct Question {
    known: KnownService,
    version: String,
    instance: Option<String>,
    route: Option<String>,
    component: Component,
    side: Option<Side>,
    profile_type: ProfileType,
    range: Range,
}

/// What the store knows about a question.
struct Found {
    rows: Vec<StackRow>,
    resolved: std::sync::Arc<ResolvedStacks>,
    requests: u64,
    cost: ProfileCost,
}

impl Question {
    /// Reads the parameters and fills in what is not said.
    pub(super) async fn read(web: &Web, params: &Params) -> Result<Question, ApiError> {
        let range = params.shared_range()?;
        let known = catalog::find_service(&web.store, params, range).await?;
        let release = match params.text(&VERSION) {
            Some(version) => known.version(version)?,
            None => known.newest()?,
        };
        let version = release.version.clone();
        let instance = params.text(&INSTANCE).map(str::to_owned);
        if let Some(instance) = &instance
            && !release.instances.contains(instance)
        {
            let message = format!(
                "instance `{}` of `{}` {version} reported nothing in this range{}",
                shorten(instance),
                known.service,
                suggestion(instance, release.instances.iter().map(String::as_str))
            );
            return Err(ApiError::not_found("unknown_instance", message));
        }
        Ok(Question {
            component: params
                .component()
                .unwrap_or_else(|| known.default_component([version.as_str()])),
            version,
            instance,
            route: params.text(&ROUTE).map(str::to_owned),
            side: params.side(),
            profile_type: super::profile_type(params),
            range,
            known,
        })
    }

    async fn find(&self, web: &Web) -> Result<Found, ApiError> {
        let release = self.known.release(&self.version);
        let who = WorkloadFilter {
            instance: self.instance.clone(),
            ..WorkloadFilter::release(&release)
        };
        let stacks = StackQuery {
            component: Some(self.component),
            side: self.side,
            route: self.route.clone(),
            ..StackQuery::new(who.clone(), &self.profile_type.0, self.range)
        };
        let requests = RequestQuery {
            side: Some(self.side.unwrap_or(Side::Server)),
            route: self.route.clone(),
            ..RequestQuery::new(who, self.range)
        };
        let complete_stacks = StackQuery {
            only_complete: true,
            ..stacks.clone()
        };
        let complete_requests = RequestQuery {
            component: Some(self.component),
            only_complete: true,
            ..requests.clone()
        };
        let (sums, served, complete, divisor) = tokio::try_join!(
            web.store.stacks(stacks),
            web.store.requests(requests),
            web.store.stacks(complete_stacks),
            web.store.requests(complete_requests),
        )?;
        let count = |rows: &[emberline_storage::RequestRow]| rows.iter().map(|row| row.duration.count()).sum::<u64>();
        let (requests, divisor) = (count(&served), count(&divisor));
        if sums.rows.is_empty() {
            super::check_names(
                &web.store,
                &self.known,
                self.route.as_deref(),
                &self.profile_type,
                self.range,
            )
            .await?;
        }
        let ids: Vec<u64> = sums.rows.iter().map(|row| row.stack_id).collect();
        let resolved = web.store.resolve(&ids).await?;
        let cpu_ns_per_request = (divisor > 0).then(|| complete.value as f64 / divisor as f64);
        let cost = ProfileCost {
            cpu_ns: complete.value,
            requests: divisor,
            cpu_ns_per_request,
        };
        Ok(Found {
            rows: sums.rows,
            resolved,
            requests,
            cost,
        })
    }

    /// Answers, the tree cut at `tree_limit` and the table at `functions_limit`.
    pub(super) async fn answer(
        self,
        web: &Web,
        tree_limit: Option<usize>,
        functions_limit: Option<usize>,
    ) -> Result<ProfileAnswer, ApiError> {
        let found = self.find(web).await?;
        // Building walks every stack: long work has no place on the threads that serve connections.
        let built = tokio::task::spawn_blocking(move || self.describe(&found, tree_limit, functions_limit));
        built
            .await
            .map_err(|error| ApiError::internal(format!("the tree cannot be built: {error}")))
    }

    fn describe(self, found: &Found, tree_limit: Option<usize>, functions_limit: Option<usize>) -> ProfileAnswer {
        let tree = build(found, tree_limit);
        let total = tree.total()[0];
        let named = tree.functions.iter().zip(&tree.totals);
        let unnamed: i64 = named
            .clone()
            .filter(|(f, _)| f.unresolved)
            .map(|(_, t)| t.self_value[0])
            .sum();
        let mut functions: Vec<ProfileFunction> = named
            .map(|(info, totals)| ProfileFunction {
                id: format!("{:016x}", info.id),
                name: info.name.clone(),
                module: info.module.clone(),
                self_value: totals.self_value[0],
                total: totals.total[0],
                samples: totals.samples[0],
                library: info.is_library(),
            })
            .collect();
        functions.sort_by(|a, b| {
            (b.self_value, b.total)
                .cmp(&(a.self_value, a.total))
                .then_with(|| (&a.name, &a.id).cmp(&(&b.name, &b.id)))
        });
        let mut functions_cut = FunctionsCut::default();
        for row in functions.drain(functions_limit.unwrap_or(usize::MAX).min(functions.len())..) {
            functions_cut.count += 1;
            functions_cut.self_value += row.self_value;
        }
        ProfileAnswer {
            unit: self.profile_type.unit().to_owned(),
            profile_type: self.profile_type.0,
            total,
            samples: found.rows.iter().map(|row| row.samples).sum(),
            requests: found.requests,
            cost: found.cost,
            functions,
            functions_cut,
            resolved_ratio: if total > 0 {
                1.0 - unnamed as f64 / total as f64
            } else {
                1.0
            },
            tree: ProfileTree::of(&tree),
            query: ProfileQuery {
                namespace: self.known.namespace,
                service: self.known.service,
                version: self.version,
                instance: self.instance,
                route: self.route,
                component: self.component,
                side: self.side.map(|side| side.as_str().to_owned()),
                from_ms: self.range.from_unix_s * 1000,
                to_ms: self.range.to_unix_s * 1000,
            },
        }
    }

    fn export(&self, found: &Found, format: Format) -> Result<Response, ApiError> {
        let tree = build(found, None);
        let body = match format {
            Format::Pprof => exports::pprof::write(&tree, &self.profile_type, self.range, false),
            Format::Folded => exports::folded::write(&tree, false).into_bytes(),
            Format::Svg | Format::Html | Format::Json => {
                let title = match &self.route {
                    Some(route) => format!("{} {} {route}", self.known.service, self.version),
                    None => format!("{} {}", self.known.service, self.version),
                };
                let subtitle = format!("{} CPU, {} requests", self.component.as_str(), found.requests);
                let labels = Labels {
                    title: &title,
                    subtitle: &subtitle,
                    unit: self.profile_type.unit(),
                };
                exports::svg::profile(&tree, &labels)?
            }
        };
        Ok(exports::answer(
            body,
            format,
            &format!("{}-{}", self.known.service, self.version),
        ))
    }
}

fn build(found: &Found, limit: Option<usize>) -> FlameTree {
    let mut tree = TreeBuilder::new();
    let (known, unknown): (Vec<&StackRow>, Vec<&StackRow>) = found
        .rows
        .iter()
        .partition(|row| !found.resolved.frames(row.stack_id).is_empty());
    tree.add_resolved(
        &found.resolved,
        known.iter().map(|row| (row.stack_id, row.value, row.samples)),
        0,
    );
    for row in unknown {
        let function = tree.function(&FunctionInfo::unknown());
        tree.add(&[function], 0, row.value, row.samples);
    }
    tree.finish(limit)
}

/// One release's function table and flame tree. Also as pprof, folded stacks and SVG.
#[utoipa::path(get, path = "/api/v1/profile", responses(
    (status = 200, content((ProfileAnswer = "application/json"), (Vec<u8> = "application/octet-stream"), (String = "text/plain"), (String = "image/svg+xml"))),
    (status = "default", body = ErrorBody),
))]
pub(crate) async fn profile(
    State(web): State<Web>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let params = Params::read(query.as_deref(), PARAMETERS, web.clock.now_unix_ns())?;
    // A page is written of comparisons only.
    let format = match Format::of(&params, &headers) {
        Format::Html => Format::Json,
        format => format,
    };
    let limit = super::tree_limit(&params)?;
    let functions_limit = params.count(&FUNCTIONS_LIMIT)?;
    let question = Question::read(&web, &params).await?;
    if format == Format::Json {
        return Ok(Json(question.answer(&web, limit, functions_limit).await?).into_response());
    }
    let found = question.find(&web).await?;
    let written = tokio::task::spawn_blocking(move || question.export(&found, format));
    written
        .await
        .map_err(|error| ApiError::internal(format!("the export failed: {error}")))?
}
