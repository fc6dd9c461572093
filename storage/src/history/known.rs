//! What is known of each release, in a table that forgets.
//!
//! Guarantees: bounded; what came in a few batches only gives way to its like, and not what lasted or was stated. Wrong on
//! purpose: a release that reported for a few seconds only may be dated anew when it comes back, if thousands of
//! such came meanwhile.

use std::collections::HashMap;

use emberline_model::{Release, time::window_start};
use prost::Message;

/// Releases that are remembered; beyond it the ones silent for longest go.
pub(super) const MAX_RELEASES: usize = 100_000;
/// Of these, ones that came in fewer than [`HEARINGS`] batches and that nobody stated: anybody can make them up.
pub(super) const MAX_BRIEF: usize = 10_000;
/// Batches from which a sender is seen to go on reporting.
pub(super) const HEARINGS: u32 = 3;
/// So many seconds behind is no matter of delivery.
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
    /// When its first batch came, by this server's clock; 0 when that is not known.
    #[prost(int64, tag = "5")]
    pub(super) heard_ms: i64,
    /// The least time from the end of a window to its arrival, seconds.
    #[prost(int64, tag = "6")]
    pub(super) behind_s: i64,
    /// Batches, up to [`HEARINGS`], that came one after the other.
    #[prost(uint32, tag = "7")]
    pub(super) hearings: u32,
    /// End of its newest window.
    #[prost(int64, tag = "8")]
    pub(super) last_s: i64,
    /// When it began, as somebody stated.
    #[prost(int64, optional, tag = "9")]
    pub(super) stated_s: Option<i64>,
}

/// A release, and what the file does not say of it.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) fact: Fact,
    /// When its newest batch came, milliseconds; as far back as this process.
    pub(super) last_heard_ms: Option<i64>,
    /// `last_s` as the file says.
    pub(super) written_last_s: i64,
}

impl Fact {
    /// The names are those of the map's key, and written here for the file only.
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

    /// When it was seen, by this server's clock.
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

    /// By what releases are ordered, besides their versions.
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

/// All releases that are known, up to a bound.
#[derive(Debug, Default)]
pub(super) struct Table {
    of: HashMap<Release, Known>,
    /// No fewer than there are.
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

    /// The entry of a release, a new one if need be. Notes whether others had to go for it.
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

    /// Keeps some; true if others went.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Release, &Known) -> bool) -> bool {
        let before = self.of.len();
        self.of.retain(|release, known| keep(release, known));
        self.of.len() < before
    }

    /// Forgets a tenth when there is no room for one more; true if any went.
    fn make_room(&mut self) -> bool {
        if self.brief_at_most >= MAX_BRIEF {
            self.brief_at_most = self.of.values().filter(|known| known.fact.is_brief()).count();
            if self.brief_at_most >= MAX_BRIEF && self.forget_a_tenth(Fact::is_brief) {
                return true;
            }
        }
        self.of.len() >= MAX_RELEASES && self.forget_a_tenth(|_| true)
    }

    /// Of some, those that are silent for longest; true if any went.
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
