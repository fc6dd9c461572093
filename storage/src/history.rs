//! When each release was first seen: a stored fact, not derived from whichever windows happen to be left.
//!
//! Guarantees: the fact outlives restarts, the retention of the windows it came from, and the processes that reported
//! them: instances come and go, a release keeps its place. It is removed with the service, when the release was not
//! heard of for longer than anything is kept, or, if it only ever sent a few batches, when room is needed. A release
//! that comes back, after a rollback or as a second deployment, is the same release. Somebody who knows (CI) may state
//! it. The file `releases.bin` is replaced as a whole, within seconds of a change; what a crash or damage costs is
//! found again in the windows, except what was stated, which is on disk before the request is answered.
//!
//! Whose clock: windows are dated by their senders. A first window later than its arrival is dated by the arrival. A
//! sender that keeps reporting windows [`SKEW_S`] or more behind has a slow clock, and its first window is moved by as
//! much; one that sends a past at once (an import, a backlog) does not. After [`SETTLED_MS`] nothing moves a fact any
//! more. Wrong on purpose: an import that is sent bit by bit looks like a slow clock.
//!
//! One file because whose clock counts, what is kept and what is written are rules about one table. A third of it is
//! the tests of these rules.

mod known;

use std::{io, path::Path};

use emberline_model::{Release, WorkloadWindow};

use crate::{
    disk::Disk,
    error::StateError,
    history::known::{Fact, HEARINGS, Known, Table},
    records::{self, Records},
    stats::Counters,
};

/// The file, below the data directory.
pub(crate) const FILE: &str = "releases.bin";
/// Releases that were stated but never heard of; beyond this, more are refused.
const MAX_STATED_ONLY: usize = 10_000;
/// How long after a release was first heard of its first window becomes final, in milliseconds.
const SETTLED_MS: i64 = 600_000;
/// Time between batches after which a sender counts as still reporting, in milliseconds.
const BETWEEN_HEARINGS_MS: i64 = 5_000;
/// Precision of the time at which a release was last heard of, as stored in the file, in seconds.
const LAST_EXACT_S: i64 = 3_600;
/// How much later than its first window a release may be stated to begin, in seconds: clocks are not further off.
const MOST_LATER_S: i64 = 3_600;

/// When a release began, as currently known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReleaseBeginning {
    /// Seconds since the Unix epoch; decides which release is newer.
    pub first_seen_s: i64,
    /// Whether it was declared through the API; otherwise it is when the release was first seen.
    pub is_stated: bool,
}

/// All known releases.
#[derive(Debug, Default)]
pub(crate) struct History {
    known: Table,
    /// The file is out of date.
    changed: bool,
}

impl History {
    /// Reads the file of a data directory.
    pub(crate) fn read(disk: &dyn Disk, data_dir: &Path, counters: &Counters, now_unix_ms: i64) -> History {
        let Records { all, damaged } = records::read::<Fact>(disk, data_dir, FILE, now_unix_ms);
        if damaged > 0 {
            tracing::error!(
                damaged,
                "rebuilt the release history from stored windows; declare releases from CI again"
            );
            counters.releases_forgotten.add(damaged);
        }
        let mut history = History {
            // Reported once, not at each start.
            changed: damaged > 0,
            ..History::default()
        };
        for mut fact in all {
            let release = fact.take_release();
            let known = Known {
                written_last_s: fact.last_s,
                last_heard_ms: None,
                fact,
            };
            history.known.put(release, known);
        }
        history
    }

    /// Writes what is not in the file yet.
    pub(crate) fn make_durable(&mut self, disk: &dyn Disk, data_dir: &Path) -> io::Result<()> {
        if !self.changed {
            return Ok(());
        }
        let mut all: Vec<(&Release, &Known)> = self.known.iter().collect();
        all.sort_by_key(|(release, _)| (&release.namespace, &release.service, &release.version));
        let facts: Vec<Fact> = (all.into_iter())
            .map(|(release, known)| known.fact.with_names(release))
            .collect();
        records::write(disk, data_dir, FILE, facts.iter())?;
        self.known
            .all_mut()
            .for_each(|known| known.written_last_s = known.fact.last_s);
        self.changed = false;
        Ok(())
    }

    /// True if the file is out of date.
    pub(crate) fn is_changed(&self) -> bool {
        self.changed
    }

    /// Records a window that arrived. `received_unix_ms` is 0 where that is not known.
    pub(crate) fn note(&mut self, window: &WorkloadWindow, received_unix_ms: i64) {
        let release = window.workload.release();
        let start_s = window.start_unix_s;
        let end_s = start_s.saturating_add(i64::from(window.length_s));
        let known = self.known.entry(&release, &mut self.changed);
        let last_heard_ms = known.last_heard_ms.replace(received_unix_ms);
        let fact = &mut known.fact;
        let before = (fact.first_window_s, fact.order(), fact.hearings);
        if fact.first_window_s.is_none() {
            fact.heard_ms = received_unix_ms;
            fact.behind_s = i64::MAX;
        }
        let settled = received_unix_ms > fact.heard_ms.saturating_add(SETTLED_MS);
        if !settled || fact.first_window_s.is_none() {
            fact.first_window_s = Some(fact.first_window_s.map_or(start_s, |first| first.min(start_s)));
            if received_unix_ms > 0 {
                let behind_s = received_unix_ms.div_euclid(1000).saturating_sub(end_s).max(0);
                fact.behind_s = fact.behind_s.min(behind_s);
            }
            let goes_on = last_heard_ms.is_none_or(|last| received_unix_ms >= last + BETWEEN_HEARINGS_MS);
            if goes_on && fact.hearings < HEARINGS {
                fact.hearings += 1;
            } else if !goes_on && let Some(last) = last_heard_ms {
                // Several windows of one batch, or a backlog, are one hearing.
                known.last_heard_ms = Some(last);
            }
        }
        fact.last_s = fact.last_s.max(end_s);
        self.changed |= before != (fact.first_window_s, fact.order(), fact.hearings)
            || fact.last_s >= known.written_last_s.saturating_add(LAST_EXACT_S);
    }

    /// Learns of a release from its stored windows: the starts of the first and of the last.
    pub(crate) fn derive(&mut self, release: &Release, first_s: i64, last_s: i64) {
        let is_new = self.known.get(release).is_none();
        let fact = &mut self.known.entry(release, &mut self.changed).fact;
        if is_new {
            (fact.first_window_s, fact.last_s) = (Some(first_s), last_s);
            self.changed = true;
        }
        // The earliest of several processes counts; a fact that is already known stands.
        if fact.heard_ms == 0 && fact.stated_s.is_none() && fact.first_window_s.is_none_or(|first| first_s < first) {
            fact.first_window_s = Some(first_s);
            self.changed = true;
        }
        fact.last_s = fact.last_s.max(last_s);
    }

    /// States when a release began. Durable when this returns. What was stated before stands unless the new time is
    /// earlier: a second deployment of a version does not make it newer. For the same reason it cannot be much later
    /// than what was seen of it.
    pub(crate) fn state(
        &mut self,
        disk: &dyn Disk,
        data_dir: &Path,
        release: &Release,
        time_s: i64,
    ) -> Result<ReleaseBeginning, StateError> {
        let before = self.known.get(release).map(|known| known.fact.clone());
        let stated_only = || {
            self.known
                .iter()
                .filter(|(_, known)| known.fact.first_window_s.is_none())
        };
        if before.is_none() && stated_only().count() >= MAX_STATED_ONLY {
            return Err(StateError::TooMany { most: MAX_STATED_ONLY });
        }
        let fact = &mut self.known.entry(release, &mut self.changed).fact;
        let comes_back = fact
            .seen_s()
            .is_some_and(|seen| time_s > seen.saturating_add(MOST_LATER_S));
        let stands = fact.stated_s.is_some_and(|stated| stated <= time_s);
        if !comes_back && !stands {
            fact.stated_s = Some(time_s);
            self.changed = true;
        }
        let beginning = ReleaseBeginning {
            first_seen_s: fact.first_seen_s(),
            is_stated: fact.stated_s.is_some(),
        };
        // Also writes what an earlier call could not.
        if let Err(source) = self.make_durable(disk, data_dir) {
            match before {
                Some(before) => self.known.entry(release, &mut self.changed).fact = before,
                None => self.known.remove(release),
            }
            return Err(StateError::Io {
                path: data_dir.join(FILE),
                source,
            });
        }
        Ok(beginning)
    }

    /// When a release began, and its sort key.
    pub(crate) fn of(&self, release: &Release) -> Option<(ReleaseBeginning, (i64, i64))> {
        let fact = &self.known.get(release)?.fact;
        let beginning = ReleaseBeginning {
            first_seen_s: fact.first_seen_s(),
            is_stated: fact.stated_s.is_some(),
        };
        Some((beginning, fact.order()))
    }

    /// Forgets a service.
    pub(crate) fn forget(&mut self, namespace: &str, service: &str) {
        self.retain(|release, _| release.namespace != namespace || release.service != service);
    }

    /// Forgets releases not heard of since a time in seconds.
    pub(crate) fn expire(&mut self, before_s: i64) {
        self.retain(|_, fact| fact.silent_since_s() >= before_s);
    }

    fn retain(&mut self, keep: impl Fn(&Release, &Fact) -> bool) {
        self.changed |= self.known.retain(|release, known| keep(release, &known.fact));
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use emberline_model::{Component, Workload, time::window_start};

    use super::{
        known::{MAX_BRIEF, MAX_RELEASES},
        *,
    };
    use crate::disk::MemoryDisk;

    const T0: i64 = 1_790_000_000;

    fn release(version: &str) -> Release {
        Release {
            namespace: "shop".into(),
            service: "pay".into(),
            version: version.into(),
        }
    }

    fn window(version: &str, start_unix_s: i64) -> WorkloadWindow {
        WorkloadWindow {
            workload: Workload {
                namespace: "shop".into(),
                service: "pay".into(),
                version: version.into(),
                instance: "0".into(),
            },
            component: Component::Proxy,
            start_unix_s,
            length_s: 10,
            has_requests: true,
            has_profiles: false,
            requests: Vec::new(),
            profiles: Vec::new(),
        }
    }

    fn first_seen(history: &History, version: &str) -> i64 {
        history.of(&release(version)).unwrap().0.first_seen_s
    }

    fn disk() -> (MemoryDisk, PathBuf) {
        let (disk, dir) = (MemoryDisk::new(), PathBuf::from("/data"));
        disk.create_dir_all(&dir).unwrap();
        (disk, dir)
    }

    /// Windows `from..to` as a sender with that clock sends them, each 2 s after its end.
    fn live(history: &mut History, version: &str, from: i64, to: i64, clock_s: i64) {
        for n in from..to {
            let received_s = T0 + n * 10 + 12;
            history.note(&window(version, window_start(T0 + n * 10 + clock_s)), received_s * 1000);
        }
    }

    #[test]
    fn clocks_of_senders_do_not_decide_which_release_is_newer() {
        for clock_s in [-3 * 3600, -1800, -90, 0, 120, 3000] {
            let mut history = History::default();
            live(&mut history, "v1", 0, 40, 0);
            live(&mut history, "v2", 40, 80, clock_s);
            let (v1, v2) = (first_seen(&history, "v1"), first_seen(&history, "v2"));
            assert!(v1 < v2 && (v2 - T0 - 400).abs() <= 20, "{clock_s}: {v1} {v2}");
            // A process of v1 that comes much later, whatever its clock, changes nothing.
            live(&mut history, "v1", 500, 510, clock_s - 7200);
            assert_eq!(first_seen(&history, "v1"), v1);
        }
    }

    #[test]
    fn a_past_that_is_sent_at_once_is_a_past() {
        let mut history = History::default();
        let now_ms = (T0 + 100_000) * 1000;
        // The newer one first, then the older one: an import of two recordings.
        for (version, from) in [("v2", 5_000), ("v1", 0)] {
            for n in 0..30 {
                history.note(&window(version, T0 + from + n * 10), now_ms + n);
            }
        }
        assert_eq!(
            (first_seen(&history, "v1"), first_seen(&history, "v2")),
            (T0, T0 + 5_000)
        );
        // A proxy that could not reach the server for ten minutes.
        let mut history = History::default();
        for n in 0..60 {
            history.note(&window("v1", T0 + n * 10), (T0 + 601) * 1000 + n * 200);
        }
        live(&mut history, "v1", 61, 70, 0);
        assert_eq!(first_seen(&history, "v1"), T0);
    }

    #[test]
    fn what_is_known_outlives_a_restart_and_what_nobody_hears_of_is_forgotten() {
        let (disk, dir) = disk();
        let mut history = History::default();
        live(&mut history, "v1", 0, 10, 0);
        live(&mut history, "v2", 10, 20, -600);
        history
            .state(&disk, &dir, &release("v3"), T0 + 5000)
            .expect("the disk works");
        let before: Vec<i64> = ["v1", "v2", "v3"].iter().map(|v| first_seen(&history, v)).collect();
        let counters = Counters::default();
        let mut history = History::read(&disk, &dir, &counters, 0);
        let after: Vec<i64> = ["v1", "v2", "v3"].iter().map(|v| first_seen(&history, v)).collect();
        assert_eq!(before, after);
        // A process that existed before the file did.
        history.derive(&release("v1"), T0 - 9_000, T0);
        assert_eq!(first_seen(&history, "v1"), before[0]);
        history.derive(&release("v0"), T0 - 9_000, T0);
        history.derive(&release("v0"), T0 - 9_500, T0 - 9_400);
        assert_eq!(first_seen(&history, "v0"), T0 - 9_500);
        history.expire(T0 + 4000);
        assert!(history.of(&release("v1")).is_none() && history.of(&release("v3")).is_some());
        history.forget("shop", "pay");
        assert!(history.of(&release("v3")).is_none());
    }

    #[test]
    fn a_statement_is_kept_and_said_twice_is_said_once() {
        let (disk, dir) = disk();
        let mut history = History::default();
        let state = |history: &mut History, version: &str, time_s| {
            history.state(&disk, &dir, &release(version), time_s).unwrap()
        };
        let stated = |first_seen_s| ReleaseBeginning {
            first_seen_s,
            is_stated: true,
        };
        assert_eq!(state(&mut history, "v2", T0 + 90), stated(T0 + 90));
        assert_eq!(state(&mut history, "v2", T0 + 90), stated(T0 + 90));
        live(&mut history, "v2", 10, 20, 0);
        // The pipeline runs again, for a second deployment.
        assert_eq!(state(&mut history, "v2", T0 + 90_000), stated(T0 + 90));
        assert_eq!(state(&mut history, "v2", T0 + 80), stated(T0 + 80));
        // A rollback to a release that was only seen.
        live(&mut history, "v1", 0, 10, 0);
        let back = state(&mut history, "v1", T0 + 90_000);
        assert_eq!((back.first_seen_s, back.is_stated), (T0, false));
        let read = History::read(&disk, &dir, &Counters::default(), 0);
        assert_eq!((first_seen(&read, "v1"), first_seen(&read, "v2")), (T0, T0 + 80));
    }

    #[test]
    fn made_up_releases_give_way_to_each_other_and_not_those_that_lasted() {
        let mut history = History::default();
        live(&mut history, "lasting", 0, HEARINGS.into(), 0);
        let stated = (disk(), release("stated"));
        history.state(&stated.0.0, &stated.0.1, &stated.1, T0).unwrap();
        for n in 0..3 * MAX_BRIEF as i64 {
            history.note(&window(&n.to_string(), T0 + 100 + n), (T0 + 110 + n) * 1000);
            history.changed = false;
        }
        assert!(history.known.iter().count() <= MAX_BRIEF + 2);
        for (version, is_known) in [("0", false), ("29999", true), ("lasting", true), ("stated", true)] {
            assert_eq!(history.of(&release(version)).is_some(), is_known, "{version}");
        }
    }

    #[test]
    fn the_file_is_written_without_what_gave_way() {
        let (disk, dir) = disk();
        let mut history = History::default();
        for n in 0..=MAX_BRIEF as i64 {
            history.derive(&release(&n.to_string()), T0 + n, T0 + n);
        }
        history.make_durable(&disk, &dir).unwrap();
        let read = History::read(&disk, &dir, &Counters::default(), 0);
        assert_eq!(read.known.iter().count(), history.known.iter().count());
        assert!(read.of(&release("0")).is_none() && read.of(&release("10000")).is_some());
    }

    #[test]
    fn many_releases_that_lasted_are_kept_up_to_a_bound() {
        let mut history = History::default();
        for n in 0..=MAX_RELEASES as i64 {
            let fact = &mut history.known.entry(&release(&n.to_string()), &mut false).fact;
            (fact.hearings, fact.last_s) = (HEARINGS, T0 + n);
        }
        let known = history.known.iter().count();
        assert!(known <= MAX_RELEASES && known > MAX_RELEASES / 2, "{known}");
        assert!(history.of(&release("0")).is_none());
        assert!(history.of(&release(&MAX_RELEASES.to_string())).is_some());
    }

    #[test]
    fn statements_about_nobody_are_bounded() {
        let (disk, dir) = disk();
        let mut history = History::default();
        for n in 0..MAX_STATED_ONLY {
            let fact = &mut history.known.entry(&release(&format!("s{n}")), &mut false).fact;
            fact.stated_s = Some(T0);
        }
        let refused = history.state(&disk, &dir, &release("v1"), T0);
        assert!(matches!(refused, Err(StateError::TooMany { .. })));
        live(&mut history, "v1", 0, 2, 0);
        assert!(history.state(&disk, &dir, &release("v1"), T0).is_ok());
    }
}
