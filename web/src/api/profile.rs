//! `/api/v1/profile`: where one release spends its CPU.
//!
//! Guarantees: the self values of `functions` add up to `total` at every `limit`, and the table is the same at every
//! `limit`; exports are written from the uncut tree. `cost` is for the time that both signals cover, so its `total` can
//! be less than the profile's.

use std::sync::Arc;

use axum::{
    extract::{RawQuery, State},
    response::Response,
};
use emberline_model::{
    ProfileType, Side,
    function::Program,
    resolve::{FunctionInfo, StackValue},
    tree::FunctionTotals,
    workload::Component,
};
use emberline_storage::{Dividing, Range, RequestQuery, StackQuery, WorkloadFilter};
use http::HeaderMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use utoipa::ToSchema;

use crate::{
    answers::{
        stacks::{Stacks, blocking},
        tree_columns::{ProfileTree, Shown},
    },
    exports::{self, About, Format},
    http::error::{ApiError, ErrorBody, shorten},
    query::{
        catalog::{self, KnownService},
        names::suggestion,
        params::{
            COMPONENT, FORMAT, FROM, FUNCTIONS_LIMIT, INSTANCE, LIMIT, NAMESPACE, NODE, PROFILE_TYPE, Parameter,
            Params, ROUTE, SERVICE, SIDE, TO, VERSION,
        },
    },
    state::Web,
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
    NODE,
    FORMAT,
];

/// CPU profile of one release.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProfileAnswer {
    pub(super) query: ProfileQuery,
    pub(super) profile_type: String,
    /// Unit of values.
    pub(super) unit: String,
    /// Sum of all stacks.
    pub(super) total: i64,
    /// Stack samples taken.
    pub(super) samples: u64,
    /// Requests of the same release, side and route.
    pub(super) requests: u64,
    /// Cost of a request.
    cost: ProfileCost,
    /// Sorted by self value.
    pub(super) functions: Vec<ProfileFunction>,
    /// Rows omitted by `functions_limit`.
    pub(super) functions_cut: FunctionsCut,
    tree: ProfileTree,
    /// Share of `total` whose leaf function has a name, 0 to 1.
    resolved_ratio: f64,
}

/// The query with defaults filled in.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct ProfileQuery {
    namespace: String,
    service: String,
    pub(super) version: String,
    instance: Option<String>,
    route: Option<String>,
    component: Component,
    side: Option<String>,
    from_ms: i64,
    to_ms: i64,
}

/// Cost of a request, based on the time covered by both signals.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
struct ProfileCost {
    /// In the unit of the profile.
    total: i64,
    requests: u64,
    /// `total / requests`; null without requests.
    per_request: Option<f64>,
}

/// One function.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ProfileFunction {
    /// 16 hexadecimal digits.
    #[schema(value_type = String)]
    id: IdOf,
    #[schema(value_type = String)]
    name: NameOf,
    #[schema(value_type = String)]
    module: ModuleOf,
    /// Value of stacks that end in it.
    #[serde(rename = "self")]
    pub self_value: i64,
    /// Value of stacks that contain it.
    pub total: i64,
    /// Samples of stacks that contain it.
    pub samples: u64,
    /// Library code.
    library: bool,
}

/// A function whose text is written only when sent, since a table may have hundreds of thousands. One that was parsed
/// has only this text.
macro_rules! told_as {
    ($name:ident, $tell:ident, $info:ident => $text:expr, $read:ident => $field:ident: $value:expr) => {
        #[derive(Debug, Clone)]
        struct $name(Arc<FunctionInfo>);

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let $info = &self.0;
                serializer.$tell(&$text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                let $read = String::deserialize(deserializer)?;
                Ok($name(Arc::new(FunctionInfo {
                    $field: $value,
                    ..FunctionInfo::default()
                })))
            }
        }
    };
}

told_as!(IdOf, collect_str, info => format_args!("{:016x}", info.id), text => id: u64::from_str_radix(&text, 16).map_err(D::Error::custom)?);
told_as!(NameOf, serialize_str, info => info.name, text => name: text);
told_as!(ModuleOf, serialize_str, info => info.module, text => module: text);

/// Rows omitted from a function table.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
pub struct FunctionsCut {
    /// Rows.
    pub count: u64,
    /// Sum of their self values.
    #[serde(rename = "self")]
    pub self_value: i64,
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

/// What the store found for a query.
struct Found {
    stacks: Stacks,
    requests: u64,
    cost: ProfileCost,
}

impl Question {
    /// Reads the parameters and fills in defaults.
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

    async fn find(&self, web: &Web, shown: Option<usize>) -> Result<Found, ApiError> {
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
            dividing: Some(Dividing {
                component: self.component,
                profile_type: self.profile_type.0.clone(),
            }),
            ..requests.clone()
        };
        let (sums, served, complete, divisor) = tokio::try_join!(
            web.store.ask(stacks),
            web.store.ask(requests),
            web.store.ask(complete_stacks),
            web.store.ask(complete_requests),
        )?;
        let requests = served.iter().map(|row| row.duration.count()).sum::<u64>();
        let divisor = divisor.iter().map(|row| row.counted).sum::<f64>();
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
        let rows = sums.rows.iter().map(|row| StackValue {
            stack_id: row.stack_id,
            side: 0,
            value: row.value,
            samples: row.samples,
        });
        let stacks = Stacks::named(&web.store, rows.collect(), shown).await?;
        let cost = ProfileCost {
            total: complete.value,
            requests: divisor.round() as u64,
            per_request: (divisor > 0.0).then(|| complete.value as f64 / divisor),
        };
        Ok(Found { stacks, requests, cost })
    }

    /// Answers in the given shape.
    pub(super) async fn answer(self, web: &Web, shape: Shape) -> Result<ProfileAnswer, ApiError> {
        let found = self.find(web, shape.shown()).await?;
        let own = web.own_code.of(&self.known.service).to_vec();
        blocking(move || self.describe(&found, shape, &own)).await?
    }

    fn describe(self, found: &Found, shape: Shape, own: &[String]) -> Result<ProfileAnswer, ApiError> {
        let (total, samples) = (found.stacks.total(), found.stacks.samples());
        let Described {
            functions,
            functions_cut,
            tree,
            resolved_ratio,
        } = shape.describe(&found.stacks, own)?;
        Ok(ProfileAnswer {
            unit: self.profile_type.unit().to_owned(),
            profile_type: self.profile_type.0,
            total,
            samples,
            requests: found.requests,
            cost: found.cost,
            functions,
            functions_cut,
            resolved_ratio,
            tree,
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
        })
    }

    fn export(&self, found: &Found, format: Format) -> Result<Response, ApiError> {
        let tree = found.stacks.tree().finish(None);
        let title = match &self.route {
            Some(route) => format!("{} {} {route}", self.known.service, self.version),
            None => format!("{} {}", self.known.service, self.version),
        };
        let about = About {
            profile_type: &self.profile_type,
            range: self.range,
            title: &title,
            subtitle: &format!("{} CPU, {} requests", self.component.as_str(), found.requests),
        };
        let body = exports::profile(&tree, &about, format)?;
        Ok(exports::answer(
            body,
            format,
            &format!("{}-{}", self.known.service, self.version),
        ))
    }
}

/// How much of a profile is returned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Display limit of the tree.
    pub(super) tree_limit: Option<usize>,
    /// Rows of the function table.
    pub(super) functions_limit: Option<usize>,
    /// Only the part of the tree below this node.
    pub(super) node: Option<u64>,
}

/// What all responses about one profile contain.
pub(super) struct Described {
    pub(super) functions: Vec<ProfileFunction>,
    pub(super) functions_cut: FunctionsCut,
    pub(super) tree: ProfileTree,
    pub(super) resolved_ratio: f64,
}

impl Shape {
    /// From the parameters.
    pub(super) fn read(params: &Params) -> Result<Shape, ApiError> {
        Ok(Shape {
            tree_limit: super::tree_limit(params)?,
            functions_limit: params.count(&FUNCTIONS_LIMIT)?,
            node: params.node()?,
        })
    }

    /// How many nodes of the built tree are shown; all, if a part is searched for in it.
    pub(super) fn shown(&self) -> Option<usize> {
        self.tree_limit.filter(|_| self.node.is_none())
    }

    /// Builds the tree and the function table; the table is exact whatever is cut.
    pub(super) fn describe(self, stacks: &Stacks, own: &[String]) -> Result<Described, ApiError> {
        let shown = match self.node {
            None => Shown::whole(stacks.tree().finish(self.tree_limit)),
            Some(node) => Shown::below(stacks.tree().finish(None), node, self.tree_limit)?,
        };
        let total = stacks.total();
        // Based on all functions of the query, so that a part of the tree is judged like the whole.
        let program = Program::of(&stacks.resolved.functions, own);
        let named = shown.tree.functions.iter().zip(&shown.tree.totals);
        let unnamed: i64 = named
            .clone()
            .filter(|(f, _)| f.unresolved)
            .map(|(_, t)| t.self_value[0])
            .sum();
        let mut functions: Vec<ProfileFunction> = named
            .map(|(info, totals)| ProfileFunction::of(info, totals, &program))
            .collect();
        functions.sort_by(|a, b| {
            (b.self_value, b.total)
                .cmp(&(a.self_value, a.total))
                .then_with(|| (&a.name.0.name, a.id.0.id).cmp(&(&b.name.0.name, b.id.0.id)))
        });
        let mut functions_cut = FunctionsCut::default();
        for row in functions.drain(self.functions_limit.unwrap_or(usize::MAX).min(functions.len())..) {
            functions_cut.count += 1;
            functions_cut.self_value += row.self_value;
        }
        Ok(Described {
            functions,
            functions_cut,
            tree: ProfileTree::of(&shown, &program),
            resolved_ratio: if total > 0 {
                1.0 - unnamed as f64 / total as f64
            } else {
                1.0
            },
        })
    }
}

impl ProfileFunction {
    /// Its normalised name.
    pub fn name(&self) -> &str {
        &self.name.0.name
    }

    /// A row of the table.
    pub(super) fn of(info: &Arc<FunctionInfo>, totals: &FunctionTotals, program: &Program) -> ProfileFunction {
        ProfileFunction {
            id: IdOf(Arc::clone(info)),
            name: NameOf(Arc::clone(info)),
            module: ModuleOf(Arc::clone(info)),
            self_value: totals.self_value[0],
            total: totals.total[0],
            samples: totals.samples[0],
            library: program.is_library(info),
        }
    }
}

/// One release's function table and flame tree. Also as pprof, folded stacks, SVG, a self-contained HTML
/// page, and for speedscope and the Firefox Profiler.
#[utoipa::path(get, path = "/api/v1/profile", responses(
    (status = 200, content((ProfileAnswer = "application/json"), (Vec<u8> = "application/octet-stream"), (String = "text/plain"), (String = "image/svg+xml"), (String = "text/html"))),
    (status = "default", body = ErrorBody),
))]
pub(crate) async fn profile(
    State(web): State<Web>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (params, format) = super::with_format(&web, query.as_deref(), PARAMETERS, &headers)?;
    let shape = Shape::read(&params)?;
    let question = Question::read(&web, &params).await?;
    if format.is_answer() {
        let answer = question.answer(&web, shape).await?;
        let tree = |answer: &mut ProfileAnswer| std::mem::take(&mut answer.tree).into_columns();
        return blocking(move || super::written(answer, tree, format, "profile")).await?;
    }
    let found = question.find(&web, None).await?;
    blocking(move || question.export(&found, format)).await?
}
