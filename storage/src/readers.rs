//! Connections that answer questions, off the async runtime.
//!
//! Guarantees: at most `reader_connections` questions run at a time; each is interrupted when it takes too long or when
//! nobody waits for it any more; one that ran out of memory because of others is retried once after a pause, before it
//! is refused as too large; one whose rows exceed its share waits for the large slot without a connection
//! ([`crate::answers`]); when the engine has to be closed, running questions are interrupted and waited for, so that no
//! two instances ever have the file open.
//!
//! One file because taking a connection, watching the time and giving it back share one state under one lock. The rules
//! above hold between them, and a fifth of it is their tests.

use std::{
    cell::Cell,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arrow::array::StructArray;
use duckdb::{Connection, InterruptHandle, types::Value};
use parking_lot::{Condvar, Mutex};
use tokio::sync::Semaphore;

use crate::{
    answers::{Holding, Short},
    error::QueryError,
    hot::failure::{self, Kind},
    parts::Part,
    stats::Counters,
};

/// How often running questions are checked. An interrupt that arrives between two statements has no effect, so it is
/// repeated at this pace until the question ends.
const WATCH_EVERY: Duration = Duration::from_millis(20);

/// How long a question that ran out of memory waits: it shares the memory with other questions, sealing and deletion.
const MEMORY_PAUSE: Duration = Duration::from_millis(500);

/// Time after which one of the store's own reads is given up.
const OWN_READ_LIMIT: Duration = Duration::from_secs(3600);

/// Called when a question finds the engine unusable.
pub(crate) type OnFailure = Box<dyn Fn(Kind, String) + Send + Sync>;

/// The connections.
pub(crate) struct Readers {
    shared: Arc<Shared>,
    semaphore: Arc<Semaphore>,
    limit: Duration,
    counters: Arc<Counters>,
    on_failure: OnFailure,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Where new connections come from; absent while the engine is closed.
    base: Option<Connection>,
    idle: Vec<Connection>,
    /// Incremented whenever the engine is closed: connections from before are not kept.
    generation: u64,
    running: Vec<Arc<Running>>,
    why_closed: String,
    watching: bool,
}

/// A question in progress.
struct Running {
    deadline: Instant,
    /// Nobody waits for the answer any more, or the engine is being closed.
    cancelled: AtomicBool,
    timed_out: AtomicBool,
    /// `None` once it has ended, so that a late interrupt cannot hit the connection's next question.
    handle: Mutex<Option<Arc<InterruptHandle>>>,
}

impl Running {
    fn interrupt(&self) {
        if let Some(handle) = &*self.handle.lock() {
            handle.interrupt();
        }
    }
}

/// What the code of a question works with.
pub(crate) struct Reader<'a> {
    connection: &'a Connection,
    running: &'a Running,
    holding: &'a Holding,
    /// Bytes of the holding reserved in this run.
    held: Cell<u64>,
}

/// Why the code of a question stopped.
pub enum Failure {
    /// The engine's fault.
    Engine(duckdb::Error),
    /// Our fault or the client's.
    Question(QueryError),
    /// These parts are damaged: without them there is an answer.
    Parts(Vec<Arc<Part>>),
    /// Another question has the large slot: retry once it is free.
    NoRoom,
    /// Interrupted.
    Cancelled,
}

impl From<duckdb::Error> for Failure {
    fn from(error: duckdb::Error) -> Failure {
        Failure::Engine(error)
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Failure {
        Failure::Question(error)
    }
}

impl Reader<'_> {
    /// Runs a query and hands over its rows chunk by chunk.
    pub(crate) fn rows(
        &self,
        sql: &str,
        parameters: &[Value],
        mut each: impl FnMut(&StructArray) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.check()?;
        let mut statement = self.connection.prepare(sql)?;
        // The iterator that this returns panics on errors; stepping by hand returns them.
        drop(statement.stream_arrow(duckdb::params_from_iter(parameters.iter()))?);
        while let Some(chunk) = statement.step()? {
            self.check()?;
            each(&chunk)?;
        }
        Ok(())
    }

    /// Reserves memory for what the answer is about to hold, in bytes.
    pub(crate) fn hold(&self, bytes: usize) -> Result<(), Failure> {
        self.holding.take(bytes as u64).map_err(|short| match short {
            Short::Now => Failure::NoRoom,
            Short::Ever => self.holding.too_large().into(),
        })?;
        self.held.set(self.held.get() + bytes as u64);
        Ok(())
    }

    /// Gives back some of what was reserved.
    pub(crate) fn release(&self, bytes: usize) {
        let bytes = (bytes as u64).min(self.held.get());
        self.holding.give_back(bytes);
        self.held.set(self.held.get() - bytes);
    }

    /// Gives back everything this run reserved.
    fn let_go(&self) {
        self.holding.give_back(self.held.take());
    }

    /// Runs code whose queries all see the same state.
    pub(crate) fn snapshot<T>(&self, code: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        self.connection.execute_batch("BEGIN TRANSACTION READ ONLY")?;
        let result = code();
        self.connection.execute_batch("ROLLBACK")?;
        result
    }

    /// Sleeps while somebody still waits for the answer.
    fn pause(&self, time: Duration) -> Result<(), Failure> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.check()?;
            std::thread::sleep(WATCH_EVERY);
        }
        self.check()
    }

    /// Fails once nobody waits for the answer any more.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.running.cancelled.load(Ordering::Relaxed) || self.running.timed_out.load(Ordering::Relaxed) {
            return Err(Failure::Cancelled);
        }
        Ok(())
    }
}

/// Interrupts a question when its future is dropped.
struct CancelOnDrop(Arc<Running>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
        self.0.interrupt();
    }
}

impl Readers {
    pub(crate) fn new(connections: usize, limit: Duration, counters: Arc<Counters>, on_failure: OnFailure) -> Readers {
        Readers {
            shared: Arc::new(Shared {
                state: Mutex::new(State::default()),
                changed: Condvar::new(),
            }),
            semaphore: Arc::new(Semaphore::new(connections.max(1))),
            limit,
            counters,
            on_failure,
        }
    }

    /// Directs questions to this engine from now on.
    pub(crate) fn open(&self, base: Connection) {
        let mut state = self.shared.state.lock();
        state.base = Some(base);
        state.why_closed.clear();
    }

    /// True when questions can be asked.
    pub(crate) fn is_open(&self) -> bool {
        self.shared.state.lock().base.is_some()
    }

    /// How many questions are in progress.
    pub(crate) fn running(&self) -> usize {
        self.shared.state.lock().running.len()
    }

    /// Interrupts running questions and drops every connection.
    pub(crate) fn close(&self, why: &str) {
        let mut state = self.shared.state.lock();
        state.base = None;
        state.idle.clear();
        state.generation += 1;
        state.why_closed = why.to_owned();
        while !state.running.is_empty() {
            for running in &state.running {
                running.cancelled.store(true, Ordering::Relaxed);
                running.interrupt();
            }
            self.shared.changed.wait_for(&mut state, WATCH_EVERY);
        }
    }

    /// Asks a question. Its code may run a second time, when an hour was dropped while it ran or others had the memory.
    pub(crate) async fn ask<T, F>(&self, question: F) -> Result<T, QueryError>
    where
        T: Send + 'static,
        F: Fn(&Reader<'_>) -> Result<T, Failure> + Send + 'static,
    {
        self.counters.queries.add(1);
        let holding = Holding::current();
        let mut question = question;
        loop {
            let permit = self
                .semaphore
                .clone()
                .acquire_owned()
                .await
                .map_err(|_| QueryError::Closed)?;
            let running = Arc::new(Running {
                deadline: Instant::now() + self.limit,
                cancelled: AtomicBool::new(false),
                timed_out: AtomicBool::new(false),
                handle: Mutex::new(None),
            });
            let guard = CancelOnDrop(running.clone());
            let (shared, held) = (self.shared.clone(), holding.clone());
            let task = tokio::task::spawn_blocking(move || {
                let result = shared.run(&running, &held, &question);
                drop(permit);
                (result, running.timed_out.load(Ordering::Relaxed), question)
            });
            let (result, timed_out, asked) = task.await.map_err(|error| QueryError::Internal {
                message: error.to_string(),
            })?;
            drop(guard);
            match result {
                Err(Failure::NoRoom) => holding.wait().await?,
                result => return result.map_err(|failure| self.explain(failure, timed_out)),
            }
            question = asked;
        }
    }

    /// Reads for the store itself: outside the limit on questions, and until the engine has to be closed. Blocks.
    pub(crate) fn read<T>(&self, code: impl Fn(&Reader<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
        let running = Arc::new(Running {
            deadline: Instant::now() + OWN_READ_LIMIT,
            cancelled: AtomicBool::new(false),
            timed_out: AtomicBool::new(false),
            handle: Mutex::new(None),
        });
        self.shared.run(&running, &Holding::default(), &code)
    }

    fn explain(&self, failure: Failure, timed_out: bool) -> QueryError {
        if timed_out {
            self.counters.query_timeouts.add(1);
            return QueryError::Timeout {
                seconds: self.limit.as_secs(),
            };
        }
        let error = match failure {
            Failure::Question(error) => return error,
            Failure::Cancelled => {
                return QueryError::Unavailable {
                    message: self.shared.state.lock().why_closed.clone(),
                };
            }
            // `ask` has waited for it; this is for an uncounted question, which is never refused room.
            Failure::NoRoom => {
                return QueryError::Unavailable {
                    message: "no memory".to_owned(),
                };
            }
            // Callers usually take the parts out and ask again; this is for those that do not.
            Failure::Parts(parts) => {
                return QueryError::Unavailable {
                    message: format!("{} sealed files are damaged", parts.len()),
                };
            }
            Failure::Engine(error) => error,
        };
        self.counters.query_failures.add(1);
        let message = error.to_string();
        match failure::kind(&error) {
            Kind::Memory => QueryError::TooLarge { message },
            kind @ (Kind::Damaged | Kind::Fatal) => {
                (self.on_failure)(kind, message.clone());
                QueryError::Unavailable { message }
            }
            Kind::Interrupted | Kind::Full | Kind::MissingTable | Kind::InUse => QueryError::Unavailable { message },
            Kind::HeldUp | Kind::Other => QueryError::Internal { message },
        }
    }
}

impl Shared {
    fn run<T>(
        self: &Arc<Self>,
        running: &Arc<Running>,
        holding: &Holding,
        question: &impl Fn(&Reader<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (connection, generation) = self.take(running)?;
        let reader = Reader {
            connection: &connection,
            running,
            holding,
            held: Cell::new(0),
        };
        let again = || {
            reader.let_go();
            question(&reader)
        };
        // A panic in a question must not leave it in the list of running ones, or closing would wait forever.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match question(&reader) {
            Err(Failure::Engine(error)) => match failure::kind(&error) {
                Kind::MissingTable => again(),
                Kind::Memory => reader.pause(MEMORY_PAUSE).and_then(|()| again()),
                _ => Err(Failure::Engine(error)),
            },
            result => result,
        }));
        if !matches!(&result, Ok(Ok(_))) {
            reader.let_go();
        }
        let healthy = matches!(&result, Ok(Ok(_) | Err(Failure::Question(_) | Failure::NoRoom)));
        self.give_back(running, connection, generation, healthy);
        result.unwrap_or_else(|_| {
            Err(Failure::Question(QueryError::Internal {
                message: "a query panicked".to_owned(),
            }))
        })
    }

    fn take(self: &Arc<Self>, running: &Arc<Running>) -> Result<(Connection, u64), Failure> {
        let mut state = self.state.lock();
        let connection = match (state.idle.pop(), &state.base) {
            (Some(connection), _) => connection,
            (None, Some(base)) => base.try_clone()?,
            (None, None) => {
                return Err(QueryError::Unavailable {
                    message: state.why_closed.clone(),
                }
                .into());
            }
        };
        *running.handle.lock() = Some(connection.interrupt_handle());
        state.running.push(running.clone());
        if !state.watching {
            let weak = Arc::downgrade(self);
            // Without a watcher a question cannot be stopped, so it is not started either.
            std::thread::Builder::new()
                .name("query-watch".to_owned())
                .spawn(move || watch(&weak))
                .map_err(|error| QueryError::Unavailable {
                    message: error.to_string(),
                })
                .inspect_err(|_| state.running.retain(|r| !Arc::ptr_eq(r, running)))?;
            state.watching = true;
        }
        Ok((connection, state.generation))
    }

    fn give_back(&self, running: &Arc<Running>, connection: Connection, generation: u64, healthy: bool) {
        *running.handle.lock() = None;
        let mut state = self.state.lock();
        if healthy && generation == state.generation {
            state.idle.push(connection);
        } else {
            // Dropped before the question leaves the list: a close that waits for an empty list waits for this, too.
            drop(connection);
        }
        state.running.retain(|r| !Arc::ptr_eq(r, running));
        self.changed.notify_all();
    }
}

/// Interrupts questions that nobody waits for or that take too long; ends when none are left.
fn watch(shared: &Weak<Shared>) {
    loop {
        std::thread::sleep(WATCH_EVERY);
        let Some(shared) = shared.upgrade() else { return };
        let mut state = shared.state.lock();
        if state.running.is_empty() {
            state.watching = false;
            return;
        }
        for running in &state.running {
            if Instant::now() >= running.deadline {
                running.timed_out.store(true, Ordering::Relaxed);
            }
            if running.timed_out.load(Ordering::Relaxed) || running.cancelled.load(Ordering::Relaxed) {
                running.interrupt();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readers(limit: Duration) -> Readers {
        let readers = Readers::new(1, limit, Arc::default(), Box::new(|_, _| {}));
        readers.open(Connection::open_in_memory().unwrap());
        readers
    }

    const ENDLESS: &str = "SELECT count(*) FROM range(10000000000) a, range(10000000000) b";

    fn count(reader: &Reader<'_>, sql: &str) -> Result<usize, Failure> {
        let mut rows = 0;
        reader.rows(sql, &[], |chunk| {
            rows += arrow::array::Array::len(chunk);
            Ok(())
        })?;
        Ok(rows)
    }

    #[tokio::test]
    async fn a_long_question_is_interrupted_and_the_next_one_answered() {
        let readers = readers(Duration::from_millis(100));
        let error = readers.ask(|r| count(r, ENDLESS)).await.unwrap_err();
        assert!(matches!(error, QueryError::Timeout { .. }), "{error}");
        assert_eq!(readers.ask(|r| count(r, "SELECT 1")).await.unwrap(), 1);
        assert_eq!(readers.counters.query_timeouts.get(), 1);
    }

    #[tokio::test]
    async fn a_question_nobody_waits_for_makes_room_for_the_next() {
        let readers = readers(Duration::from_secs(600));
        let asked = readers.ask(|r| count(r, ENDLESS));
        assert!(tokio::time::timeout(Duration::from_millis(100), asked).await.is_err());
        let next = tokio::time::timeout(Duration::from_secs(60), readers.ask(|r| count(r, "SELECT 1")));
        assert_eq!(next.await.unwrap().unwrap(), 1);
    }

    #[tokio::test]
    async fn closing_waits_for_no_question() {
        let readers = Arc::new(readers(Duration::from_secs(600)));
        let asking = tokio::spawn({
            let readers = readers.clone();
            async move { readers.ask(|r| count(r, ENDLESS)).await }
        });
        while readers.shared.state.lock().running.is_empty() {
            tokio::task::yield_now().await;
        }
        readers.close("repair");
        let error = asking.await.unwrap().unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert!(readers.ask(|r| count(r, "SELECT 1")).await.unwrap_err().is_retryable());
        readers.open(Connection::open_in_memory().unwrap());
        assert_eq!(readers.ask(|r| count(r, "SELECT 1")).await.unwrap(), 1);
    }

    /// Needs tens of megabytes, none of which can be spilled to disk.
    const LARGE: &str = "SELECT count(DISTINCT range) FROM range(1000000)";

    /// Readers of an engine with little memory, most of which is taken by `held`.
    fn short_of_memory() -> (Readers, Connection) {
        let engine = Connection::open_in_memory().unwrap();
        engine
            .execute_batch(
                "SET memory_limit = '96MB'; SET temp_directory = ''; SET threads = 1;
                 CREATE TABLE held AS SELECT hash(range) AS h FROM range(8000000)",
            )
            .unwrap();
        let readers = readers(Duration::from_secs(600));
        readers.open(engine.try_clone().unwrap());
        (readers, engine)
    }

    #[tokio::test]
    async fn a_question_that_finds_no_memory_is_asked_again_when_others_may_be_done() {
        let (readers, engine) = short_of_memory();
        let engine = Mutex::new(engine);
        let runs = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = runs.clone();
        let answer = readers.ask(move |r| {
            if counted.fetch_add(1, Ordering::Relaxed) == 1 {
                engine.lock().execute_batch("DROP TABLE held")?;
            }
            count(r, LARGE)
        });
        assert_eq!(answer.await.unwrap(), 1);
        assert_eq!(runs.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_question_too_large_for_the_memory_is_refused() {
        let (readers, _engine) = short_of_memory();
        let error = readers.ask(|r| count(r, LARGE)).await.unwrap_err();
        assert!(matches!(error, QueryError::TooLarge { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_panicking_question_leaves_the_engine_usable() {
        let readers = readers(Duration::from_secs(600));
        let error = readers
            .ask(|_| -> Result<(), Failure> { panic!("as the test wants") })
            .await
            .unwrap_err();
        assert!(matches!(error, QueryError::Internal { .. }));
        assert_eq!(readers.ask(|r| count(r, "SELECT 1")).await.unwrap(), 1);
    }
}
