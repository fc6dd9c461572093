//! From batches to rows: which dictionary rows are new, which hour a window belongs to.

use std::{borrow::Cow, sync::Arc};

use emberline_model::{Batch, Component, LabelSet, Location, Mapping, Profile, Workload, WorkloadWindow, id};

use super::{News, SERIES_REQUESTS, SERIES_WINDOWS, Seen, Staged, mapping_id, workload_id};
use crate::{
    hot::hours,
    journal::Lsn,
    parts::{
        Kind, PartSet,
        dictionary::{MappingName, Names},
    },
};

/// Turns batches into rows. Windows of hours before `oldest_hour` are past retention and are left out, and so are rows
/// that are sealed already.
pub(crate) fn stage(
    batches: &[(Lsn, Arc<Batch>)],
    seen: &mut Seen,
    oldest_hour: u32,
    parts: &PartSet,
) -> (Staged, News) {
    let mut stager = Stager {
        seen,
        parts,
        staged: Staged::default(),
        news: News::default(),
    };
    let windows = batches
        .iter()
        .flat_map(|(lsn, batch)| batch.windows.iter().map(move |window| (*lsn, window)));
    for (lsn, window) in windows {
        let kept = u32::try_from(window.start_unix_s)
            .ok()
            .filter(|&ts| hours::hour_of(ts) >= oldest_hour);
        match kept {
            Some(ts) => stager.window(lsn, window, ts),
            None => stager.news.expired_windows += 1,
        }
    }
    (stager.staged, stager.news)
}

/// Dictionary rows of a part that are not in the file yet. Stacks and their locations stay in the part.
pub(crate) fn restore(names: &Names, seen: &mut Seen, staged: Staged) -> Staged {
    let parts = PartSet::default();
    let mut stager = Stager {
        seen,
        parts: &parts,
        staged,
        news: News::default(),
    };
    for series in &names.series {
        let workload = series.workload();
        let id = id::series_id(&workload, series.component(), &series.profile_type);
        if stager.seen.series.insert(id) {
            let of = workload_id(&workload);
            let rows = &mut stager.staged.series;
            rows.push(id, of, &workload, series.component(), &series.profile_type);
            stager.series_of_release(&workload, series.component(), &series.profile_type);
        }
    }
    for label_set in &names.label_sets {
        stager.label_set(&label_set.label_set());
    }
    let mappings: Vec<Mapping> = names.mappings.iter().map(MappingName::mapping).collect();
    for build in &names.builds {
        if let Some(mapping) = mappings.get(build.mapping as usize) {
            stager.mapping(mapping, build.workload_id, Component::from_code(build.component));
        }
    }
    stager.staged
}

struct Stager<'a> {
    seen: &'a mut Seen,
    parts: &'a PartSet,
    staged: Staged,
    news: News,
}

impl Stager<'_> {
    fn window(&mut self, lsn: Lsn, window: &WorkloadWindow, ts: u32) {
        let hour = hours::hour_of(ts);
        // Nothing is new of a kind that the window has no row of: an hour that waits for such a row would wait for ever.
        let is_new = |kind, any: bool| any && !self.parts.covers(kind, hour, lsn);
        let windows = is_new(Kind::Windows, true);
        let requests = is_new(Kind::Requests, !window.requests.is_empty());
        let any_of = |has: fn(&Profile) -> bool| window.profiles.iter().any(has);
        let of_profile = (
            is_new(Kind::Samples, any_of(|profile| !profile.samples.is_empty())),
            is_new(Kind::Exemplars, any_of(|profile| !profile.exemplars.is_empty())),
        );
        if !windows && !requests && of_profile == (false, false) {
            return;
        }
        self.news.hours.insert(hour);
        let workload = workload_id(&window.workload);
        let span = self.news.spans.entry(workload).or_insert((ts, ts));
        *span = (span.0.min(ts), span.1.max(ts));
        // So that a workload that reported nothing but empty windows has a name.
        self.series(workload, window, SERIES_WINDOWS);

        if windows {
            let rows = &mut self.staged.hours.entry(hour).or_default().windows;
            rows.push(window, ts, workload, lsn);
            self.news.window_rows += 1;
        }
        if requests {
            let series = self.series(workload, window, SERIES_REQUESTS);
            let rows = &mut self.staged.hours.entry(hour).or_default().requests;
            window
                .requests
                .iter()
                .for_each(|request| rows.push(request, ts, series, lsn));
            self.news.request_rows += window.requests.len() as u64;
        }
        for profile in window.profiles.iter().filter(|_| of_profile != (false, false)) {
            let series = self.series(workload, window, &profile.profile_type.0);
            let process = (workload, window.component, series);
            self.profile(profile, (lsn, ts), process, of_profile);
        }
    }

    fn series(&mut self, workload: u64, window: &WorkloadWindow, profile_type: &str) -> u64 {
        let series = id::series_id(&window.workload, window.component, profile_type);
        if self.seen.series.insert(series) {
            self.news.added.series.push(series);
            self.staged
                .series
                .push(series, workload, &window.workload, window.component, profile_type);
            self.series_of_release(&window.workload, window.component, profile_type);
        }
        series
    }

    /// The series that stands for all processes of a release in roll-ups.
    fn series_of_release(&mut self, workload: &Workload, component: Component, profile_type: &str) {
        if [SERIES_WINDOWS, SERIES_REQUESTS].contains(&profile_type) {
            return;
        }
        let release = Workload {
            instance: String::new(),
            ..workload.clone()
        };
        let series = id::series_id(&release, component, profile_type);
        if self.seen.series.insert(series) {
            self.news.added.series.push(series);
            let of = workload_id(&release);
            self.staged.series.push(series, of, &release, component, profile_type);
        }
    }

    fn profile(
        &mut self,
        profile: &Profile,
        (lsn, ts): (Lsn, u32),
        (workload, component, series): (u64, Component, u64),
        (samples, exemplars): (bool, bool),
    ) {
        let mappings: Vec<u64> = profile
            .mappings
            .iter()
            .map(|m| self.mapping(m, workload, component))
            .collect();
        let mut fresh: Vec<Vec<u64>> = vec![Vec::new(); mappings.len()];
        let locations: Vec<u64> = profile
            .locations
            .iter()
            .map(|l| self.location(l, profile, &mappings, &mut fresh))
            .collect();
        for (mapping, offsets) in profile
            .mappings
            .iter()
            .zip(fresh)
            .filter(|(_, offsets)| !offsets.is_empty())
        {
            self.news.native.push((Arc::new(mapping.clone()), offsets));
        }
        let label_sets: Vec<u64> = profile.label_sets.iter().map(|l| self.label_set(l)).collect();
        let stacks: Vec<u64> = profile.stacks.iter().map(|s| self.stack(s, &locations)).collect();
        let rows = self.staged.hours.entry(hours::hour_of(ts)).or_default();
        if exemplars {
            let rows = &mut rows.exemplars;
            for (at, exemplar) in profile.exemplars.iter().enumerate() {
                let (high, low) = exemplar.trace_halves();
                rows.ts.push(ts);
                rows.series.push(series);
                rows.label_set.push(label_sets[exemplar.label_set as usize]);
                rows.stack.push(stacks[exemplar.stack as usize]);
                rows.value.push(exemplar.value.max(0).unsigned_abs());
                rows.at_ns.push(exemplar.unix_ns.max(0).unsigned_abs());
                rows.trace_high.push(high);
                rows.trace_low.push(low);
                rows.span_id.push(exemplar.span_id);
                rows.cut.push(if at == 0 { profile.exemplars_cut } else { 0 });
                rows.lsn.push(lsn);
            }
        }
        if !samples {
            return;
        }
        let rows = &mut rows.samples;
        for sample in &profile.samples {
            rows.ts.push(ts);
            rows.series.push(series);
            rows.label_set.push(label_sets[sample.label_set as usize]);
            rows.stack.push(stacks[sample.stack as usize]);
            // Values are checked not to be negative when a batch is accepted.
            rows.value.push(sample.value.max(0).unsigned_abs());
            rows.samples.push(sample.count);
            rows.lsn.push(lsn);
        }
        self.news.sample_rows += profile.samples.len() as u64;
    }

    fn mapping(&mut self, mapping: &Mapping, workload: u64, component: Component) -> u64 {
        let id = mapping_id(mapping);
        if self.seen.mappings.insert(id) {
            self.news.added.mappings.push(id);
            self.staged.mappings.0.push(id);
            self.staged.mappings.1.push(mapping.build_id.clone());
            self.staged.mappings.2.push(mapping.path.clone());
        }
        let key = Seen::build_key(workload, component.code(), id);
        if self.seen.builds.insert(key) {
            self.news.added.builds.push(key);
            self.staged.builds.0.push(workload);
            self.staged.builds.1.push(component.code());
            self.staged.builds.2.push(id);
        }
        id
    }

    fn location(&mut self, location: &Location, profile: &Profile, mappings: &[u64], fresh: &mut [Vec<u64>]) -> u64 {
        let key = match location {
            Location::Native { mapping, .. } => profile.mappings[*mapping as usize].key(),
            Location::Named { .. } => Cow::Borrowed(""),
        };
        let id = id::location_id(location, &key);
        if self.seen.locations.insert(id) {
            self.news.added.locations.push(id);
            match location {
                Location::Native { mapping, offset } => {
                    fresh[*mapping as usize].push(*offset);
                    self.staged
                        .locations
                        .push(id, Some(mappings[*mapping as usize]), *offset, &[]);
                }
                Location::Named { frames } => self.staged.locations.push(id, None, 0, frames),
            }
        }
        id
    }

    fn label_set(&mut self, labels: &LabelSet) -> u64 {
        let id = id::label_set_id(labels);
        if self.seen.label_sets.insert(id) {
            self.news.added.label_sets.push(id);
            let rows = &mut self.staged.label_sets;
            rows.id.push(id);
            rows.side.push(labels.side.map_or(0, |s| s.code()));
            rows.route.push(labels.route.clone());
            rows.peer.push(labels.peer.as_ref());
        }
        id
    }

    fn stack(&mut self, stack: &[u32], locations: &[u64]) -> u64 {
        let ids: Vec<u64> = stack.iter().map(|&l| locations[l as usize]).collect();
        let id = id::stack_id(&ids);
        if self.seen.stacks.insert(id) {
            self.news.added.stacks.push(id);
            self.staged.stacks.0.push(id);
            self.staged.stacks.1.values().append_slice(&ids);
            self.staged.stacks.1.append(true);
        }
        id
    }
}
