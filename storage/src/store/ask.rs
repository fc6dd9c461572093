//! Asking a store: any [`Question`], and the two methods that combine several (`questions/side_data`).
//!
//! Guarantee: a question sees one state of the hours that it covers, and whatever happens to them while it runs, its
//! answer is correct or an error.

use std::sync::Arc;

use emberline_model::{
    comparison::{Per, SideData},
    resolve::ResolvedStacks,
};

use super::Store;
use crate::{
    error::QueryError,
    ids::IdSet,
    questions::{
        Question, View,
        side_data::{BothSides, SideQuery, Unnamed},
    },
    readers::Failure,
};

impl Store {
    /// Answers a question.
    pub async fn ask<Q: Question>(&self, question: Q) -> Result<Q::Answer, QueryError> {
        let shared = self.inner.shared.clone();
        // The hours are looked up inside: a retry must not look for the hour that was dropped.
        self.inner
            .shared
            .readers
            .ask(move |reader| {
                loop {
                    let span = shared.span(question.range())?;
                    let view = View {
                        reader,
                        span: &span,
                        shared: &shared,
                    };
                    match question.run(&view) {
                        // The rest answers. There are fewer parts each time, so this ends.
                        Err(Failure::Parts(damaged)) => shared.set_aside(&damaged),
                        result => return result,
                    }
                }
            })
            .await
    }

    /// One side of a comparison, with its stacks named.
    pub async fn side_data(&self, query: SideQuery) -> Result<SideData, QueryError> {
        let mut data = self.ask(Unnamed(query)).await?;
        self.name([&mut data]).await?;
        Ok(data)
    }

    /// Both sides of a comparison, on equal terms: if the stacks of either have no routes, the whole services are
    /// compared; and with `best`, if requests cannot divide the CPU of either, both are per second. They share one
    /// dictionary. The sides are asked for one after the other, so that the engine needs memory for only one at a time.
    pub async fn both_sides(
        &self,
        mut baseline: SideQuery,
        mut candidate: SideQuery,
        best: bool,
    ) -> Result<BothSides, QueryError> {
        loop {
            let mut a = self.ask(Unnamed(baseline.clone())).await?;
            let mut b = self.ask(Unnamed(candidate.clone())).await?;
            let (per, whole_service) = (candidate.divided_by(), candidate.whole_service);
            if best && per == Per::Request && !(a.is_divisible() && b.is_divisible()) {
                (baseline.per, candidate.per) = (Per::Second, Per::Second);
            } else if !whole_service && candidate.route.is_some() && (a.says_no_routes() || b.says_no_routes()) {
                (baseline.whole_service, candidate.whole_service) = (true, true);
            } else {
                self.name([&mut a, &mut b]).await?;
                return Ok(BothSides {
                    baseline: a,
                    candidate: b,
                    per,
                    whole_service,
                });
            }
        }
    }

    /// Names the stacks of all sides at once: most stacks are common to both.
    async fn name<const SIDES: usize>(&self, sides: [&mut SideData; SIDES]) -> Result<(), QueryError> {
        let stacks = sides.iter().flat_map(|side| &side.windows).flat_map(|w| &w.stacks);
        let ids: IdSet = stacks.map(|stack| stack.0).collect();
        let resolved = self.resolve(&Vec::from_iter(ids)).await?;
        for side in sides {
            side.resolved = resolved.clone();
        }
        Ok(())
    }

    /// Names the frames of stacks, leaf first. Unknown stacks are left out.
    pub async fn resolve(&self, stack_ids: &[u64]) -> Result<Arc<ResolvedStacks>, QueryError> {
        self.inner.dictionary.resolve(&self.inner.shared, stack_ids).await
    }
}
