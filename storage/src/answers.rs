//! How much memory the answers under way may hold together, so that questions about data that was made for them leave room
//! for what comes in.
//!
//! Guarantees: a question that is counted says what it will hold before it does: rows, stacks and their names, trees, text.
//! Each of those under way has a share; what needs more takes the one large place, and waits for it without keeping
//! a connection of the engine. Who has the large place waits for nobody, so somebody always gets on. All together hold at
//! most what [`AnswerMemory::new`] was given, and none of them begins to hold much while the process holds too much already
//! ([`Pressure`]). What was begun for a question counts until it has ended, also when nobody
//! waits for the answer any more.
//!
//! Wrong on purpose: things are counted by their number and length, not by what the allocator gives. The store's own
//! questions and those of verdicts are not counted.

use std::{any::Any, fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{error::QueryError, pressure::Pressure};

/// How long a question waits for the large place.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The memory of all answers.
#[derive(Debug, Clone)]
pub struct AnswerMemory(Arc<Room>);

#[derive(Debug)]
struct Room {
    /// What each question may hold.
    share: u64,
    /// What one of them may hold beyond.
    large: u64,
    place: Arc<Semaphore>,
    pressure: Pressure,
    wait: Duration,
}

/// What a question holds: the same for all that works for it.
#[derive(Debug, Clone, Default)]
pub struct Holding(Option<Arc<Counted>>);

struct Counted {
    room: Arc<Room>,
    held: Mutex<Held>,
    /// One of its parts waits at a time: what it gets is there for all of them.
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

/// Why something cannot be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Short {
    /// Another question has the large place.
    Now,
    /// It is more than one question may hold.
    Ever,
}

tokio::task_local! {
    static OF_QUESTION: Holding;
}

impl AnswerMemory {
    /// Room of so many bytes for as many questions at a time; nobody gets the large place under pressure.
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

    /// Asks a question that counts what it holds. `turn` is dropped when nothing works for it any more.
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
    /// That of the question which is being answered here; without a limit where none is counted.
    pub fn current() -> Holding {
        OF_QUESTION.try_with(Clone::clone).unwrap_or_default()
    }

    /// Runs code that works for the question, wherever it runs.
    pub fn during<T>(self, work: impl FnOnce() -> T) -> T {
        OF_QUESTION.sync_scope(self, work)
    }

    /// Counts so many bytes more; waits for the large place if they need it.
    pub async fn add(&self, bytes: u64) -> Result<(), QueryError> {
        loop {
            match self.take(bytes) {
                Ok(()) => return Ok(()),
                Err(Short::Ever) => return Err(self.too_large()),
                Err(Short::Now) => self.wait().await?,
            }
        }
    }

    /// The same where nothing can wait: refused while another question has the large place.
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

    /// Waits for the large place.
    pub(crate) async fn wait(&self) -> Result<(), QueryError> {
        let Some(counted) = &self.0 else { return Ok(()) };
        let room = &counted.room;
        let waited = tokio::time::timeout(room.wait, async {
            let _alone = counted.waiting.lock().await;
            if counted.held.lock().large.is_none() {
                room.pressure.relief().await;
                let place = Arc::clone(&room.place).acquire_owned().await;
                // Never closed.
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
        // Who gives back what was too much keeps its place.
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
