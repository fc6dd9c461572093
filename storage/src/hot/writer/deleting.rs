//! Deletes a service: its rows are removed from the tables at once and from the sealed parts one after another.
//!
//! Guarantees: the deletion is on disk before anything is changed; after a crash or a failure it continues at the next
//! start, or within minutes; when it is answered, no question shows rows of the service from batches that were
//! acknowledged before it. Batches are still applied meanwhile, and what comes after it is new. Questions see the parts
//! of an hour with the service or without it. One deletion at a time, never during a compaction: both replace parts.
//!
//! Wrong on purpose: while a deletion is in progress, or was interrupted, questions about the service itself show what
//! is left of it.

mod asked;

use std::{collections::BTreeSet, io, panic::AssertUnwindSafe, sync::Arc};

use asked::{Active, unavailable, unknown};

use super::{
    Engine, Shared, Writer,
    engine::{Removed, derive_history},
};
use crate::{
    deletions::{DeleteProgress, Deleted, Deletion, Owned, ServiceName},
    error::DeleteError,
    hot::{
        failure::{self, Kind},
        purge::{self, Found, Outcome},
        rewrite::Problem,
    },
    parts::{self, PartSet},
};

pub(super) use asked::Deleting;
pub(in crate::hot) use asked::Waiter;

/// The first deletion that parts in use still depend on.
pub(super) fn unfinished(shared: &Shared) -> Option<Deletion> {
    let deletions = shared.deletions.lock();
    let mut all = deletions.all().iter();
    all.find(|deletion| !purge::next(shared, deletion).0.is_empty())
        .cloned()
}

impl Writer {
    /// Takes the next step, unless a thread is already at work.
    pub(super) fn delete_next(&mut self) {
        if self.worker.is_some() || self.closing_since.is_some() {
            return;
        }
        if self.deleting.active.is_none() {
            self.begin();
        }
        let Some(active) = &self.deleting.active else { return };
        if active.looking_into.is_some() {
            return;
        }
        let Some(deletion) = unfinished(&self.shared) else {
            self.finished();
            return;
        };
        let (listed, beside) = purge::next(&self.shared, &deletion);
        let shared = self.shared.clone();
        self.work(move || {
            let written =
                std::panic::catch_unwind(AssertUnwindSafe(|| purge::purge(&shared, &deletion, listed, &beside)));
            Outcome::Written(written.unwrap_or_else(|_| Err(Problem::Internal("deleting panicked".to_owned()))))
        });
    }

    /// Chooses what to delete: the rest of an earlier deletion goes before new requests.
    fn begin(&mut self) {
        let look = std::mem::take(&mut self.deleting.look);
        if self.deleting.asked.is_empty() && (!look || self.shared.deletions.lock().all().is_empty()) {
            return;
        }
        let obstacle = if self.state.engine().is_none() {
            Some("the query engine is being repaired")
        } else if !self.has_room() {
            Some("the disk is too full to rewrite files; free space on it")
        } else {
            None
        };
        if let Some(message) = obstacle {
            for waiter in self.deleting.asked.drain(..) {
                let _ = waiter.reply.send(Err(unavailable(message)));
            }
            return;
        }
        if !self.make_up() {
            return;
        }
        if let Some(deletion) = unfinished(&self.shared) {
            let parts = self.shared.parts();
            let in_use = deletion.files.iter().filter_map(|file| parts.by_file(file));
            let who = deletion.who();
            let (waiters, asked): (Vec<_>, Vec<_>) =
                self.deleting.asked.drain(..).partition(|waiter| waiter.who == who);
            self.deleting.asked = asked.into();
            tracing::info!(?who, "purging remaining data of a deleted service");
            self.deleting.active = Some(Active {
                who,
                waiters,
                looking_into: None,
                deleted: Deleted::default(),
                progress: DeleteProgress {
                    done_bytes: 0,
                    all_bytes: in_use.map(|part| part.bytes).sum(),
                },
            });
            return;
        }
        if look {
            self.forget_deletions();
        }
        let applied = self.state.engine().map_or(0, Engine::applied);
        // What is acknowledged but not applied yet has to be found, too.
        if let Some(waiter) = self.deleting.asked.pop_front_if(|next| next.after <= applied) {
            self.look_for(waiter);
        }
    }

    /// Starts a requested deletion: searches for the service.
    fn look_for(&mut self, waiter: Waiter) {
        let Some(engine) = self.state.engine() else { return };
        let owned = match engine.database.owned(&waiter.who) {
            Ok(owned) => owned,
            Err(error) => {
                let _ = waiter.reply.send(Err(unavailable(error)));
                return;
            }
        };
        let who = waiter.who.clone();
        if owned.series.is_empty() {
            let _ = waiter.reply.send(Err(unknown(who)));
            return;
        }
        let parts = self.shared.parts();
        self.deleting.active = Some(Active {
            who: who.clone(),
            waiters: vec![waiter],
            looking_into: Some(parts.clone()),
            deleted: Deleted::default(),
            progress: DeleteProgress::default(),
        });
        let shared = self.shared.clone();
        self.work(move || {
            let found = std::panic::catch_unwind(AssertUnwindSafe(|| purge::find(&shared, &who, &owned, parts.iter())));
            Outcome::Found(found.unwrap_or_else(|_| Err(Problem::Internal("deleting panicked".to_owned()))))
        });
    }

    /// Runs a step on a thread of its own.
    fn work(&mut self, step: impl FnOnce() -> Outcome + Send + 'static) {
        let queue = self.shared.queue.clone();
        let worker = std::thread::Builder::new().name("deleter".to_owned()).spawn(move || {
            let outcome = step();
            queue.request(|requests| requests.purged = Some(outcome));
        });
        match worker {
            Ok(worker) => self.worker = Some(worker),
            Err(error) => self.fail(&unavailable(format!("cannot start a deletion thread: {error}"))),
        }
    }

    /// A step ended.
    pub(super) fn purged(&mut self, outcome: Outcome) {
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
        match outcome {
            Outcome::Found(Ok(found)) => self.found(found),
            Outcome::Found(Err(problem)) => self.fail(&unavailable(problem)),
            Outcome::Written(Ok(done)) => self.put_in_place(done),
            // Without these parts, the next attempt writes something else.
            Outcome::Written(Err(Problem::Damaged(parts))) => self.shared.set_aside(&parts),
            Outcome::Written(Err(problem)) => self.fail_late(&problem),
        }
    }

    /// The search is over: the deletion takes effect.
    fn found(&mut self, mut found: Found) {
        let shared = self.shared.clone();
        let Some(active) = &mut self.deleting.active else {
            return;
        };
        let (who, looked_into) = (active.who.clone(), active.looking_into.take().unwrap_or_default());
        let Some(engine) = self.state.engine() else {
            self.fail(&unavailable("the query engine is being repaired"));
            return;
        };
        // Rows that were applied and hours that were sealed since the search began.
        let late = (|| -> Result<(Owned, u64), Problem> {
            let failed = |error: duckdb::Error| Problem::Engine(error.to_string());
            let owned = engine.database.owned(&who).map_err(failed)?;
            let (tables, parts) = {
                let sources = shared.known.sources.read();
                (sources.tables.clone(), sources.parts.clone())
            };
            let new = parts.iter().filter(|part| looked_into.by_name(part.name).is_none());
            let new = purge::find(&shared, &who, &owned, new)?;
            found.rows += new.rows;
            found.parts.extend(new.parts);
            let rows = engine.database.count_owned(&tables, &owned).map_err(failed)?;
            Ok((owned, rows))
        })();
        drop(looked_into);
        let (owned, rows) = match late {
            Ok(late) => late,
            Err(problem) => {
                self.fail(&unavailable(problem));
                return;
            }
        };
        if rows + found.rows == 0 && found.parts.is_empty() {
            self.fail(&unknown(who));
            return;
        }
        active.deleted.rows = rows;
        active.progress.all_bytes = found.parts.iter().map(|part| part.bytes).sum();
        active.tell();
        // First, because after a crash the history is derived from what is left of the service.
        if let Err(error) = self.forget_history(&who) {
            self.fail(&unavailable(error));
            return;
        }
        let files = found.parts.iter().map(|part| part.name.to_string()).collect();
        let deletion = Deletion::new(&who, self.journal.durable(), files, &owned);
        let added = shared
            .deletions
            .lock()
            .add(&*shared.disk, &shared.options.data_dir, deletion);
        if let Err(error) = added {
            // It may be on disk or not; either way nothing else was changed yet.
            if let Some(engine) = self.state.engine_mut() {
                engine.holds_deleted = true;
            }
            self.fail_late(&error);
            return;
        }
        self.remove_rows();
    }

    /// Removes the rows of all deletions from the tables. False when that failed.
    fn remove_rows(&mut self) -> bool {
        let Some(engine) = self.state.engine_mut() else {
            return false;
        };
        let shared = self.shared.clone();
        let tables = shared.known.sources.read().tables.clone();
        let removed = Engine::remove_deleted(&shared, &engine.database, &tables);
        match removed {
            Ok(removed) => {
                engine.holds_deleted = removed == Removed::Later;
                true
            }
            Err(error) => {
                engine.holds_deleted = true;
                self.fail_all(&error);
                let kind = failure::kind(&error);
                if matches!(kind, Kind::Damaged | Kind::Fatal | Kind::Full) {
                    self.repair(kind, &error.to_string());
                }
                false
            }
        }
    }

    /// Finishes what a failure or a full disk left of earlier deletions, except in parts. False when that fails again.
    fn make_up(&mut self) -> bool {
        let shared = self.shared.clone();
        let durable = shared
            .deletions
            .lock()
            .make_durable(&*shared.disk, &shared.options.data_dir);
        if let Err(error) = durable {
            self.fail_all(&error);
            return false;
        }
        if !self.state.engine().is_some_and(|engine| engine.holds_deleted) {
            return true;
        }
        if !self.remove_rows() {
            return false;
        }
        self.sweep(true);
        true
    }

    /// Replaces the parts with ones without the service, unless they were dropped meanwhile.
    fn put_in_place(&mut self, done: purge::Done) {
        let shared = self.shared.clone();
        if !shared.parts().holds(&done.replaced) {
            return;
        }
        let dir = parts::folder(&shared.options.data_dir);
        let written = match parts::publish(&shared.disk, &dir, done.drafts) {
            Ok(written) => written,
            Err(error) => {
                self.fail_late(&error);
                // Only the folder knows which are in use.
                self.repair(Kind::Fatal, &format!("cannot rename parts: {error}"));
                return;
            }
        };
        let (before, after): (u64, u64) = (
            done.replaced.iter().map(|part| part.bytes).sum(),
            written.iter().map(|part| part.bytes).sum(),
        );
        {
            let mut sources = shared.known.sources.write();
            let mut set = PartSet::clone(&sources.parts);
            written.into_iter().for_each(|part| set.insert(part));
            set.give_up(&done.replaced);
            sources.parts = Arc::new(set);
        }
        if let Some(active) = &mut self.deleting.active {
            active.deleted.rows += done.rows;
            active.deleted.files += done.replaced.len() as u64;
            active.deleted.bytes_freed += before.saturating_sub(after);
            active.progress.done_bytes += before;
            active.tell();
        }
    }

    /// Nothing of it is left in any part.
    fn finished(&mut self) {
        // Removes its names from memory and from the engine's file.
        self.sweep(true);
        let Some(active) = self.deleting.active.take() else {
            return;
        };
        tracing::info!(who = ?active.who, deleted = ?active.deleted, "service deleted");
        // A start halfway through read it from what was left; what arrived since is new.
        if let Err(error) = self.forget_history(&active.who) {
            tracing::warn!(%error, "cannot write the release history after a deletion; retrying");
        }
        if let Some(engine) = self.state.engine()
            && let Err(error) = derive_history(&self.shared, &engine.database)
        {
            tracing::warn!(%error, "cannot read the remaining releases");
        }
        self.shared.counters.services_deleted.add(1);
        self.forget_deletions();
        for waiter in active.waiters {
            let _ = waiter.reply.send(Ok(active.deleted));
        }
    }

    /// Forgets when releases of a service were first seen; what is still stored of it can bring that back.
    fn forget_history(&mut self, who: &ServiceName) -> io::Result<()> {
        let shared = &self.shared;
        let mut history = shared.history.lock();
        history.forget(&who.namespace, &who.service);
        history.make_durable(&*shared.disk, &shared.options.data_dir)
    }

    /// Ends the current deletion with a failure.
    fn fail(&mut self, error: &DeleteError) {
        let Some(active) = self.deleting.active.take() else {
            return;
        };
        for waiter in active.waiters {
            let _ = waiter.reply.send(Err(error.clone()));
        }
    }

    /// The same after it took effect: it continues later.
    fn fail_late(&mut self, problem: &impl ToString) {
        let message = problem.to_string();
        tracing::error!(message, "deletion of a service failed; retrying in a minute");
        self.shared.counters.deletion_failures.add(1);
        self.fail(&DeleteError::Unfinished { message });
    }

    /// The same for every waiter: the next deletion would fail the same way.
    fn fail_all(&mut self, problem: &impl ToString) {
        for waiter in self.deleting.asked.drain(..) {
            let _ = waiter.reply.send(Err(unavailable(problem.to_string())));
        }
        self.fail_late(problem);
    }

    /// Forgets deletions that nothing depends on any more.
    fn forget_deletions(&self) {
        if self.shared.deletions.lock().all().is_empty() {
            return;
        }
        if let Err(error) = self.try_to_forget_deletions() {
            tracing::warn!(%error, "cannot write the deletion list; retrying in a minute");
        }
    }

    fn try_to_forget_deletions(&self) -> io::Result<()> {
        let shared = &self.shared;
        let dir = parts::folder(&shared.options.data_dir);
        let mut present = BTreeSet::new();
        let mut deletions = shared.deletions.lock();
        if deletions.all().iter().any(|deletion| !deletion.files.is_empty()) {
            // The directory is synced first: a file that comes back after a crash must still have its deletion.
            shared.disk.create_dir_all(&dir)?;
            shared.disk.sync_dir(&dir)?;
            let files = shared.disk.list(&dir)?;
            let names = files.iter().filter_map(|path| path.file_name()?.to_str());
            present.extend(names.map(str::to_owned));
        }
        deletions.prune(&*shared.disk, &shared.options.data_dir, &present, self.journal.first())
    }
}
