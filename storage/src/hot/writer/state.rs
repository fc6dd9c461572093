//! What the writing thread can do with the engine at the moment.

use std::time::Instant;

use super::Engine;
use crate::journal::Lsn;

/// Whether the engine is open, and how it may be written to.
pub(super) enum WriterState {
    /// It is closed, after a failure or because it could not be opened: questions are refused, batches wait in the
    /// journal.
    Shut {
        /// When it is reopened.
        retry_at: Instant,
        /// See [`Suspect`].
        suspect: Option<Suspect>,
    },
    /// It is open and answers questions.
    Open {
        engine: Box<Engine>,
        writes: Writes,
        /// See [`Suspect`].
        suspect: Option<Suspect>,
    },
}

/// How an open engine is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writes {
    /// A transaction as soon as one is full or due.
    Freely,
    /// The last transaction failed, or the engine was reopened: the next one waits until it is due.
    WhenDue,
    /// Not at all: the disk is too full, and running out of space would cost the engine.
    NoRoom,
}

/// A batch that may be what makes transactions fail. Until it is applied or skipped, batches are applied one by one; it
/// stays suspected when the engine is closed because of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Suspect {
    pub(super) lsn: Lsn,
    /// How often it failed on its own.
    pub(super) attempts: u32,
}

impl WriterState {
    pub(super) fn of(engine: Option<Engine>) -> WriterState {
        match engine {
            Some(engine) => WriterState::Open {
                engine: Box::new(engine),
                writes: Writes::Freely,
                suspect: None,
            },
            None => WriterState::Shut {
                retry_at: Instant::now(),
                suspect: None,
            },
        }
    }

    pub(super) fn engine(&self) -> Option<&Engine> {
        match self {
            WriterState::Open { engine, .. } => Some(engine),
            WriterState::Shut { .. } => None,
        }
    }

    pub(super) fn engine_mut(&mut self) -> Option<&mut Engine> {
        match self {
            WriterState::Open { engine, .. } => Some(engine),
            WriterState::Shut { .. } => None,
        }
    }

    /// The engine was reopened.
    pub(super) fn open(&mut self, engine: Engine) {
        *self = WriterState::Open {
            engine: Box::new(engine),
            writes: Writes::WhenDue,
            suspect: self.suspect(),
        };
    }

    /// Closes the engine until `retry_at`.
    pub(super) fn shut(&mut self, retry_at: Instant) {
        *self = WriterState::Shut {
            retry_at,
            suspect: self.suspect(),
        };
    }

    /// The engine is closed, and it is time to reopen it.
    pub(super) fn is_due_to_open(&self, now: Instant) -> bool {
        matches!(self, WriterState::Shut { retry_at, .. } if now >= *retry_at)
    }

    /// No batch can be applied now: the engine is closed, or the disk is too full.
    pub(super) fn cannot_write(&self) -> bool {
        !matches!(
            self,
            WriterState::Open {
                writes: Writes::Freely | Writes::WhenDue,
                ..
            }
        )
    }

    pub(super) fn writes(&self) -> Option<Writes> {
        match self {
            WriterState::Open { writes, .. } => Some(*writes),
            WriterState::Shut { .. } => None,
        }
    }

    /// Changes how an open engine is written to.
    pub(super) fn set_writes(&mut self, new: Writes) {
        if let WriterState::Open { writes, .. } = self {
            *writes = new;
        }
    }

    pub(super) fn suspect(&self) -> Option<Suspect> {
        match self {
            WriterState::Shut { suspect, .. } | WriterState::Open { suspect, .. } => *suspect,
        }
    }

    fn suspect_mut(&mut self) -> &mut Option<Suspect> {
        match self {
            WriterState::Shut { suspect, .. } | WriterState::Open { suspect, .. } => suspect,
        }
    }

    /// A transaction that began with this batch failed, maybe because of it.
    pub(super) fn blame(&mut self, lsn: Lsn) {
        let suspect = self.suspect_mut();
        let attempts = match suspect {
            Some(known) if known.lsn == lsn => known.attempts + 1,
            // The first failure was that of a group: it says nothing about its first batch yet.
            _ => 0,
        };
        *suspect = Some(Suspect { lsn, attempts });
    }

    /// Everything up to this batch is applied or skipped.
    pub(super) fn clear_through(&mut self, through: Lsn) {
        let suspect = self.suspect_mut();
        if suspect.is_some_and(|suspect| suspect.lsn <= through) {
            *suspect = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspect_is_counted_alone_and_outlives_the_engine() {
        let now = Instant::now();
        let mut state = WriterState::of(None);
        state.blame(7);
        assert_eq!(
            state.suspect(),
            Some(Suspect { lsn: 7, attempts: 0 }),
            "its group failed"
        );
        state.blame(7);
        state.shut(now);
        assert_eq!(state.suspect(), Some(Suspect { lsn: 7, attempts: 1 }));
        state.clear_through(6);
        assert!(state.suspect().is_some(), "it is not behind yet");
        state.blame(8);
        assert_eq!(state.suspect(), Some(Suspect { lsn: 8, attempts: 0 }), "another one");
        state.clear_through(8);
        assert_eq!(state.suspect(), None);
        assert!(state.is_due_to_open(now) && state.cannot_write() && state.writes().is_none());
    }
}
