//! One connection, as seen by the doors: what it waits for, since when, and what it holds.
//!
//! Guarantees: connections that keep the server waiting are distinguished from those that wait for the server; the
//! counters are right at every moment, even when a request or a connection is dropped half-way.
//!
//! Times are ticks of the doors' own clock ([`super::TICK`]), so that a request needs no system clock.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::Notify;

/// Timeouts of connections.
const HEAD: Duration = Duration::from_secs(10);
const HEAD_WHEN_SCARCE: Duration = Duration::from_secs(5);
/// Before its first request.
const SILENT: Duration = Duration::from_secs(12);
/// Between requests.
const IDLE: Duration = Duration::from_secs(75);
const IDLE_WHEN_SCARCE: Duration = Duration::from_secs(10);
/// For regular clients: proxies report every ten seconds.
const REGULAR_WHEN_SCARCE: Duration = Duration::from_secs(15);
/// Requests in this many different ticks make a connection a regular one.
const REGULAR: u32 = 4;
/// For [`SOME_BYTES`] of a body or a response.
const STALLED: Duration = Duration::from_secs(30);
const STALLED_WHEN_SCARCE: Duration = Duration::from_secs(5);
/// To end in an orderly way after being told to.
const FINISHING: Duration = Duration::from_secs(2);
/// The least progress that counts: anything less is a trickle, or HTTP/2 pings.
const SOME_BYTES: u64 = 16 << 10;

/// Why a connection was ended from this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Reason {
    /// No request within [`SILENT`].
    Silent,
    /// An incomplete head.
    SlowHead,
    /// A body without progress.
    SlowSender,
    /// A response that was not read.
    SlowReader,
    /// No request for [`IDLE`].
    Idle,
    /// All slots were taken, and this one waited for its client.
    MadeRoom,
    /// The heads of all connections hold as much as they may.
    Heads,
}

impl Reason {
    pub(super) const ALL: [Reason; 7] = [
        Reason::Silent,
        Reason::SlowHead,
        Reason::SlowSender,
        Reason::SlowReader,
        Reason::Idle,
        Reason::MadeRoom,
        Reason::Heads,
    ];

    /// Name in metrics.
    pub(super) fn word(self) -> &'static str {
        match self {
            Reason::Silent => "silent",
            Reason::SlowHead => "head_timeout",
            Reason::SlowSender => "slow_sender",
            Reason::SlowReader => "slow_reader",
            Reason::Idle => "idle",
            Reason::MadeRoom => "made_room",
            Reason::Heads => "heads_full",
        }
    }
}

/// What a connection is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// To end after the requests in flight.
    Finish,
    /// To make room, unless something arrives at this moment.
    Yield,
    /// To end now.
    Leave,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) address: IpAddr,
    /// Bytes moved in both directions.
    moved: AtomicU64,
    requests: AtomicU32,
    /// Of these, those that this server is working on: complete, and not answered.
    working: AtomicU32,
    /// Steps taken by requests.
    steps: AtomicU32,
    /// Ticks in which requests were answered, and the last of them.
    served: AtomicU32,
    last_served: AtomicU64,
    /// HTTP/2: the bytes do not show where a head begins.
    framed: AtomicBool,
    /// Tick at which something ended: the connection began, a body was complete, a response was ready or sent.
    last_end: AtomicU64,
    /// Tick at which an unfinished head began, or 0.
    head_since: AtomicU64,
    head_bytes: AtomicU64,
    /// Tick since which the client's system has accepted nothing, or 0.
    blocked_since: AtomicU64,
    /// `moved` at the last check that found enough progress, and when that was.
    mark: AtomicU64,
    marked: AtomicU64,
    told: AtomicU8,
    told_since: AtomicU64,
    tell: Notify,
}

impl Seat {
    pub(super) fn new(address: IpAddr, now: u64) -> Seat {
        Seat {
            address,
            moved: AtomicU64::new(0),
            requests: AtomicU32::new(0),
            working: AtomicU32::new(0),
            steps: AtomicU32::new(0),
            served: AtomicU32::new(0),
            last_served: AtomicU64::new(0),
            framed: AtomicBool::new(false),
            last_end: AtomicU64::new(now),
            head_since: AtomicU64::new(0),
            head_bytes: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
            mark: AtomicU64::new(0),
            marked: AtomicU64::new(now),
            told: AtomicU8::new(0),
            told_since: AtomicU64::new(0),
            tell: Notify::new(),
        }
    }

    /// The bytes are HTTP/2.
    pub(super) fn set_framed(&self) {
        self.framed.store(true, Relaxed);
    }

    /// Bytes arrived; returns how many of them, with earlier ones, belong to an incomplete head.
    pub(super) fn read(&self, bytes: u64, now: u64) -> Option<u64> {
        self.moved.fetch_add(bytes, Relaxed);
        if self.framed.load(Relaxed) || self.requests.load(Relaxed) > 0 {
            return None;
        }
        if self.head_since.load(Relaxed) == 0 {
            self.head_since.store(now, Relaxed);
        }
        Some(self.head_bytes.fetch_add(bytes, Relaxed) + bytes)
    }

    /// Bytes were accepted, or none.
    pub(super) fn wrote(&self, bytes: Option<usize>, now: u64) {
        match bytes {
            Some(bytes) => {
                self.moved.fetch_add(bytes as u64, Relaxed);
                self.blocked_since.store(0, Relaxed);
            }
            None if self.blocked_since.load(Relaxed) == 0 => self.blocked_since.store(now, Relaxed),
            None => {}
        }
    }

    /// Forgets the head being read; returns its bytes.
    pub(super) fn end_head(&self) -> u64 {
        self.head_since.store(0, Relaxed);
        self.head_bytes.swap(0, Relaxed)
    }

    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Relaxed)
    }

    /// Waits for an instruction.
    pub(super) async fn told(&self) -> Told {
        self.tell.notified().await;
        match self.told.load(Relaxed) {
            FINISH => Told::Finish,
            YIELD => Told::Yield,
            _ => Told::Leave,
        }
    }

    /// It stays after all: something arrived.
    pub(super) fn stays(&self) {
        // Unless it was told to leave in the meantime.
        let _ = self.told.compare_exchange(YIELD, 0, Relaxed, Relaxed);
    }

    /// The number of steps taken by its requests so far.
    pub(super) fn steps(&self) -> u32 {
        self.steps.load(Relaxed)
    }

    /// Tells it, unless it was already told this or more; true if told now.
    pub(super) fn tell(&self, what: Told, now: u64) -> bool {
        let code = match what {
            Told::Finish => FINISH,
            Told::Yield => YIELD,
            Told::Leave => LEAVE,
        };
        let before = self.told.fetch_max(code, Relaxed);
        if before < code {
            self.told_since.store(now, Relaxed);
            self.tell.notify_one();
        }
        before < code
    }

    /// Since when it has kept the server waiting; none while the server works for it, or it is about to leave.
    pub(super) fn keeps_waiting_since(&self) -> Option<u64> {
        let works = self.working.load(Relaxed) > 0;
        (!works && self.told.load(Relaxed) < YIELD).then(|| self.last_end.load(Relaxed).max(self.marked.load(Relaxed)))
    }

    /// In which order connections leave to make room: those that never finished a request, those that hold one without
    /// progress, those between two requests, those whose request has just begun, regular ones; within each group, the
    /// one that has waited longest.
    pub(super) fn order(&self, since: u64, now: u64, grace: u64) -> u8 {
        let is_fresh = now.saturating_sub(since) < grace;
        match (self.served.load(Relaxed), self.requests()) {
            (REGULAR.., 0) => 4,
            (_, 1..) if is_fresh => 3,
            (_, 1..) => 1,
            (1.., 0) => 2,
            (0, 0) => 0,
        }
    }

    /// What to tell it, and why, if a timeout is exceeded. `ticks` converts a time to ticks.
    pub(super) fn overdue(&self, now: u64, scarce: bool, ticks: impl Fn(Duration) -> u64) -> Option<(Told, Reason)> {
        let moved = self.moved.load(Relaxed);
        if moved.wrapping_sub(self.mark.load(Relaxed)) >= SOME_BYTES {
            self.mark.store(moved, Relaxed);
            self.marked.store(now, Relaxed);
        }
        let over = |since: u64, usual: Duration, when_scarce: Duration| {
            now.saturating_sub(since) >= ticks(if scarce { when_scarce } else { usual })
        };
        let since = self.keeps_waiting_since()?;
        if self.told.load(Relaxed) == FINISH {
            let is_over = over(self.told_since.load(Relaxed), FINISHING, FINISHING);
            return is_over.then_some((Told::Leave, Reason::Idle));
        }
        let blocked = self.blocked_since.load(Relaxed);
        let (head, served) = (self.head_since.load(Relaxed), self.served.load(Relaxed));
        let when_scarce = if served < REGULAR {
            IDLE_WHEN_SCARCE
        } else {
            REGULAR_WHEN_SCARCE
        };
        if blocked > 0 {
            // What was read since counts, but not the time before, when the server was working.
            let since = blocked.max(self.marked.load(Relaxed));
            over(since, STALLED, STALLED_WHEN_SCARCE).then_some((Told::Leave, Reason::SlowReader))
        } else if self.requests() > 0 {
            over(since, STALLED, STALLED_WHEN_SCARCE).then_some((Told::Leave, Reason::SlowSender))
        } else if head > 0 {
            over(head, HEAD, HEAD_WHEN_SCARCE).then_some((Told::Leave, Reason::SlowHead))
        } else if served == 0 {
            over(self.last_end.load(Relaxed), SILENT, IDLE_WHEN_SCARCE).then_some((Told::Leave, Reason::Silent))
        } else {
            over(self.last_end.load(Relaxed), IDLE, when_scarce).then_some((Told::Finish, Reason::Idle))
        }
    }
}

/// A request in flight; ends when dropped.
#[derive(Debug)]
pub(super) struct Course {
    seat: Arc<Seat>,
    step: AtomicU8,
    clock: Arc<AtomicU64>,
}

const FINISH: u8 = 1;
const YIELD: u8 = 2;
const LEAVE: u8 = 3;

const ARRIVING: u8 = 0;
const WORKING: u8 = 1;
const ANSWERING: u8 = 2;

impl Course {
    /// A request begins: its head is complete.
    pub(super) fn begin(seat: &Arc<Seat>, clock: &Arc<AtomicU64>) -> Arc<Course> {
        seat.requests.fetch_add(1, Relaxed);
        seat.steps.fetch_add(1, Relaxed);
        seat.last_end.store(clock.load(Relaxed), Relaxed);
        Arc::new(Course {
            seat: Arc::clone(seat),
            step: AtomicU8::new(ARRIVING),
            clock: Arc::clone(clock),
        })
    }

    /// Its body has arrived, or nobody wants it.
    pub(super) fn arrived(&self) {
        if self.step.compare_exchange(ARRIVING, WORKING, Relaxed, Relaxed).is_ok() {
            self.seat.working.fetch_add(1, Relaxed);
            self.note_end();
        }
    }

    /// There is a response.
    pub(super) fn answered(&self) {
        if self.step.swap(ANSWERING, Relaxed) == WORKING {
            self.seat.working.fetch_sub(1, Relaxed);
        }
        self.note_end();
    }

    fn note_end(&self) {
        self.seat.steps.fetch_add(1, Relaxed);
        self.seat.last_end.store(self.clock.load(Relaxed), Relaxed);
    }
}

impl Drop for Course {
    fn drop(&mut self) {
        match self.step.load(Relaxed) {
            WORKING => {
                self.seat.working.fetch_sub(1, Relaxed);
            }
            ANSWERING => {
                let now = self.clock.load(Relaxed);
                if self.seat.last_served.swap(now, Relaxed) != now {
                    self.seat.served.fetch_add(1, Relaxed);
                }
            }
            _ => {}
        }
        self.seat.requests.fetch_sub(1, Relaxed);
        self.note_end();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn seat() -> (Arc<Seat>, Arc<AtomicU64>) {
        let seat = Arc::new(Seat::new(Ipv4Addr::LOCALHOST.into(), 1));
        (seat, Arc::new(AtomicU64::new(1)))
    }

    /// One tick per second, so that numbers are seconds.
    fn reason(seat: &Seat, now: u64, scarce: bool) -> Option<Reason> {
        seat.overdue(now, scarce, |time| time.as_secs())
            .map(|(_, reason)| reason)
    }

    #[test]
    fn heads_silence_and_idleness_have_their_times() {
        let (seat, clock) = seat();
        assert_eq!(reason(&seat, 12, false), None);
        assert_eq!(reason(&seat, 13, false), Some(Reason::Silent));
        assert_eq!(reason(&seat, 11, true), Some(Reason::Silent));
        seat.read(10, 5);
        assert_eq!(reason(&seat, 14, false), None);
        // An occasional byte buys no time.
        seat.read(1, 14);
        assert_eq!(reason(&seat, 15, false), Some(Reason::SlowHead));
        assert_eq!(seat.end_head(), 11);
        clock.store(20, Relaxed);
        let course = Course::begin(&seat, &clock);
        course.arrived();
        assert_eq!(reason(&seat, 2_000, true), None, "the server works");
        course.answered();
        drop(course);
        assert_eq!(reason(&seat, 94, false), None);
        assert_eq!(reason(&seat, 95, false), Some(Reason::Idle));
        assert_eq!(reason(&seat, 30, true), Some(Reason::Idle));
    }

    #[test]
    fn a_trickle_is_not_going_on_and_a_slow_line_is() {
        let (seat, clock) = seat();
        let course = Course::begin(&seat, &clock);
        seat.read(1, 20);
        assert_eq!(reason(&seat, 31, false), Some(Reason::SlowSender));
        seat.read(SOME_BYTES, 29);
        assert_eq!(reason(&seat, 29, false), None);
        assert_eq!(reason(&seat, 58, false), None);
        assert_eq!(reason(&seat, 59, false), Some(Reason::SlowSender));
        clock.store(60, Relaxed);
        course.arrived();
        clock.store(100, Relaxed);
        course.answered();
        // A client that reads nothing of the response.
        seat.wrote(None, 100);
        assert_eq!(reason(&seat, 129, false), None);
        assert_eq!(reason(&seat, 130, false), Some(Reason::SlowReader));
        // Even if the last of it is in the buffers and the request is over.
        drop(course);
        assert_eq!(reason(&seat, 130, false), Some(Reason::SlowReader));
        seat.wrote(Some(10), 131);
        assert_eq!(reason(&seat, 131, false), None);
    }

    #[test]
    fn whoever_goes_is_told_once_and_then_cut() {
        let (seat, _) = seat();
        assert!(seat.tell(Told::Finish, 20));
        assert!(!seat.tell(Told::Finish, 21));
        assert_eq!(reason(&seat, 21, false), None);
        assert_eq!(reason(&seat, 22, false), Some(Reason::Idle));
        assert!(seat.tell(Told::Leave, 25));
        assert!(!seat.tell(Told::Finish, 26));
        assert_eq!(seat.keeps_waiting_since(), None);
    }

    #[test]
    fn who_is_to_make_room_stays_when_something_comes() {
        let (seat, clock) = seat();
        let before = seat.steps();
        assert!(seat.tell(Told::Yield, 2));
        assert_eq!(seat.keeps_waiting_since(), None, "nobody else counts on its place");
        drop(Course::begin(&seat, &clock));
        assert_ne!(seat.steps(), before);
        seat.stays();
        assert!(seat.keeps_waiting_since().is_some());
        assert!(seat.tell(Told::Leave, 3));
        seat.stays();
        assert_eq!(seat.keeps_waiting_since(), None, "told to leave, it leaves");
    }

    #[test]
    fn who_comes_again_and_again_goes_last() {
        let order = |seat: &Seat| seat.order(1, 1, 4);
        let ((new, _), (once, clock), (regular, later)) = (seat(), seat(), seat());
        let answer = |seat: &Arc<Seat>, clock: &Arc<AtomicU64>| {
            let course = Course::begin(seat, clock);
            course.arrived();
            course.answered();
        };
        // Twenty at once count as one.
        (0..20).for_each(|_| answer(&once, &clock));
        for tick in 1..=u64::from(REGULAR) {
            later.store(tick, Relaxed);
            answer(&regular, &later);
        }
        assert_eq!([order(&new), order(&once), order(&regular)], [0, 2, 4]);
        let _held = Course::begin(&once, &clock);
        assert_eq!(once.order(1, 1, 4), 3);
        assert_eq!(once.order(1, 5, 4), 1);
    }

    #[test]
    fn dropped_requests_leave_nothing_behind() {
        let (seat, clock) = seat();
        let all = [ARRIVING, WORKING, ANSWERING].map(|step| {
            let course = Course::begin(&seat, &clock);
            if step >= WORKING {
                course.arrived();
            }
            if step == ANSWERING {
                course.answered();
            }
            course
        });
        assert_eq!((seat.requests(), seat.working.load(Relaxed)), (3, 1));
        drop(all);
        assert_eq!((seat.requests(), seat.working.load(Relaxed)), (0, 0));
    }
}
