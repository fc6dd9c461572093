//! What can be asked of a store: one method per question (`questions/`), over the hours that its range touches.
//!
//! Guarantee: a question sees one state of these hours, and whatever becomes of them while it runs, its answer is right or an
//! error.

use std::sync::Arc;

use emberline_model::{
    comparison::{Per, SideData},
    resolve::ResolvedStacks,
};

use super::Store;
use crate::{
    error::QueryError,
    hot::Span,
    ids::IdSet,
    questions::{
        costs::{self, CostQuery, CostRow},
        exemplars::{self, ExemplarQuery, Exemplars},
        heat_map::{self, HeatCell},
        profile_types,
        requests::{self, RequestQuery, RequestRow},
        selected::{self, SampleSeries, SelectedQuery, SelectedRow},
        selection::WorkloadFilter,
        side_data::{self, BothSides, SideQuery},
        stacks::{self, StackQuery, StackRows},
        totals::{self, TotalRow, TotalsQuery},
        windows::{self, ReportQuery, ReportRow, WindowMark, WindowQuery},
    },
    range::Range,
    readers::{Failure, Reader},
};

impl Store {
    /// Profile types of some workloads.
    pub async fn profile_types(&self, range: Range, who: WorkloadFilter) -> Result<Vec<String>, QueryError> {
        self.ask(range, move |reader, span| {
            profile_types::profile_types(reader, span, &who)
        })
        .await
    }

    /// Sums per stack.
    pub async fn stacks(&self, query: StackQuery) -> Result<StackRows, QueryError> {
        self.ask(query.range, move |reader, span| stacks::stacks(reader, span, &query))
            .await
    }

    /// Sums per release, component and, if asked for, route and window.
    pub async fn totals(&self, query: TotalsQuery) -> Result<Vec<TotalRow>, QueryError> {
        self.ask(query.range, move |reader, span| totals::totals(reader, span, &query))
            .await
    }

    /// CPU and the requests it was spent on.
    pub async fn costs(&self, query: CostQuery) -> Result<Vec<CostRow>, QueryError> {
        self.ask(query.range, move |reader, span| costs::costs(reader, span, &query))
            .await
    }

    /// Sums of samples selected by their labels.
    pub async fn selected(&self, query: SelectedQuery) -> Result<Vec<SelectedRow>, QueryError> {
        self.ask(query.range, move |reader, span| {
            selected::selected(reader, span, &query)
        })
        .await
    }

    /// How the totals of windows of processes are spread in each step of a selection; labels and stacks of the question
    /// are passed over.
    pub async fn heat_map(&self, query: SelectedQuery) -> Result<Vec<HeatCell>, QueryError> {
        self.ask(query.range, move |reader, span| {
            heat_map::heat_map(reader, span, &query)
        })
        .await
    }

    /// Samples that say which request they worked for, by trace, span or selection.
    pub async fn exemplars(&self, query: ExemplarQuery) -> Result<Exemplars, QueryError> {
        self.ask(query.range, move |reader, span| {
            exemplars::exemplars(reader, span, &query)
        })
        .await
    }

    /// Which series had samples, by their labels.
    pub async fn sample_series(&self, range: Range) -> Result<Vec<SampleSeries>, QueryError> {
        self.ask(range, selected::sample_series).await
    }

    /// How many different stacks each service (namespace, name) had.
    pub async fn stack_counts(&self, range: Range) -> Result<Vec<(String, String, u64)>, QueryError> {
        self.ask(range, selected::stack_counts).await
    }

    /// Requests and their durations.
    pub async fn requests(&self, query: RequestQuery) -> Result<Vec<RequestRow>, QueryError> {
        self.ask(query.range, move |reader, span| {
            requests::requests(reader, span, &query)
        })
        .await
    }

    /// Windows and which of their signals arrived.
    pub async fn windows(&self, query: WindowQuery) -> Result<Vec<WindowMark>, QueryError> {
        self.ask(query.range, move |reader, span| windows::windows(reader, span, &query))
            .await
    }

    /// The length that nearly all windows of requests do not exceed, in seconds; 0 without any.
    pub async fn usual_window_s(&self, range: Range, who: WorkloadFilter) -> Result<u32, QueryError> {
        self.ask(range, move |reader, span| windows::usual_window_s(reader, span, &who))
            .await
    }

    /// What each release reported, and how much of it both signals cover.
    pub async fn reports(&self, query: ReportQuery) -> Result<Vec<ReportRow>, QueryError> {
        self.ask(query.range, move |reader, span| windows::reports(reader, span, &query))
            .await
    }

    /// One side of a comparison, its stacks named.
    pub async fn side_data(&self, query: SideQuery) -> Result<SideData, QueryError> {
        let mut data = self.unnamed(query).await?;
        self.name([&mut data]).await?;
        Ok(data)
    }

    /// Both sides of a comparison, on one footing: where the stacks of either say no routes, those of the whole services are
    /// compared; and with `best`, where requests cannot divide the CPU of either, both are for seconds. They have one
    /// dictionary. One side is asked for after the other: what the engine needs to add up is there once.
    pub async fn both_sides(
        &self,
        mut baseline: SideQuery,
        mut candidate: SideQuery,
        best: bool,
    ) -> Result<BothSides, QueryError> {
        loop {
            let mut a = self.unnamed(baseline.clone()).await?;
            let mut b = self.unnamed(candidate.clone()).await?;
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

    async fn unnamed(&self, query: SideQuery) -> Result<SideData, QueryError> {
        self.ask(query.range, move |reader, span| {
            side_data::side_data(reader, span, &query)
        })
        .await
    }

    /// Names the stacks of sides, all at once: most stacks are those of both.
    async fn name<const SIDES: usize>(&self, sides: [&mut SideData; SIDES]) -> Result<(), QueryError> {
        let stacks = sides.iter().flat_map(|side| &side.windows).flat_map(|w| &w.stacks);
        let ids: IdSet = stacks.map(|stack| stack.0).collect();
        let resolved = self.resolve(&Vec::from_iter(ids)).await?;
        for side in sides {
            side.resolved = resolved.clone();
        }
        Ok(())
    }

    /// Names the frames of stacks, leaf first. A stack that is not known is left out.
    pub async fn resolve(&self, stack_ids: &[u64]) -> Result<Arc<ResolvedStacks>, QueryError> {
        self.inner.dictionary.resolve(&self.inner.shared, stack_ids).await
    }

    pub(super) async fn ask<T, F>(&self, range: Range, question: F) -> Result<T, QueryError>
    where
        T: Send + 'static,
        F: Fn(&Reader<'_>, &Span) -> Result<T, Failure> + Send + 'static,
    {
        let shared = self.inner.shared.clone();
        // The hours are looked up inside: a second attempt must not look for the hour that was dropped.
        self.inner
            .shared
            .readers
            .ask(move |reader| {
                loop {
                    match question(reader, &shared.span(range)?) {
                        // The rest answers. Each time there are fewer parts.
                        Err(Failure::Parts(damaged)) => shared.set_aside(&damaged),
                        result => return result,
                    }
                }
            })
            .await
    }
}
