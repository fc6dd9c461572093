//! The journal's own thread: gathers a group, writes it, syncs once, answers every sender.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, atomic::Ordering, mpsc},
    time::Instant,
};

use emberline_model::{Batch, BatchId, time::Clock};
use tokio::sync::oneshot;

use super::{Append, Appended, Command, Lsn, Needless, OnDurable, Shared, recovery, segment};
use crate::{
    dedup::{Dedup, Seen},
    disk::{AppendFile, is_full},
    error::AppendError,
    framing,
    journal::segment::Segment,
    options::{Options, whole_seconds},
};

/// A group is closed at this size, so that its sync stays short.
const MAX_GROUP_BYTES: usize = 8 << 20;

type Reply = oneshot::Sender<Result<Appended, AppendError>>;

pub(super) struct Writer {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    options: Options,
    dedup: Dedup,
    next_lsn: Lsn,
    /// The segment being written: its file and its length on disk.
    active: Option<(Box<dyn AppendFile>, Segment)>,
    on_durable: OnDurable,
}

/// Batches to be written with one sync.
#[derive(Default)]
struct Group {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    by_id: HashMap<BatchId, usize>,
}

struct Entry {
    lsn: Lsn,
    batch: Arc<Batch>,
    /// Of the encoded batch, uncompressed.
    length: usize,
    newest_s: u32,
    reply: Reply,
    /// Other senders of the same batch, answered with it.
    followers: Vec<Reply>,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        clock: Arc<dyn Clock>,
        options: &Options,
        dedup: Dedup,
        durable: Lsn,
        on_durable: OnDurable,
    ) -> Writer {
        let options = options.clone();
        Writer {
            shared,
            clock,
            options,
            dedup,
            next_lsn: durable + 1,
            active: None,
            on_durable,
        }
    }

    pub(super) fn run(mut self, inbox: &mpsc::Receiver<Command>) {
        let mut open = true;
        while open {
            let Ok(first) = inbox.recv() else { break };
            let mut waiting = Vec::new();
            let mut trims = Vec::new();
            let mut bytes = 0;
            let deadline = Instant::now() + self.options.group_wait;
            let mut next = Some(first);
            while let Some(command) = next.take() {
                match command {
                    Command::Append(append) => {
                        bytes += append.payload.len();
                        waiting.push(append);
                    }
                    Command::Trim(needless, done) => trims.push((needless, done)),
                    Command::Close => {
                        open = false;
                        // Batches handed over before the close are still written.
                        while let Ok(command) = inbox.try_recv() {
                            if let Command::Append(append) = command {
                                waiting.push(append);
                            }
                        }
                        break;
                    }
                }
                if bytes < MAX_GROUP_BYTES {
                    next = inbox
                        .recv_timeout(deadline.saturating_duration_since(Instant::now()))
                        .ok();
                }
            }
            self.commit(waiting);
            for (needless, done) in trims {
                self.trim(needless);
                let _ = done.send(());
            }
        }
        if let Err(error) = self.remember_senders() {
            tracing::warn!(%error, "cannot write the sender state; the next start rebuilds it from the journal");
        }
    }

    fn answer(&self, length: usize, reply: Reply, result: Result<Appended, AppendError>) {
        self.shared.queued.fetch_sub(length, Ordering::Relaxed);
        match &result {
            Ok(Appended::Stored { .. }) => self.shared.counters.batches_stored.add(1),
            Ok(Appended::Duplicate) => self.shared.counters.duplicates.add(1),
            Err(error) => self.shared.counters.reject(error.reason()),
        }
        // A sender that is gone sends again, and is told that its batch is stored.
        let _ = reply.send(result);
    }

    fn commit(&mut self, waiting: Vec<Append>) {
        let mut group = Group::default();
        for append in waiting {
            if let Some(id) = &append.batch.id {
                match self.dedup.seen(id) {
                    Seen::New => {}
                    Seen::Stored => {
                        self.answer(append.length, append.reply, Ok(Appended::Duplicate));
                        continue;
                    }
                    Seen::Forgotten => {
                        let error = AppendError::Forgotten { sequence: id.sequence };
                        self.answer(append.length, append.reply, Err(error));
                        continue;
                    }
                }
                if let Some(&first) = group.by_id.get(id) {
                    self.shared.queued.fetch_sub(append.length, Ordering::Relaxed);
                    group.entries[first].followers.push(append.reply);
                    continue;
                }
                group.by_id.insert(id.clone(), group.entries.len());
            }
            let lsn = self.next_lsn + group.entries.len() as Lsn;
            framing::encode(&mut group.bytes, lsn, append.newest_s, &append.payload);
            let Append {
                payload: _,
                length,
                batch,
                newest_s,
                reply,
            } = append;
            group.entries.push(Entry {
                lsn,
                batch,
                length,
                newest_s,
                reply,
                followers: Vec::new(),
            });
        }
        if group.entries.is_empty() {
            return;
        }
        match self.write(&group.bytes) {
            Ok(()) => self.acknowledge(group),
            Err(error) => self.refuse(group, &error),
        }
    }

    /// Writes and syncs; after an error, none of `bytes` counts as written.
    fn write(&mut self, bytes: &[u8]) -> Result<(), AppendError> {
        let free = self.shared.disk.free_bytes(&self.shared.dir).unwrap_or(u64::MAX);
        let reserve = self.options.min_free_mb << 20;
        if free < reserve.saturating_add(bytes.len() as u64) {
            return Err(AppendError::DiskFull {
                path: self.shared.dir.clone(),
                free,
                reserve,
            });
        }
        self.write_segment(bytes).map_err(|error| {
            self.shared.counters.journal_sync_failures.add(1);
            tracing::error!(%error, "cannot write the journal");
            if is_full(&error) {
                AppendError::DiskFull {
                    path: self.shared.dir.clone(),
                    free,
                    reserve,
                }
            } else {
                AppendError::Io {
                    path: self.shared.dir.clone(),
                    source: Arc::new(error),
                }
            }
        })
    }

    fn write_segment(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self
            .active
            .as_ref()
            .is_some_and(|(_, segment)| segment.bytes >= self.options.segment_bytes)
        {
            self.active = None;
            // Best effort: without it the next start decodes more of the journal.
            let _ = self.remember_senders();
        }
        // Taken out during the write, and put back only on success, so that no failure leaves a file in use whose state
        // is unknown.
        let (mut file, mut segment) = match self.active.take() {
            Some(active) => active,
            None => self.create_segment()?,
        };
        if let Err(error) = file.append(bytes) {
            // Cut back to the acknowledged part, the segment is as good as before.
            if file.truncate(segment.bytes).is_ok() && segment.last_lsn >= segment.first_lsn {
                self.active = Some((file, segment));
            }
            return Err(error);
        }
        file.sync()?;
        segment.bytes += bytes.len() as u64;
        self.active = Some((file, segment));
        Ok(())
    }

    fn create_segment(&self) -> io::Result<(Box<dyn AppendFile>, Segment)> {
        let path = segment::path_of(&self.shared.dir, self.next_lsn);
        // An existing file of this name holds nothing acknowledged: its numbers were never final.
        match self.shared.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = self.shared.disk.create(&path)?;
        file.append(&segment::header(self.next_lsn))?;
        file.sync()?;
        self.shared.disk.sync_dir(&self.shared.dir)?;
        let bytes = segment::HEADER_BYTES as u64;
        let (first_lsn, last_lsn) = (self.next_lsn, self.next_lsn - 1);
        Ok((
            file,
            Segment {
                first_lsn,
                last_lsn,
                newest_s: 0,
                bytes,
                path,
            },
        ))
    }

    fn acknowledge(&mut self, group: Group) {
        self.next_lsn += group.entries.len() as Lsn;
        let durable = self.next_lsn - 1;
        if let Some((_, segment)) = &mut self.active {
            segment.last_lsn = durable;
            let newest = group.entries.iter().map(|e| e.newest_s).max().unwrap_or(0);
            segment.newest_s = segment.newest_s.max(newest);
            let mut segments = self.shared.segments.lock();
            match segments.last_mut() {
                Some(last) if last.first_lsn == segment.first_lsn => *last = segment.clone(),
                _ => segments.push(segment.clone()),
            }
        }
        self.shared.durable.store(durable, Ordering::Release);
        self.shared.counters.journal_groups.add(1);
        let now_s = u32::try_from(self.clock.now_unix_s()).unwrap_or(0);
        let mut batches = Vec::with_capacity(group.entries.len());
        let mut replies = Vec::with_capacity(group.entries.len());
        for entry in group.entries {
            if let Some(id) = &entry.batch.id {
                self.dedup.insert(id, now_s.max(entry.newest_s));
            }
            batches.push((entry.lsn, entry.batch, entry.length));
            replies.push((entry.length, entry.reply, Appended::Stored { lsn: entry.lsn }));
            replies.extend(entry.followers.into_iter().map(|reply| (0, reply, Appended::Duplicate)));
        }
        (self.on_durable)(durable, batches);
        for (length, reply, appended) in replies {
            self.answer(length, reply, Ok(appended));
        }
    }

    fn refuse(&self, group: Group, error: &AppendError) {
        for entry in group.entries {
            self.answer(entry.length, entry.reply, Err(error.clone()));
            for reply in entry.followers {
                self.answer(0, reply, Err(error.clone()));
            }
        }
    }

    fn remember_senders(&mut self) -> io::Result<()> {
        let horizon = whole_seconds(self.options.dedup_horizon);
        let before = self.clock.now_unix_s().saturating_sub(horizon);
        self.dedup.expire(u32::try_from(before).unwrap_or(0));
        recovery::write_checkpoint(&*self.shared.disk, &self.shared.dir, &self.dedup, self.next_lsn - 1)
    }

    /// Removes the oldest segments as long as none of their content is needed. The senders are saved first: they must
    /// outlive the records that name them.
    fn trim(&mut self, needless: Needless) {
        let active = self.active.as_ref().map(|(_, segment)| segment.first_lsn);
        let old: Vec<Segment> = {
            let segments = self.shared.segments.lock();
            segments
                .iter()
                .take_while(|s| s.newest_s < needless.before_s || s.last_lsn <= needless.through)
                .take_while(|s| Some(s.first_lsn) != active)
                .cloned()
                .collect()
        };
        if old.is_empty() {
            return;
        }
        if let Err(error) = self.remember_senders() {
            tracing::warn!(%error, "cannot write the sender state; keeping old journal segments until it can be written");
            return;
        }
        for segment in old {
            match self.shared.disk.remove(&segment.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %segment.path.display(), %error, "cannot remove an old journal segment");
                    return;
                }
                _ => {}
            }
            self.shared.segments.lock().retain(|s| s.first_lsn != segment.first_lsn);
            self.shared.counters.journal_segments_removed.add(1);
        }
        let _ = self.shared.disk.sync_dir(&self.shared.dir);
    }
}
