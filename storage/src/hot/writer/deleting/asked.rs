//! Who asked for which deletion, and how far the current one is.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::{oneshot, watch};

use crate::{
    deletions::{DeleteProgress, Deleted, ServiceName},
    error::DeleteError,
    journal::Lsn,
    parts::PartSet,
};

/// A caller waiting for a deletion.
pub(in crate::hot) struct Waiter {
    pub(in crate::hot) who: ServiceName,
    /// The deletion has to find everything that was acknowledged up to this batch.
    pub(in crate::hot) after: Lsn,
    pub(in crate::hot) progress: watch::Sender<DeleteProgress>,
    pub(in crate::hot) reply: oneshot::Sender<Result<Deleted, DeleteError>>,
}

/// The current deletion.
pub(super) struct Active {
    pub(super) who: ServiceName,
    pub(super) waiters: Vec<Waiter>,
    /// The parts searched, until the deletion is on disk.
    pub(super) looking_into: Option<Arc<PartSet>>,
    pub(super) deleted: Deleted,
    pub(super) progress: DeleteProgress,
}

/// Requested deletions, and the current one.
pub(in crate::hot::writer) struct Deleting {
    pub(super) asked: VecDeque<Waiter>,
    pub(super) active: Option<Active>,
    /// Check whether something was left undone.
    pub(super) look: bool,
}

impl Deleting {
    pub(in crate::hot::writer) fn new() -> Deleting {
        Deleting {
            asked: VecDeque::new(),
            active: None,
            look: true,
        }
    }

    /// Called from time to time: what was left undone is tried again.
    pub(in crate::hot::writer) fn look_again(&mut self) {
        self.look = true;
    }

    pub(in crate::hot::writer) fn ask(&mut self, waiters: Vec<Waiter>) {
        self.asked.extend(waiters);
    }

    /// Compaction has to wait.
    pub(in crate::hot::writer) fn is_busy(&self) -> bool {
        self.active.is_some()
    }
}

impl Active {
    pub(super) fn tell(&self) {
        for waiter in &self.waiters {
            waiter.progress.send_replace(self.progress);
        }
    }
}

pub(super) fn unavailable(error: impl std::fmt::Display) -> DeleteError {
    DeleteError::Unavailable {
        message: error.to_string(),
    }
}

pub(super) fn unknown(who: ServiceName) -> DeleteError {
    DeleteError::UnknownService {
        namespace: who.namespace,
        service: who.service,
    }
}
