//! What is known of each release, in a bounded table.
//!
//! Guarantees: releases seen in only a few batches displace each other, not those that lasted or were stated. Wrong on
//! purpose: a release that reported for only a few seconds may get a new date when it comes back, if thousands of its
//! kind came in between.

use std::collections::HashMap;

use emberline_model::{Release, time::window_start};
use prost::Message;

/// Releases remembered; beyond this, those silent for longest are evicted.
pub(super) const MAX_RELEASES: usize = 100_000;
/// Of these, how many may have come in fewer than [`HEARINGS`] batches without being stated: anybody can make those up.
pub(super) const MAX_BRIEF: usize = 10_000;
/// Batches after which a sender counts as still reporting.
pub(super) const HEARINGS: u32 = 3;
/// A delay of this many seconds is not a matter of delivery.
const SKEW_S: i64 = 60;

/// What is known of a release.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Fact {
    #[prost(string, tag = "1")]
    pub(super) namespace: String,
    #[prost(string, tag = "2")]
    pub(super) service: String,
    #[prost(string, tag = "3")]
    pub(super) version: String,
    /// Start of its first window, by its sender's clock; seconds since the Unix epoch.
    #[prost(int64, optional, tag = "4")]
    pub(super) first_window_s: Option<i64>,
    /// When its first batch arrived, by this server's clock; 0 if unknown.
    #[prost(int64, tag = "5")]
    pub(super) heard_ms: i64,
    /// The shortest time from the end of a window to its arrival, in seconds.
    #[prost(int64, tag = "6")]
    pub(super) behind_s: i64,
    /// Batches, up to [`HEARINGS`], that came one after another.
    #[prost(uint32, tag = "7")]
    pub(super) hearings: u32,
    /// End of its newest window.
    #[prost(int64, tag = "8")]
    pub(super) last_s: i64,
    /// The stated beginning.
    #[prost(int64, optional, tag = "9")]
    pub(super) stated_s: Option<i64>,
}

/// A release, with what is not in the file.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) fact: Fact,
    /// When its newest batch arrived, in milliseconds; known only since this process started.
    pub(super) last_heard_ms: Option<i64>,
    /// `last_s` as written to the file.
    pub(super) written_last_s: i64,
}

impl Fact {
    /// The names are in the map's key; the fields are filled in only for the file.
    pub(super) fn unknown() -> Fact {
        Fact {
            behind_s: i64::MAX,
            ..Fact::default()
        }
    }

    pub(super) fn take_release(&mut self) -> Release {
        Release {
            namespace: std::mem::take(&mut self.namespace),
            service: std::mem::take(&mut self.service),
            version: std::mem::take(&mut self.version),
        }
    }

    pub(super) fn with_names(&self, release: &Release) -> Fact {
        Fact {
            namespace: release.namespace.clone(),
            service: release.service.clone(),
            version: release.version.clone(),
            ..self.clone()
        }
    }

    /// When it was first seen, by this server's clock.
    pub(super) fn seen_s(&self) -> Option<i64> {
        let first = self.first_window_s?;
        if self.heard_ms == 0 {
            return Some(first);
        }
        let has_slow_clock = self.hearings >= HEARINGS && (SKEW_S..i64::MAX).contains(&self.behind_s);
        let moved = if has_slow_clock { first + self.behind_s } else { first };
        Some(moved.min(window_start(self.heard_ms.div_euclid(1000))))
    }

    pub(super) fn first_seen_s(&self) -> i64 {
        self.stated_s.or_else(|| self.seen_s()).unwrap_or_default()
    }

    /// What releases are ordered by, besides their versions.
    pub(super) fn order(&self) -> (i64, i64) {
        (self.first_seen_s(), self.first_window_s.unwrap_or(i64::MAX))
    }

    pub(super) fn silent_since_s(&self) -> i64 {
        self.last_s.max(self.stated_s.unwrap_or_default())
    }

    fn is_brief(&self) -> bool {
        self.hearings < HEARINGS && self.stated_s.is_none()
    }
}

/// All known releases, up to a bound.
#[derive(Debug, Default)]
pub(super) struct Table {
    of: HashMap<Release, Known>,
    /// An upper bound of their number.
    brief_at_most: usize,
}

impl Table {
    pub(super) fn get(&self, release: &Release) -> Option<&Known> {
        self.of.get(release)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Release, &Known)> {
        self.of.iter()
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Known> {
        self.of.values_mut()
    }

    /// The entry of a release, created if necessary. Sets `changed` if others were evicted for it.
    pub(super) fn entry(&mut self, release: &Release, changed: &mut bool) -> &mut Known {
        if !self.of.contains_key(release) {
            *changed |= self.make_room();
            self.brief_at_most += 1;
        }
        self.of.entry(release.clone()).or_insert_with(|| Known {
            fact: Fact::unknown(),
            ..Known::default()
        })
    }

    pub(super) fn put(&mut self, release: Release, known: Known) {
        self.brief_at_most += usize::from(known.fact.is_brief());
        self.of.insert(release, known);
    }

    pub(super) fn remove(&mut self, release: &Release) {
        self.of.remove(release);
    }

    /// Keeps what `keep` says; true if any were removed.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Release, &Known) -> bool) -> bool {
        let before = self.of.len();
        self.of.retain(|release, known| keep(release, known));
        self.of.len() < before
    }

    /// Evicts a tenth when there is no room for one more; true if any were evicted.
    fn make_room(&mut self) -> bool {
        if self.brief_at_most >= MAX_BRIEF {
            self.brief_at_most = self.of.values().filter(|known| known.fact.is_brief()).count();
            if self.brief_at_most >= MAX_BRIEF && self.forget_a_tenth(Fact::is_brief) {
                return true;
            }
        }
        self.of.len() >= MAX_RELEASES && self.forget_a_tenth(|_| true)
    }

    /// Evicts those silent for longest among the selected ones; true if any were evicted.
    fn forget_a_tenth(&mut self, of: impl Fn(&Fact) -> bool) -> bool {
        let among = self.of.values().map(|known| &known.fact).filter(|fact| of(fact));
        let mut silent: Vec<i64> = among.map(Fact::silent_since_s).collect();
        silent.sort_unstable();
        let Some(&before) = silent.get(silent.len() / 10) else {
            return false;
        };
        let mut left = silent.len() / 10 + 1;
        self.retain(|_, known| {
            let goes = left > 0 && of(&known.fact) && known.fact.silent_since_s() <= before;
            left -= usize::from(goes);
            !goes
        })
    }
}
