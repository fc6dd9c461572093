//! From batches to rows: which dictionary rows are new, and which hour a window belongs to.

use std::{borrow::Cow, sync::Arc};

use emberline_model::{Batch, Component, LabelSet, Location, Mapping, Profile, Workload, WorkloadWindow, id::Content};

use super::{
    News, SERIES_REQUESTS, SERIES_WINDOWS, Seen, Staged, columns::Identity, mapping_content, workload_content,
};
use crate::{
    checks::{Checked, Checks, Sealed},
    hot::hours,
    ids::IdSet,
    journal::Lsn,
    parts::{
        Kind, PartSet,
        dictionary::{MappingName, Names},
    },
};

/// Turns batches into rows. Windows of hours before `oldest_hour` are past retention and are dropped, as are rows that
/// are already sealed.
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
    for &id in &names.salted {
        if stager.seen.salted.insert(id) {
            stager.staged.salted.push(id);
        }
    }
    for series in &names.series {
        let workload = series.workload();
        stager.series(&workload, series.component(), &series.profile_type);
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

/// Where an identifier is looked up.
struct Identified<'a> {
    checks: &'a Checks,
    salted: &'a mut IdSet,
    known: &'a mut Checked,
    sealed: Option<&'a Sealed>,
}

/// How a content is stored.
struct Stored {
    row: Identity,
    /// It has no row yet.
    is_new: bool,
    /// Its own identifier is taken, which was not known before.
    is_collision: bool,
}

impl Identified<'_> {
    /// The row of a content. If two contents shared an identifier, one would get the names of the other, or both be
    /// added up.
    fn row(self, content: &Content) -> Stored {
        let check = self.checks.check(content);
        let salted = || self.checks.salted(content);
        let mut id = content.id();
        let mut is_collision = false;
        if !self.salted.is_empty() && self.salted.contains(&salted()) {
            id = salted();
        } else {
            let known = self.known.get(&id).copied();
            if known == Some(check) {
                return Stored {
                    row: Identity { id, check },
                    is_new: false,
                    is_collision,
                };
            }
            let known = known.or_else(|| self.sealed.and_then(|sealed| sealed.get(id)));
            if known.is_some_and(|known| known != check) {
                id = salted();
                is_collision = self.salted.insert(id);
            }
        }
        let is_new = self.known.insert(id, check).is_none();
        Stored {
            row: Identity { id, check },
            is_new,
            is_collision,
        }
    }
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
        // A kind without rows in this window is never new: an hour waiting for such a row would wait forever.
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
        let workload = self.workload(&window.workload).id;
        let span = self.news.spans.entry(workload).or_insert((ts, ts));
        *span = (span.0.min(ts), span.1.max(ts));
        // Gives a workload that reported only empty windows a name.
        self.series(&window.workload, window.component, SERIES_WINDOWS);

        if windows {
            let rows = &mut self.staged.hours.entry(hour).or_default().windows;
            rows.push(window, ts, workload, lsn);
            self.news.window_rows += 1;
        }
        if requests {
            let series = self.series(&window.workload, window.component, SERIES_REQUESTS);
            let rows = &mut self.staged.hours.entry(hour).or_default().requests;
            window
                .requests
                .iter()
                .for_each(|request| rows.push(request, ts, series, lsn));
            self.news.request_rows += window.requests.len() as u64;
        }
        for profile in window.profiles.iter().filter(|_| of_profile != (false, false)) {
            let series = self.series(&window.workload, window.component, &profile.profile_type.0);
            let process = (workload, window.component, series);
            self.profile(profile, (lsn, ts), process, of_profile);
        }
    }

    /// Records how a row was stored; true if it is to be written.
    fn note(&mut self, stored: &Stored, added: fn(&mut News) -> &mut Vec<u64>) -> bool {
        let id = stored.row.id;
        if stored.is_collision {
            tracing::warn!(
                id,
                "identifier collision, probably deliberate; keeping the two rows apart"
            );
            self.news.id_collisions += 1;
            self.news.added.salted.push(id);
            self.staged.salted.push(id);
        }
        if stored.is_new {
            added(&mut self.news).push(id);
        }
        stored.is_new
    }

    fn workload(&mut self, workload: &Workload) -> Identity {
        let seen = &mut *self.seen;
        let identified = Identified {
            checks: &seen.checks,
            salted: &mut seen.salted,
            known: &mut seen.workloads,
            sealed: None,
        };
        let stored = identified.row(&workload_content(workload));
        self.note(&stored, |news| &mut news.added.workloads);
        stored.row
    }

    fn series(&mut self, workload: &Workload, component: Component, profile_type: &str) -> u64 {
        let (id, is_new) = self.series_alone(workload, component, profile_type);
        if is_new && ![SERIES_WINDOWS, SERIES_REQUESTS].contains(&profile_type) {
            // The one that stands for all processes of a release in roll-ups.
            let release = Workload {
                instance: String::new(),
                ..workload.clone()
            };
            self.series_alone(&release, component, profile_type);
        }
        id
    }

    /// The identifier of a series, and whether its row is new.
    fn series_alone(&mut self, workload: &Workload, component: Component, profile_type: &str) -> (u64, bool) {
        let seen = &mut *self.seen;
        let identified = Identified {
            checks: &seen.checks,
            salted: &mut seen.salted,
            known: &mut seen.series,
            sealed: None,
        };
        let stored = identified.row(&Content::series(workload, component, profile_type));
        let is_new = self.note(&stored, |news| &mut news.added.series);
        if is_new {
            let of = self.workload(workload);
            let rows = &mut self.staged.series;
            rows.push(stored.row, of, workload, component, profile_type);
        }
        (stored.row.id, is_new)
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
            // Values are checked to be non-negative when a batch is accepted.
            rows.value.push(sample.value.max(0).unsigned_abs());
            rows.samples.push(sample.count);
            rows.lsn.push(lsn);
        }
        self.news.sample_rows += profile.samples.len() as u64;
    }

    fn mapping(&mut self, mapping: &Mapping, workload: u64, component: Component) -> u64 {
        let seen = &mut *self.seen;
        let identified = Identified {
            checks: &seen.checks,
            salted: &mut seen.salted,
            known: &mut seen.mappings,
            sealed: None,
        };
        let stored = identified.row(&mapping_content(mapping));
        let id = stored.row.id;
        if self.note(&stored, |news| &mut news.added.mappings) {
            self.staged.mappings.0.push(id);
            self.staged.mappings.3.push(stored.row.check);
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
        let seen = &mut *self.seen;
        let identified = Identified {
            checks: &seen.checks,
            salted: &mut seen.salted,
            known: &mut seen.locations,
            sealed: Some(&seen.sealed_locations),
        };
        let stored = identified.row(&Content::location(location, &key));
        if self.note(&stored, |news| &mut news.added.locations) {
            match location {
                Location::Native { mapping, offset } => {
                    fresh[*mapping as usize].push(*offset);
                    self.staged
                        .locations
                        .push(stored.row, Some(mappings[*mapping as usize]), *offset, &[]);
                }
                Location::Named { frames } => self.staged.locations.push(stored.row, None, 0, frames),
            }
        }
        stored.row.id
    }

    fn label_set(&mut self, labels: &LabelSet) -> u64 {
        let seen = &mut *self.seen;
        let identified = Identified {
            checks: &seen.checks,
            salted: &mut seen.salted,
            known: &mut seen.label_sets,
            sealed: None,
        };
        let stored = identified.row(&Content::label_set(labels));
        let id = stored.row.id;
        if self.note(&stored, |news| &mut news.added.label_sets) {
            let rows = &mut self.staged.label_sets;
            rows.id.push(id);
            rows.check.push(stored.row.check);
            rows.side.push(labels.side.map_or(0, |s| s.code()));
            rows.route.push(labels.route.clone());
            rows.peer.push(labels.peer.as_ref());
        }
        id
    }

    fn stack(&mut self, stack: &[u32], locations: &[u64]) -> u64 {
        let ids: Vec<u64> = stack.iter().map(|&l| locations[l as usize]).collect();
        let seen = &mut *self.seen;
        let identified = Identified {
            checks: &seen.checks,
            salted: &mut seen.salted,
            known: &mut seen.stacks,
            sealed: Some(&seen.sealed_stacks),
        };
        let stored = identified.row(&Content::stack(&ids));
        let id = stored.row.id;
        if self.note(&stored, |news| &mut news.added.stacks) {
            self.staged.stacks.0.push(id);
            self.staged.stacks.2.push(stored.row.check);
            self.staged.stacks.1.values().append_slice(&ids);
            self.staged.stacks.1.append(true);
        }
        id
    }
}
