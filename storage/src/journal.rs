//! The journal: a batch is on disk here before it is acknowledged.
//!
//! Guarantees: an append resolves as stored only after the sync that covers it; numbers (LSN) are dense and rise in
//! file order; a batch that arrives twice is written once, even while its first copy is still being written. A failed
//! write or sync loses that group only, its senders are told so, and the next group carries on; on a full disk appends
//! are refused as retryable and no restart is needed. Damage costs the records it hit.
//!
//! Numbers of a failed group are reused: a record numbered at or above the first number of the following segment was
//! never acknowledged and is void.

pub(crate) mod inspect;
pub(crate) mod payload;
mod recovery;
pub(crate) mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use emberline_model::{Batch, time::Clock, wire};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    disk::Disk,
    error::{AppendError, OpenError},
    framing,
    options::Options,
    stats::Counters,
};

use segment::Segment;

/// The number of a batch in the journal: 1, 2, 3, ...
pub type Lsn = u64;

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is on disk under this number.
    Stored {
        /// Its number.
        lsn: Lsn,
    },
    /// It is on disk from an earlier attempt.
    Duplicate,
}

/// A batch on its way to the disk.
pub(crate) struct Append {
    pub(crate) payload: Vec<u8>,
    /// Bytes of the encoded batch before compression, which is what it counts for in queues.
    pub(crate) length: usize,
    pub(crate) batch: Arc<Batch>,
    /// The newest second in it, since the Unix epoch.
    pub(crate) newest_s: u32,
    pub(crate) reply: oneshot::Sender<Result<Appended, AppendError>>,
}

enum Command {
    Append(Append),
    /// Remove segments that are no longer needed.
    Trim(Needless, oneshot::Sender<()>),
    Close,
}

/// What the journal is no longer needed for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needless {
    /// Everything before this second is past retention.
    pub(crate) before_s: u32,
    /// Every row of the batches up to this number is sealed.
    pub(crate) through: Lsn,
}

/// Called with batches once they are durable, in order. The `usize` is the encoded length.
pub(crate) type OnDurable = Box<dyn FnMut(Lsn, Vec<(Lsn, Arc<Batch>, usize)>) + Send>;

/// State that the journal's thread and its readers share.
struct Shared {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segments: Mutex<Vec<Segment>>,
    durable: AtomicU64,
    queued: AtomicUsize,
    counters: Arc<Counters>,
}

/// Handle of the journal; its thread ends when it is closed or dropped.
pub(crate) struct Journal {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
    queue_bytes: usize,
    max_batch_bytes: usize,
}

/// Intact records of one segment.
pub(crate) struct SegmentRecords {
    bytes: Vec<u8>,
    frames: Vec<framing::Frame>,
    /// With these records, everything up to this number has been read.
    pub(crate) through: Lsn,
}

impl SegmentRecords {
    /// Number of each record, with the encoded length and the batch; `None` where an intact record is not a batch.
    pub(crate) fn batches(&self) -> impl Iterator<Item = (Lsn, Option<(usize, Batch)>)> {
        self.frames.iter().map(|frame| {
            let payload = &self.bytes[frame.payload.clone()];
            (frame.sequence, payload::decode(payload).ok())
        })
    }
}

impl Journal {
    /// Opens the journal of a data directory. `floor` is the highest number known from elsewhere: numbering continues
    /// above it even if the end of the journal was lost.
    pub(crate) fn open(
        options: &Options,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        counters: Arc<Counters>,
        floor: Lsn,
        on_durable: OnDurable,
    ) -> Result<Journal, OpenError> {
        let recovered = recovery::recover(&options.data_dir, &*disk, &*clock, &counters)?;
        let durable = recovered.last_lsn.max(floor);
        if let Some(lost) = recovered.reaches.and_then(|reaches| durable.checked_sub(reaches))
            && lost > 0
        {
            tracing::error!(lost, "acknowledged batches are missing at the end of the journal");
            counters.journal_records_lost.add(lost);
        }
        let shared = Arc::new(Shared {
            disk,
            dir: recovery::journal_dir(&options.data_dir),
            segments: Mutex::new(recovered.segments),
            durable: AtomicU64::new(durable),
            queued: AtomicUsize::new(0),
            counters,
        });
        let (commands, inbox) = mpsc::channel();
        let writer = writer::Writer::new(shared.clone(), clock, options, recovered.dedup, durable, on_durable);
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run(&inbox))
            .map_err(OpenError::Thread)?;
        Ok(Journal {
            shared,
            commands,
            thread: Mutex::new(Some(thread)),
            queue_bytes: options.queue_bytes,
            // One byte is for the encoding.
            max_batch_bytes: options.max_batch_bytes.min(framing::MAX_PAYLOAD_BYTES - 1),
        })
    }

    /// Hands a batch over; the receiver resolves when it is on disk.
    pub(crate) fn append(
        &self,
        batch: Batch,
        newest_s: u32,
    ) -> Result<oneshot::Receiver<Result<Appended, AppendError>>, AppendError> {
        let encoded = wire::encode_batch(&batch);
        let length = encoded.len();
        if length > self.max_batch_bytes {
            return Err(AppendError::TooLarge {
                bytes: length,
                limit: self.max_batch_bytes,
            });
        }
        let waiting = self.shared.queued.fetch_add(length, Ordering::Relaxed);
        // A batch longer than the whole queue still passes when nothing else waits.
        if waiting > 0 && waiting + length > self.queue_bytes {
            self.shared.queued.fetch_sub(length, Ordering::Relaxed);
            return Err(AppendError::Busy {
                waiting,
                limit: self.queue_bytes,
            });
        }
        let (reply, receiver) = oneshot::channel();
        let append = Append {
            payload: payload::encode(&encoded),
            length,
            batch: Arc::new(batch),
            newest_s,
            reply,
        };
        if self.commands.send(Command::Append(append)).is_err() {
            self.shared.queued.fetch_sub(length, Ordering::Relaxed);
            return Err(AppendError::Closed);
        }
        Ok(receiver)
    }

    /// Removes segments that are no longer needed; the receiver resolves when it is done.
    pub(crate) fn trim(&self, needless: Needless) -> oneshot::Receiver<()> {
        let (reply, receiver) = oneshot::channel();
        // A closed journal drops the reply, which the receiver sees.
        let _ = self.commands.send(Command::Trim(needless, reply));
        receiver
    }

    /// Number of the last batch on disk.
    pub(crate) fn durable(&self) -> Lsn {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// Number of the first batch that may still be in the journal.
    pub(crate) fn first(&self) -> Lsn {
        let first = self.shared.segments.lock().first().map(|segment| segment.first_lsn);
        first.unwrap_or_else(|| self.durable() + 1)
    }

    /// Bytes waiting for the disk.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.shared.queued.load(Ordering::Relaxed)
    }

    /// The newest second held, since the Unix epoch; 0 when the journal is empty.
    pub(crate) fn newest_s(&self) -> u32 {
        self.shared
            .segments
            .lock()
            .iter()
            .map(|s| s.newest_s)
            .max()
            .unwrap_or(0)
    }

    /// Number of segments and their bytes.
    pub(crate) fn size(&self) -> (u64, u64) {
        let segments = self.shared.segments.lock();
        (segments.len() as u64, segments.iter().map(|s| s.bytes).sum())
    }

    /// The records after a number, from the first segment that has any; `None` when there are no more. A segment that
    /// cannot be read is skipped and counted.
    pub(crate) fn read_after(&self, after: Lsn) -> Option<SegmentRecords> {
        let durable = self.durable();
        if after >= durable {
            return None;
        }
        let (path, last, first) = {
            let segments = self.shared.segments.lock();
            let found = segments.iter().find(|s| s.last_lsn > after);
            match found {
                Some(s) => (s.path.clone(), s.last_lsn, s.first_lsn),
                // A durable batch that is in no segment was lost or trimmed.
                None => {
                    return Some(SegmentRecords {
                        bytes: Vec::new(),
                        frames: Vec::new(),
                        through: durable,
                    });
                }
            }
        };
        let bytes = match self.shared.disk.read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "cannot read a journal segment; skipping it");
                self.shared
                    .counters
                    .journal_records_lost
                    .add(last - after.max(first - 1));
                Vec::new()
            }
        };
        let mut frames = framing::scan(&bytes, segment::HEADER_BYTES, first - 1).frames;
        frames.retain(|f| f.sequence > after && f.sequence <= last);
        Some(SegmentRecords {
            bytes,
            frames,
            through: last,
        })
    }

    /// Writes what is waiting, saves the known senders, and ends the thread.
    pub(crate) fn close(&self) {
        let _ = self.commands.send(Command::Close);
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's thread panicked");
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}
