//! What `/api/v1/diff` and `/api/v1/functions` have in common: which two releases are compared over which ranges.
//!
//! Guarantee: what is divided by requests comes from time that both signals cover, and the comparison is the same
//! function that alerts use.

use emberline_analysis::compare::{CompareOptions, Comparison, compare};
use emberline_model::{
    ProfileType, Side,
    comparison::{Per, SideData},
    workload::Component,
};
use emberline_storage::{BothSides, Holding, Range, SideQuery};

use crate::{
    answers::stacks::{self, blocking},
    http::error::ApiError,
    query::{
        catalog::{self, KnownService},
        params::{BASELINE, BASELINE_FROM, BASELINE_TO, CANDIDATE, CANDIDATE_FROM, CANDIDATE_TO, Params, ROUTE},
    },
    state::Web,
};

/// Two releases to compare.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) known: KnownService,
    pub(super) baseline: String,
    pub(super) candidate: String,
    pub(super) route: Option<String>,
    pub(super) component: Component,
    pub(super) side: Side,
    pub(super) profile_type: ProfileType,
    /// `None`: whatever the data allows.
    pub(super) per: Option<Per>,
    pub(super) baseline_range: Range,
    pub(super) candidate_range: Range,
}

impl Question {
    /// Reads the parameters and fills in defaults.
    pub(super) async fn read(web: &Web, params: &Params) -> Result<Question, ApiError> {
        let baseline_range = params.range(&BASELINE_FROM, &BASELINE_TO)?;
        let candidate_range = params.range(&CANDIDATE_FROM, &CANDIDATE_TO)?;
        let whole = Range {
            from_unix_s: baseline_range.from_unix_s.min(candidate_range.from_unix_s),
            to_unix_s: baseline_range.to_unix_s.max(candidate_range.to_unix_s),
        };
        let known = catalog::find_service(&web.store, params, whole).await?;
        let (baseline, candidate) = known.pair(params.text(&BASELINE), params.text(&CANDIDATE))?;
        let component = params
            .component()
            .unwrap_or_else(|| known.default_component([baseline.as_str(), candidate.as_str()]));
        Ok(Question {
            baseline,
            candidate,
            route: params.text(&ROUTE).map(str::to_owned),
            component,
            side: params.side().unwrap_or(Side::Server),
            profile_type: super::profile_type(params),
            per: params.per(),
            baseline_range,
            candidate_range,
            known,
        })
    }

    fn side_query(&self, version: &str, range: Range) -> SideQuery {
        SideQuery {
            route: self.route.clone(),
            component: self.component,
            side: self.side,
            profile_type: self.profile_type.0.clone(),
            per: self.per.unwrap_or_default(),
            ..SideQuery::new(self.known.release(version), range)
        }
    }

    /// Fetches both sides and compares them, the tree cut at `tree_limit`.
    pub(super) async fn answer(&self, web: &Web, tree_limit: Option<usize>) -> Result<Comparison, ApiError> {
        let baseline = self.side_query(&self.baseline, self.baseline_range);
        let candidate = self.side_query(&self.candidate, self.candidate_range);
        let sides = web.store.both_sides(baseline, candidate, self.per.is_none()).await?;
        if has_no_stacks(&sides.baseline) && has_no_stacks(&sides.candidate) {
            let whole = self.whole_range();
            super::check_names(
                &web.store,
                &self.known,
                self.route.as_deref(),
                &self.profile_type,
                whole,
            )
            .await?;
        }
        let route = self.route.clone();
        let own = web.own_code.of(&self.known.service).to_vec();
        let profile_type = self.profile_type.clone();
        let bytes = bytes_of(&sides, tree_limit);
        Holding::current().add(bytes as u64).await?;
        // Comparing walks every stack of every window.
        blocking(move || {
            compare(
                &sides.baseline,
                &sides.candidate,
                CompareOptions {
                    profile_type: &profile_type,
                    per: sides.per,
                    whole_service: sides.whole_service,
                    route: route.as_deref(),
                    tree_limit,
                    own: &own,
                },
            )
        })
        .await
    }

    /// The shortest range that contains both sides'.
    pub(super) fn whole_range(&self) -> Range {
        Range {
            from_unix_s: self.baseline_range.from_unix_s.min(self.candidate_range.from_unix_s),
            to_unix_s: self.baseline_range.to_unix_s.max(self.candidate_range.to_unix_s),
        }
    }
}

/// What a function takes in the table of a comparison, excluding its names, and in each slice of time, in bytes.
const FUNCTION_BYTES: usize = 400;
const PIECE_OF_FUNCTION_BYTES: usize = 72;

/// What the comparison takes, approximately, in bytes.
fn bytes_of(sides: &BothSides, shown: Option<usize>) -> usize {
    // Both sides share one dictionary.
    let resolved = &sides.baseline.resolved;
    let (paths, functions) = (resolved.stacks.paths(), &resolved.functions);
    let mut depths: Vec<u32> = Vec::with_capacity(paths.len());
    depths.push(0);
    for (parent, _) in paths.below_root() {
        depths.push(depths[parent as usize] + 1);
    }
    let pieces_of_functions = [&sides.baseline, &sides.candidate].map(|side| {
        let stacks = side.windows.iter().flat_map(|window| &window.stacks);
        let nodes = stacks.filter_map(|(stack, ..)| resolved.stacks.node(*stack));
        let frames: usize = nodes.map(|node| depths[node as usize] as usize).sum();
        frames.min(functions.len() * side.windows.len())
    });
    let names: usize = functions.iter().map(|f| FUNCTION_BYTES + 2 * f.name.len()).sum();
    pieces_of_functions.iter().sum::<usize>() * PIECE_OF_FUNCTION_BYTES
        + names
        + stacks::bytes_of_paths(paths.len(), shown)
}

fn has_no_stacks(side: &SideData) -> bool {
    side.windows.iter().all(|w| w.stacks.is_empty())
}
