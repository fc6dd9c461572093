//! Bounds the memory that answers in progress may hold together, so that questions whose memory is counted leave room
//! for ingest.
//!
//! Guarantees: a counted question reserves memory before it uses it: for rows, stacks and their names, trees, text.
//! Each question in progress has a share; one that needs more takes the single large slot, and waits for it without
//! holding a connection to the engine. The holder of the large slot waits for nobody, so there is always progress.
//! Together they hold at most what [`AnswerMemory::new`] was given, and none of them starts to hold much while the
//! process already holds too much ([`Pressure`]). Work started for a question counts until it ends, even when nobody
//! waits for the answer any more.
//!
//! Wrong on purpose: memory is estimated from counts and lengths, not from what the allocator hands out. The store's
//! own questions and those of verdicts are not counted.

use std::{any::Any, fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{error::QueryError, pressure::Pressure};

/// How long a question waits for the large slot.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The memory of all answers.
#[derive(Debug, Clone)]
pub struct AnswerMemory(Arc<Room>);

#[derive(Debug)]
struct Room {
    /// What each question may hold.
    share: u64,
    /// What the holder of the large slot may hold beyond its share.
    large: u64,
    place: Arc<Semaphore>,
    pressure: Pressure,
    wait: Duration,
}

/// What a question holds, shared by everything that works for it.
#[derive(Debug, Clone, Default)]
pub struct Holding(Option<Arc<Counted>>);

struct Counted {
    room: Arc<Room>,
    held: Mutex<Held>,
    /// Only one part of the question waits at a time: the slot it gets is for all of them.
    waiting: tokio::sync::Mutex<()>,
    /// Kept as long as anything works for the question.
    _turn: Box<dyn Any + Send + Sync>,
}

#[derive(Debug, Default)]
struct Held {
    bytes: u64,
    large: Option<OwnedSemaphorePermit>,
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counted")
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

/// Why memory was not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Short {
    /// Another question has the large slot, or the process is under memory pressure.
    Now,
    /// More than a single question may ever hold.
    Ever,
}

tokio::task_local! {
    static OF_QUESTION: Holding;
}

impl AnswerMemory {
    /// `bytes` of memory for `at_once` concurrent questions; nobody gets the large slot under pressure.
    pub fn new(bytes: u64, at_once: usize, pressure: Pressure) -> AnswerMemory {
        let share = bytes / 4 / at_once.max(1) as u64;
        AnswerMemory(Arc::new(Room {
            share,
            large: bytes - bytes / 4,
            place: Arc::new(Semaphore::new(1)),
            pressure,
            wait: LONGEST_WAIT,
        }))
    }

    /// Runs a question whose memory is counted. `turn` is dropped once nothing works for it any more.
    pub async fn count<F: Future>(&self, turn: impl Any + Send + Sync, question: F) -> F::Output {
        let counted = Counted {
            room: Arc::clone(&self.0),
            held: Mutex::default(),
            waiting: tokio::sync::Mutex::default(),
            _turn: Box::new(turn),
        };
        OF_QUESTION.scope(Holding(Some(Arc::new(counted))), question).await
    }
}

impl Holding {
    /// What the question being answered here holds; unlimited where none is counted.
    pub fn current() -> Holding {
        OF_QUESTION.try_with(Clone::clone).unwrap_or_default()
    }

    /// Runs code on behalf of the question, on any thread.
    pub fn during<T>(self, work: impl FnOnce() -> T) -> T {
        OF_QUESTION.sync_scope(self, work)
    }

    /// Reserves `bytes` more; waits for the large slot if they need it.
    pub async fn add(&self, bytes: u64) -> Result<(), QueryError> {
        loop {
            match self.take(bytes) {
                Ok(()) => return Ok(()),
                Err(Short::Ever) => return Err(self.too_large()),
                Err(Short::Now) => self.wait().await?,
            }
        }
    }

    /// Like [`Holding::add`] where waiting is impossible: refused while another question has the large slot.
    pub fn add_now(&self, bytes: u64) -> Result<(), QueryError> {
        self.take(bytes).map_err(|short| match short {
            Short::Ever => self.too_large(),
            Short::Now => self.no_room(),
        })
    }

    pub(crate) fn take(&self, bytes: u64) -> Result<(), Short> {
        let Some(counted) = &self.0 else { return Ok(()) };
        let (room, mut held) = (&counted.room, counted.held.lock());
        let after = held.bytes.saturating_add(bytes);
        if after > room.share.saturating_add(room.large) {
            return Err(Short::Ever);
        }
        if after > room.share && held.large.is_none() {
            if room.pressure.is_high() {
                return Err(Short::Now);
            }
            let place = Arc::clone(&room.place).try_acquire_owned();
            held.large = Some(place.map_err(|_| Short::Now)?);
        }
        held.bytes = after;
        Ok(())
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        if let Some(counted) = &self.0 {
            let mut held = counted.held.lock();
            held.bytes = held.bytes.saturating_sub(bytes);
        }
    }

    /// Waits for the large slot.
    pub(crate) async fn wait(&self) -> Result<(), QueryError> {
        let Some(counted) = &self.0 else { return Ok(()) };
        let room = &counted.room;
        let waited = tokio::time::timeout(room.wait, async {
            let _alone = counted.waiting.lock().await;
            if counted.held.lock().large.is_none() {
                room.pressure.relief().await;
                let place = Arc::clone(&room.place).acquire_owned().await;
                // The semaphore is never closed.
                counted.held.lock().large = place.ok();
            }
        });
        waited.await.map_err(|_| self.no_room())
    }

    pub(crate) fn too_large(&self) -> QueryError {
        let (bytes, _) = self.limits();
        QueryError::AnswerTooLarge {
            megabytes: bytes / 1_000_000,
        }
    }

    fn no_room(&self) -> QueryError {
        let (bytes, wait) = self.limits();
        QueryError::NoRoom {
            megabytes: bytes / 1_000_000,
            seconds: wait.as_secs(),
        }
    }

    /// What one question may hold, and how long it waits.
    fn limits(&self) -> (u64, Duration) {
        let room = self.0.as_ref().map(|counted| &counted.room);
        room.map_or((0, LONGEST_WAIT), |room| (room.share + room.large, room.wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    fn memory() -> AnswerMemory {
        let AnswerMemory(room) = AnswerMemory::new(80 * MB, 2, Pressure::default());
        let room = Room {
            share: room.share,
            large: room.large,
            place: Arc::clone(&room.place),
            pressure: room.pressure.clone(),
            wait: Duration::from_millis(20),
        };
        AnswerMemory(Arc::new(room))
    }

    #[tokio::test]
    async fn shares_are_free_and_one_question_has_the_rest() {
        let memory = memory();
        let asked = |bytes: u64| {
            memory.count(
                (),
                async move { (Holding::current().add(bytes).await, Holding::current()) },
            )
        };
        let (first, first_holds) = asked(70 * MB).await;
        first.unwrap();
        let (second, second_holds) = asked(10 * MB).await;
        second.unwrap();
        let refused = second_holds.add(1).await.unwrap_err();
        assert!(
            refused.is_retryable() && refused.to_string().contains("70 MB"),
            "{refused}"
        );
        assert!(first_holds.add(1).await.unwrap_err().to_string().contains("70 MB"));
        drop(first_holds);
        second_holds.add(60 * MB).await.unwrap();
        // Giving back the excess does not give back the slot.
        second_holds.give_back(30 * MB);
        second_holds.add(30 * MB).await.unwrap();
        assert!(!second_holds.add(1).await.unwrap_err().is_retryable());
    }

    #[tokio::test]
    async fn nobody_gets_the_large_place_under_pressure_and_who_has_it_keeps_it() {
        let memory = memory();
        let add = async |bytes| {
            let asked = async move { (Holding::current().add(bytes).await, Holding::current()) };
            memory.count((), asked).await
        };
        let pressure = memory.0.pressure.clone();
        let (_, large) = add(20 * MB).await;
        pressure.set(true);
        large.add(20 * MB).await.unwrap();
        drop(large);
        assert!(add(20 * MB).await.0.unwrap_err().is_retryable());
        add(MB).await.0.unwrap();
        pressure.set(false);
        add(20 * MB).await.0.unwrap();
    }

    #[tokio::test]
    async fn parts_of_one_question_share_the_place_they_wait_for() {
        let memory = memory();
        let large = memory.count((), async {
            Holding::current().add(20 * MB).await.unwrap();
            Holding::current()
        });
        let large = large.await;
        let parts = memory.count((), async {
            let add = || async { Holding::current().add(15 * MB).await };
            let drop_it = async {
                tokio::task::yield_now().await;
                drop(large);
            };
            tokio::join!(add(), add(), drop_it)
        });
        let (a, b, ()) = parts.await;
        a.unwrap();
        b.unwrap();
    }

    #[tokio::test]
    async fn a_turn_lasts_as_long_as_work_does_and_who_is_not_counted_holds_what_it_likes() {
        let turn = Arc::new(());
        let left = memory().count(Arc::clone(&turn), async { Holding::current() }).await;
        let work = std::thread::spawn(move || left.during(|| Holding::current().take(1)));
        work.join().unwrap().unwrap();
        assert_eq!(Arc::strong_count(&turn), 1);
        Holding::current().add(u64::MAX).await.unwrap();
    }
}
