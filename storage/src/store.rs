//! The store: the collector appends to it, and questions are asked of it (`store/ask`).

mod ask;

use std::sync::{Arc, atomic::Ordering};

use emberline_model::{Batch, Frame, Mapping, Release, time::Clock};
use parking_lot::Mutex;

use crate::{
    checks::Checks,
    deletions::{DeleteProgress, Deleted, ServiceName},
    dictionary::Dictionary,
    disk::{Disk, RealDisk},
    error::{AppendError, DeleteError, OpenError, QueryError, StateError, SymbolError},
    history::ReleaseBeginning,
    hot::{Engine, Hot, Shared},
    journal::{Appended, Journal},
    lock::DirLock,
    options::{Options, whole_seconds},
    parts::PartSet,
    pressure::Pressure,
    records::{self, Records},
    stats::{Counters, Gauges, StoreStats},
    symbols::{BuildInfo, Symbols},
};

/// The collector's alert state, below the data directory.
pub(crate) const ALERTS_FILE: &str = "alerts.bin";
/// The names known to the collector, below the data directory.
pub(crate) const NAMES_FILE: &str = "names.bin";

/// A store; clones share it. It closes when the last clone is dropped, or with [`Store::close`].
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

// Fields are dropped in this order: the journal's last batches reach the hot store before that closes, and the lock
// goes last.
struct Inner {
    journal: Arc<Journal>,
    hot: Hot,
    shared: Arc<Shared>,
    dictionary: Arc<Dictionary>,
    pressure: Pressure,
    lock: Mutex<Option<DirLock>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.journal.close();
        self.hot.close();
    }
}

impl Store {
    /// Opens the data directory, or creates it. The query engine catches up from the journal in the background:
    /// [`Store::flush_applied`] waits for it.
    pub fn open(options: Options, clock: Arc<dyn Clock>) -> Result<Store, OpenError> {
        Store::open_on(options, clock, Arc::new(RealDisk))
    }

    /// Opens the store on another disk: everything that must survive a crash goes through it.
    pub fn open_on(options: Options, clock: Arc<dyn Clock>, disk: Arc<dyn Disk>) -> Result<Store, OpenError> {
        std::fs::create_dir_all(&options.data_dir).map_err(|source| OpenError::NotWritable {
            path: options.data_dir.clone(),
            source,
        })?;
        let lock = DirLock::take(&options.data_dir)?;
        // Intermediate results of questions, left behind by a killed process.
        let _ = std::fs::remove_dir_all(options.data_dir.join("tmp"));
        let counters = Arc::new(Counters::default());
        let symbols = Arc::new(Symbols::new(&options.data_dir, disk.clone(), counters.clone()));
        let dictionary = Arc::new(Dictionary::new(options.dictionary_cache_bytes, symbols.clone()));
        let checks = Checks::of_store(&*disk, &options.data_dir, clock.now_unix_ms()).map_err(|source| {
            OpenError::Unreadable {
                path: "/dev/urandom".into(),
                source,
            }
        })?;
        let shared = Shared::new(options, clock.clone(), disk.clone(), counters.clone(), symbols, checks);
        // First, because the journal continues above the highest number the engine has seen.
        let engine = Engine::open(&shared).map_err(|message| {
            tracing::error!(
                message,
                "cannot open the query engine; batches are accepted, queries are unavailable"
            );
            counters.set_hot_error(Some(message));
        });
        let engine = engine.ok();
        let sealed = PartSet::list(&disk, &shared.options.data_dir).map_or(0, |parts| parts.last_lsn());
        // A reused number would make a new batch look like one from before a deletion.
        let deleted = shared.deletions.lock().last_lsn();
        let floor = engine.as_ref().map_or(0, Engine::applied).max(sealed).max(deleted);
        let queue = shared.queue.clone();
        let on_durable = Box::new(move |durable, batches| queue.push(durable, batches));
        let journal = Arc::new(Journal::open(
            &shared.options,
            disk,
            clock,
            counters,
            floor,
            on_durable,
        )?);
        let on_age = {
            let dictionary = dictionary.clone();
            Box::new(move || dictionary.age())
        };
        let hot = Hot::start(shared.clone(), journal.clone(), engine, on_age)?;
        Ok(Store {
            inner: Arc::new(Inner {
                journal,
                hot,
                shared,
                dictionary,
                pressure: Pressure::default(),
                lock: Mutex::new(Some(lock)),
            }),
        })
    }

    /// Stores a batch whole or not at all. The future resolves once it is on disk; dropping it does not cancel the
    /// append. A batch with the id of one that is stored, or in progress, is acknowledged and not stored again.
    pub fn append(&self, batch: Batch) -> impl Future<Output = Result<Appended, AppendError>> + Send + 'static {
        let handed_over = self
            .check(&batch)
            .and_then(|newest_s| self.inner.journal.append(batch, newest_s));
        if let Err(error) = &handed_over {
            self.inner.shared.counters.reject(error.reason());
        }
        async move { handed_over?.await.unwrap_or(Err(AppendError::Closed)) }
    }

    /// Checks what the journal takes for granted; returns the newest second in the batch.
    fn check(&self, batch: &Batch) -> Result<u32, AppendError> {
        let shared = &self.inner.shared;
        let now = shared.clock.now_unix_s();
        let oldest_unix_s = now.saturating_sub(whole_seconds(shared.options.retention)).max(0);
        let newest_unix_s = now
            .saturating_add(whole_seconds(shared.options.max_future))
            .min(i64::from(u32::MAX));
        let mut newest = oldest_unix_s;
        for window in &batch.windows {
            let start_unix_s = window.start_unix_s;
            if start_unix_s < oldest_unix_s {
                return Err(AppendError::TooOld {
                    start_unix_s,
                    oldest_unix_s,
                });
            }
            if start_unix_s > newest_unix_s {
                return Err(AppendError::TooNew {
                    start_unix_s,
                    newest_unix_s,
                });
            }
            newest = newest.max(start_unix_s);
            window.profiles.iter().try_for_each(|profile| profile.validate())?;
        }
        Ok(u32::try_from(if batch.windows.is_empty() { now } else { newest }).unwrap_or(0))
    }

    /// Resolves when everything acknowledged so far is visible to questions.
    pub async fn flush_applied(&self) -> Result<(), QueryError> {
        self.inner.hot.reached(self.inner.journal.durable()).await
    }

    /// Seals finished hours (`seal_after`) now, and late windows of sealed hours without waiting for more; otherwise
    /// this happens within a minute. What cannot be sealed stays where it is and is counted.
    pub async fn seal(&self) -> Result<(), QueryError> {
        self.inner.hot.seal().await
    }

    /// Compacts finished days (`compact_after`) now; otherwise this happens in the background, one day after the other.
    pub async fn compact(&self) -> Result<(), QueryError> {
        self.inner.hot.compact().await
    }

    /// Deletes expired hours and journal segments now; otherwise this happens within a minute.
    pub async fn apply_retention(&self) -> Result<(), QueryError> {
        self.inner.hot.retain().await
    }

    /// Deletes everything that a service reported and that was acknowledged so far. What it reports later is stored. A
    /// second call during a deletion waits for the same result; dropping the future does not stop it. Takes as long as
    /// rewriting every sealed file that contains the service.
    pub async fn delete_service(
        &self,
        namespace: &str,
        service: &str,
        on_progress: &mut (dyn FnMut(DeleteProgress) + Send),
    ) -> Result<Deleted, DeleteError> {
        let who = ServiceName {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
        };
        let after = self.inner.journal.durable();
        self.inner.hot.delete(who, after, on_progress).await
    }

    /// Services whose deletion is not finished: it continues by itself.
    pub fn services_being_deleted(&self) -> Vec<ServiceName> {
        let deletions = self.inner.shared.deletions.lock();
        let unfinished = deletions.all().iter().filter(|deletion| !deletion.files.is_empty());
        unfinished.map(|deletion| deletion.who()).collect()
    }

    /// Reads every sealed part, even if it was read before, and sets damaged ones aside as a question would. Blocks for
    /// that long.
    pub(crate) fn set_aside_damaged_parts(&self) -> Result<(), QueryError> {
        let shared = &self.inner.shared;
        let mut damaged = Vec::new();
        for part in shared.parts().iter() {
            match part.is_intact(true) {
                Ok(true) => {}
                Ok(false) => damaged.push(part.clone()),
                Err(error) => {
                    let message = format!("{}: {error}", part.path.display());
                    return Err(QueryError::Unavailable { message });
                }
            }
        }
        shared.set_aside(&damaged);
        Ok(())
    }

    /// Stores names of a build's locations ([`Mapping::key`]): offsets in the file with their frames, innermost first,
    /// functions normalised ([`emberline_model::function::normalise`]). An empty list of frames says that there is no
    /// name, and the location is not asked for again. On disk when it returns; blocks for that long.
    #[allow(clippy::needless_pass_by_value)] // Callers build the list for this call and have no other use for it.
    pub fn put_symbols(&self, build: &str, located: Vec<(u64, Vec<Frame>)>) -> Result<(), SymbolError> {
        self.inner.shared.symbols.put(build, &located)
    }

    /// Forgets the names of a build ([`Mapping::key`]), on disk as well: its locations have to be looked up again.
    /// Blocks.
    pub fn forget_symbols(&self, build: &str) -> Result<(), SymbolError> {
        self.inner.shared.symbols.forget(build)
    }

    /// Free bytes on the disk of the data directory.
    pub fn free_bytes(&self) -> u64 {
        let shared = &self.inner.shared;
        shared.disk.free_bytes(&shared.options.data_dir).unwrap_or(0)
    }

    /// Locations not looked up yet: for each build at most `limit` offsets, ascending.
    pub fn unresolved(&self, limit: usize) -> Vec<(Mapping, Vec<u64>)> {
        self.inner.shared.symbols.unresolved(limit)
    }

    /// Builds with known native locations.
    pub fn builds(&self) -> Vec<BuildInfo> {
        self.inner.shared.symbols.builds()
    }

    /// States when a release began, in seconds since the Unix epoch, even before it reports. What was stated before
    /// stands unless the new time is earlier, and a release that reported long before the time keeps its place: the
    /// returned beginning is the one that counts. Durable when it returns; blocks for that long.
    pub fn state_release(&self, release: &Release, time_s: i64) -> Result<ReleaseBeginning, StateError> {
        let shared = &self.inner.shared;
        let now_s = shared.clock.now_unix_s();
        let (from_s, to_s) = (
            now_s.saturating_sub(whole_seconds(shared.options.rollup_retention)),
            now_s.saturating_add(whole_seconds(shared.options.max_future)),
        );
        if !(from_s..=to_s).contains(&time_s) {
            return Err(StateError::OutOfRange { time_s, from_s, to_s });
        }
        let mut history = shared.history.lock();
        history.state(&*shared.disk, &shared.options.data_dir, release, time_s)
    }

    /// Replaces the stored alert state of the collector. Durable when it returns; blocks for that long.
    pub fn remember_alerts(&self, records: &[Vec<u8>]) -> std::io::Result<()> {
        let shared = &self.inner.shared;
        records::write(&*shared.disk, &shared.options.data_dir, ALERTS_FILE, records.iter())
    }

    /// What was last given to [`Store::remember_alerts`], less what was lost to damage. Blocks.
    pub fn remembered_alerts(&self) -> Vec<Vec<u8>> {
        let shared = &self.inner.shared;
        let now = shared.clock.now_unix_ms();
        let Records { all, damaged } = records::read(&*shared.disk, &shared.options.data_dir, ALERTS_FILE, now);
        shared.counters.alerts_forgotten.add(damaged);
        // Reported once, not at each start.
        if damaged > 0
            && let Err(error) = self.remember_alerts(&all)
        {
            tracing::warn!(%error, "cannot rewrite the alert state");
        }
        all
    }

    /// Replaces the stored set of known names. Blocks until they are durable.
    pub fn remember_names(&self, records: &[Vec<u8>]) -> std::io::Result<()> {
        let shared = &self.inner.shared;
        records::write(&*shared.disk, &shared.options.data_dir, NAMES_FILE, records.iter())
    }

    /// What was last given to [`Store::remember_names`], less what was lost to damage: such names are new again when
    /// they are next used. Blocks.
    pub fn remembered_names(&self) -> Vec<Vec<u8>> {
        let shared = &self.inner.shared;
        let now = shared.clock.now_unix_ms();
        records::read(&*shared.disk, &shared.options.data_dir, NAMES_FILE, now).all
    }

    /// The state of the store.
    pub fn stats(&self) -> StoreStats {
        let shared = &self.inner.shared;
        let (journal_segments, journal_bytes) = self.inner.journal.size();
        let sealed = shared.parts().size();
        let gauges = Gauges {
            journal_bytes,
            journal_segments,
            hot_bytes: shared.bytes(),
            free_bytes: shared.disk.free_bytes(&shared.options.data_dir).unwrap_or(0),
            queued_bytes: self.inner.journal.queued_bytes() as u64,
            lsn_durable: self.inner.journal.durable(),
            lsn_applied: shared.applied(),
            hours: shared.known.sources.read().hours(),
            sealed_hours: sealed.hours,
            sealed_files: sealed.files,
            sealed_bytes: sealed.bytes,
            sealed_rows: sealed.rows,
            deletion_files_left: shared.deletions.lock().files_left(),
            dictionary_stacks: shared.known.stacks.load(Ordering::Relaxed),
            dictionary_locations: shared.known.locations.load(Ordering::Relaxed),
            queries_running: shared.readers.running() as u64,
            hot_available: shared.readers.is_open(),
        };
        StoreStats::of(&gauges, &shared.counters)
    }

    /// Whether the process holds too much memory; low unless a watcher says otherwise.
    pub fn pressure(&self) -> &Pressure {
        &self.inner.pressure
    }

    /// Writes what was handed over, applies it, checkpoints, and releases the data directory. Appends and questions are
    /// refused afterwards. Blocks.
    pub fn close(&self) {
        self.inner.journal.close();
        self.inner.hot.close();
        self.inner.lock.lock().take();
    }
}

#[cfg(test)]
mod tests {
    use emberline_model::{BatchId, Component, ProfileType, Side, Signal, Workload, WorkloadWindow, time::SystemClock};

    use super::*;
    use crate::{
        hot::failure::Kind,
        questions::{requests::RequestQuery, selection::WorkloadFilter},
        range::Range,
    };

    fn batch(sequence: u64) -> Batch {
        let now = SystemClock.now_unix_s();
        Batch {
            id: Some(BatchId {
                sender: "s".into(),
                epoch: 1,
                sequence,
                signal: Signal::Requests,
            }),
            received_unix_ms: 0,
            windows: vec![WorkloadWindow {
                workload: Workload {
                    service: "checkout".into(),
                    ..Workload::default()
                },
                component: Component::Application,
                start_unix_s: now - now % 10,
                length_s: 10,
                has_requests: true,
                has_profiles: false,
                requests: vec![emberline_model::RequestSeries {
                    side: Side::Server,
                    route: "/".into(),
                    method: String::new(),
                    peer: None,
                    destination: String::new(),
                    protocol: "tcp".into(),
                    status: 0,
                    error: false,
                    duration: emberline_model::Histogram::from_parts(0, 1.0, 1.0, 1.0, [(-1, 1)]),
                    streaming_s: 0.0,
                    request_bytes: 0,
                    response_bytes: 0,
                    open: 0,
                }],
                profiles: Vec::new(),
            }],
        }
    }

    /// Questions have their own connections and threads: however many hang, batches are stored and applied.
    #[tokio::test]
    async fn questions_that_never_end_do_not_hold_up_ingest() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Options::new(dir.path()), Arc::new(SystemClock)).unwrap();
        let asking: Vec<_> = (0..20)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move {
                    let endless = "SELECT count(*) FROM range(10000000000) a, range(10000000000) b";
                    let readers = &store.inner.shared.readers;
                    readers.ask(move |reader| reader.rows(endless, &[], |_| Ok(()))).await
                })
            })
            .collect();
        while store.inner.shared.readers.running() < store.inner.shared.options.reader_connections {
            tokio::task::yield_now().await;
        }
        for sequence in 1..=5 {
            store.append(batch(sequence)).await.unwrap();
        }
        store.flush_applied().await.unwrap();
        // Nobody waits for the answers any more: running questions stop, waiting ones never start.
        asking.iter().for_each(tokio::task::JoinHandle::abort);
        assert_eq!(count(&store).await, 5);
    }

    async fn count(store: &Store) -> u64 {
        store.flush_applied().await.unwrap();
        let query = RequestQuery::new(WorkloadFilter::default(), Range::ALL);
        store.ask(query).await.unwrap().iter().map(|r| r.duration.count()).sum()
    }

    /// A fatal error of DuckDB (from a full disk, say) must neither stop ingest nor need a restart.
    #[tokio::test]
    async fn the_engine_is_reopened_or_rebuilt_while_batches_go_on_being_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Options::new(dir.path()), Arc::new(SystemClock)).unwrap();
        for sequence in 1..=40 {
            store.append(batch(sequence)).await.unwrap();
            match sequence {
                10 => store.inner.shared.queue.repair(Kind::Fatal, "as the test wants".into()),
                20 => store
                    .inner
                    .shared
                    .queue
                    .repair(Kind::Damaged, "as the test wants".into()),
                _ => {}
            }
            if sequence == 15 || sequence == 30 {
                assert_eq!(count(&store).await, sequence);
            }
        }
        assert_eq!(count(&store).await, 40);
        let stats = store.stats();
        assert_eq!((stats.hot_reopens, stats.hot_rebuilds, stats.hot_failures), (1, 1, 0));
        assert!(stats.hot_available && stats.hot_error.is_none());
    }

    /// A batch that the engine rejects is skipped after some attempts; those around it become visible.
    #[tokio::test]
    async fn a_batch_that_cannot_be_shown_does_not_hold_up_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Options::new(dir.path()), Arc::new(SystemClock)).unwrap();
        store.append(batch(1)).await.unwrap();
        assert_eq!(count(&store).await, 1);
        // Bypasses the checks of `Store::append` on purpose: an index outside its table.
        let mut poison = batch(2);
        let mut profile = emberline_model::Profile::empty_cpu(0, 0);
        profile.profile_type = ProfileType::cpu();
        profile.samples.push(emberline_model::Sample {
            stack: 7,
            label_set: 7,
            value: 1,
            count: 1,
        });
        poison.windows[0].profiles.push(profile);
        let appended: Vec<_> = [poison, batch(3), batch(4)]
            .into_iter()
            .map(|batch| store.inner.journal.append(batch, 1).unwrap())
            .collect();
        for receiver in appended {
            receiver.await.unwrap().unwrap();
        }
        assert_eq!(count(&store).await, 3);
        assert_eq!(store.stats().batches_skipped, 1);
    }
}
