//! Stacks of an answer and the tree they make.
//!
//! Guarantee: a stack that the dictionary does not know is part of the tree, under a function of its own; so the tree's
//! total is the sum of all rows.

use std::sync::Arc;

use emberline_model::{
    resolve::{ResolvedStacks, StackValue},
    tree::TreeBuilder,
};
use emberline_storage::{LabelFilter, Range, SelectedQuery, Store};

use crate::error::ApiError;

/// Sums per stack, with names.
#[derive(Clone, Default)]
pub(crate) struct Stacks {
    /// One per stack and side.
    pub(crate) rows: Vec<StackValue>,
    /// Their names.
    pub(crate) resolved: Arc<ResolvedStacks>,
}

impl Stacks {
    /// Fetches what a selection holds; `None` selects nothing.
    pub(crate) async fn selected(
        store: &Store,
        profile_type: &str,
        filters: Option<Vec<LabelFilter>>,
        range: Range,
    ) -> Result<Stacks, ApiError> {
        let Some(filters) = filters else {
            return Ok(Stacks::default());
        };
        let query = SelectedQuery {
            by_stack: true,
            ..SelectedQuery::new(profile_type, filters, range)
        };
        let rows = store.selected(query).await?;
        let rows: Vec<StackValue> = rows
            .iter()
            .map(|row| StackValue {
                stack_id: row.stack_id,
                side: 0,
                value: row.value,
                samples: row.samples,
            })
            .collect();
        let ids: Vec<u64> = rows.iter().map(|row| row.stack_id).collect();
        let resolved = store.resolve(&ids).await?;
        Ok(Stacks { rows, resolved })
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

/// Runs long work off the threads that serve connections; building a tree walks every stack.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ApiError::internal(format!("the answer cannot be put together: {error}")))
}
