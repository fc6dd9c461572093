//! The stacks of a response and their tree.
//!
//! Guarantee: a stack unknown to the dictionary is part of the tree, under a function of its own; so the tree's total
//! is the sum of all rows.

use std::sync::Arc;

use emberline_model::{
    resolve::{ResolvedStacks, StackValue},
    tree::TreeBuilder,
};
use emberline_storage::{Holding, LabelFilter, Range, SelectedQuery, Store};

use crate::http::error::ApiError;

/// Sums per stack, with names.
#[derive(Clone, Default)]
pub(crate) struct Stacks {
    /// One per stack and side.
    pub(crate) rows: Vec<StackValue>,
    /// Their names.
    pub(crate) resolved: Arc<ResolvedStacks>,
}

/// What a tree takes while it is built and written, in bytes: per path, per path shown, per row, and per function
/// excluding its names.
const PATH_BYTES: usize = 64;
const SHOWN_BYTES: usize = 176;
const ROW_BYTES: usize = 48;
const FUNCTION_BYTES: usize = 176;
/// What a function's name takes in a tree that is shown, excluding its text, which occurs twice.
const NAME_BYTES: usize = 128;

/// What `paths` paths take, approximately, in a tree of which `shown` nodes are shown, in bytes.
pub(crate) fn bytes_of_paths(paths: usize, shown: Option<usize>) -> usize {
    paths * PATH_BYTES + paths.min(shown.unwrap_or(usize::MAX)) * SHOWN_BYTES
}

impl Stacks {
    /// Resolves the stacks of rows, if there is room for their tree, of which `shown` nodes will be shown.
    pub(crate) async fn named(store: &Store, rows: Vec<StackValue>, shown: Option<usize>) -> Result<Stacks, ApiError> {
        let ids: Vec<u64> = rows.iter().map(|row| row.stack_id).collect();
        let stacks = Stacks {
            resolved: store.resolve(&ids).await?,
            rows,
        };
        Holding::current().add(stacks.bytes_of_tree(shown) as u64).await?;
        Ok(stacks)
    }

    /// What the tree takes, approximately, in bytes.
    fn bytes_of_tree(&self, shown: Option<usize>) -> usize {
        let (paths, functions) = (self.resolved.stacks.paths().len(), &self.resolved.functions);
        let names = functions
            .iter()
            .take(shown.unwrap_or(usize::MAX))
            .map(|f| NAME_BYTES + 2 * f.name.len());
        bytes_of_paths(paths, shown)
            + self.rows.len() * ROW_BYTES
            + functions.len() * FUNCTION_BYTES
            + names.sum::<usize>()
    }

    /// Fetches a selection; `None` selects nothing. `shown` nodes of the tree will be shown.
    pub(crate) async fn selected(
        store: &Store,
        profile_type: &str,
        filters: Option<Vec<LabelFilter>>,
        range: Range,
        shown: Option<usize>,
    ) -> Result<Stacks, ApiError> {
        let Some(filters) = filters else {
            return Ok(Stacks::default());
        };
        let query = SelectedQuery {
            by_stack: true,
            ..SelectedQuery::new(profile_type, filters, range)
        };
        let rows = store.ask(query).await?;
        let rows = rows
            .into_iter()
            .map(|row| StackValue {
                stack_id: row.stack_id,
                side: 0,
                value: row.value,
                samples: row.samples,
            })
            .collect();
        Stacks::named(store, rows, shown).await
    }

    /// Sum of all values.
    pub(crate) fn total(&self) -> i64 {
        self.rows.iter().fold(0i64, |sum, row| sum.saturating_add(row.value))
    }

    /// Sum of all samples.
    pub(crate) fn samples(&self) -> u64 {
        self.rows.iter().fold(0u64, |sum, row| sum.saturating_add(row.samples))
    }

    /// Adds everything to a side of a tree.
    pub(crate) fn add_to(&self, tree: &mut TreeBuilder, side: usize) {
        let rows = self.rows.iter().map(|row| StackValue { side, ..*row });
        tree.add_named(&self.resolved, rows);
    }

    /// The tree of one profile.
    pub(crate) fn tree(&self) -> TreeBuilder {
        let mut tree = TreeBuilder::new();
        self.add_to(&mut tree, 0);
        tree
    }
}

/// Runs long work off the threads that serve connections; building a tree walks every stack. Its memory is charged to
/// the query.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let holding = Holding::current();
    tokio::task::spawn_blocking(move || holding.during(work))
        .await
        .map_err(|error| ApiError::internal(format!("the response cannot be built: {error}")))
}
