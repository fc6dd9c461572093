//! Slots for queries and turns for heavy ones, divided among the clients.
//!
//! Guarantees: one client has at most half of the slots; [`HEAVY_AT_ONCE`] heavy queries have their turn at a time,
//! with clients taking turns; a query that leaves while it waits is skipped, and what it was given is passed on.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Heavy queries answered at a time, as many as the store answers: the trees of a third would only take memory.
pub(super) const HEAVY_AT_ONCE: usize = 2;
/// How long a large response waits for others to be read.
const LONGEST_WAIT_FOR_READERS: Duration = Duration::from_secs(5);
/// The unit of counting.
const PIECE: u64 = 1 << 10;

/// A client; requests without a connection are one client.
pub(super) type Asker = Option<IpAddr>;

/// The slots for queries.
#[derive(Debug)]
pub(super) struct Places {
    taken: Mutex<Taken>,
    max: usize,
    /// Per client.
    pub(super) max_of_one: usize,
    answers: Arc<Semaphore>,
    answer_pieces: usize,
}

#[derive(Debug, Default)]
struct Taken {
    /// In progress, by client.
    of: HashMap<Asker, usize>,
    all: usize,
    heavy: usize,
    /// Clients with waiting heavy queries, in the order of their turns.
    waiting: VecDeque<(Asker, VecDeque<oneshot::Sender<()>>)>,
}

/// A query in progress.
pub(super) struct Place<'p> {
    places: &'p Places,
    asker: Asker,
}

/// A heavy query whose turn it is.
pub(super) struct Turn(Arc<Places>);

/// Why a query is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    All,
    OfOne,
}

impl Places {
    pub(super) fn new(max: usize, max_answer_bytes: u64) -> Places {
        let pieces = usize::try_from(max_answer_bytes / PIECE).unwrap_or(usize::MAX);
        let pieces = pieces.clamp(1, (u32::MAX as usize).min(Semaphore::MAX_PERMITS));
        Places {
            taken: Mutex::default(),
            max,
            max_of_one: max.div_ceil(2),
            answers: Arc::new(Semaphore::new(pieces)),
            answer_pieces: pieces,
        }
    }

    /// Takes a slot, given back when dropped.
    pub(super) fn take(&self, asker: Asker) -> Result<Place<'_>, Full> {
        let mut taken = self.taken.lock();
        if taken.all >= self.max {
            return Err(Full::All);
        }
        let of_one = taken.of.entry(asker).or_default();
        if *of_one >= self.max_of_one {
            return Err(Full::OfOne);
        }
        *of_one += 1;
        taken.all += 1;
        Ok(Place { places: self, asker })
    }

    /// Waits for a heavy query's turn.
    pub(super) async fn turn(self: &Arc<Self>, asker: Asker) -> Turn {
        let told = {
            let mut taken = self.taken.lock();
            if taken.heavy < HEAVY_AT_ONCE {
                taken.heavy += 1;
                return Turn(Arc::clone(self));
            }
            let (tell, told) = oneshot::channel();
            match taken.waiting.iter_mut().find(|(of, _)| *of == asker) {
                Some((_, queue)) => queue.push_back(tell),
                None => taken.waiting.push_back((asker, VecDeque::from([tell]))),
            }
            told
        };
        let mut told = Told { places: self, told };
        // The other end is kept until the turn is granted.
        let _ = (&mut told.told).await;
        Turn(Arc::clone(self))
    }

    fn pass_on(&self) {
        let mut taken = self.taken.lock();
        while let Some((asker, mut queue)) = taken.waiting.pop_front() {
            let next = queue.pop_front();
            if !queue.is_empty() {
                taken.waiting.push_back((asker, queue));
            }
            // A query that has left is skipped.
            if next.is_some_and(|next| next.send(()).is_ok()) {
                return;
            }
        }
        taken.heavy -= 1;
    }

    /// Room for a response until it is read.
    pub(super) async fn room(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let pieces = usize::try_from(bytes / PIECE)
            .unwrap_or(usize::MAX)
            .min(self.answer_pieces);
        let waiting = Arc::clone(&self.answers).acquire_many_owned(pieces as u32);
        tokio::time::timeout(LONGEST_WAIT_FOR_READERS, waiting).await.ok()?.ok()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.all -= 1;
        if let Some(of_one) = taken.of.get_mut(&self.asker) {
            *of_one -= 1;
            if *of_one == 0 {
                taken.of.remove(&self.asker);
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.pass_on();
    }
}

/// A waiting query; if it leaves at the moment when it is granted its turn, the turn is passed on.
struct Told<'p> {
    places: &'p Places,
    told: oneshot::Receiver<()>,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        // Granted and received: nothing more will arrive.
        self.told.close();
        if self.told.try_recv().is_ok() {
            return self.places.pass_on();
        }
        let mut taken = self.places.taken.lock();
        taken.waiting.retain_mut(|(_, queue)| {
            queue.retain(|waiting| !waiting.is_closed());
            !queue.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::RefCell,
        future::Future,
        task::{Context, Poll, Waker},
    };

    use super::*;

    fn address(last: u8) -> Asker {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn one_address_has_half_of_the_places_and_gives_them_back() {
        let places = Places::new(6, 1 << 20);
        let mine: Vec<_> = (0..3)
            .map(|_| places.take(address(1)).map_err(|_| ()).unwrap())
            .collect();
        assert_eq!(places.take(address(1)).err(), Some(Full::OfOne));
        let other: Vec<_> = (2..5)
            .map(|n| places.take(address(n)).map_err(|_| ()).unwrap())
            .collect();
        assert_eq!(places.take(address(9)).err(), Some(Full::All));
        drop((mine, other));
        let again = places.take(address(1)).map_err(|_| ()).unwrap();
        assert_eq!(places.taken.lock().of.len(), 1);
        drop(again);
        assert!(places.taken.lock().of.is_empty(), "who has nothing is forgotten");
    }

    #[test]
    fn addresses_take_turns_and_who_leaves_is_passed_over() {
        let places = Arc::new(Places::new(64, 1 << 20));
        let order = RefCell::new(Vec::new());
        let mut context = Context::from_waker(Waker::noop());
        let (places, order) = (&places, &order);
        let wait = |asker: u8, name: &'static str| {
            let mut waiting = Box::pin(async move {
                let turn = places.turn(address(asker)).await;
                order.borrow_mut().push(name);
                turn
            });
            let now = match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(turn) => Some(turn),
                Poll::Pending => None,
            };
            (waiting, now)
        };
        let mut turns: Vec<_> = (0..HEAVY_AT_ONCE).map(|_| wait(1, "first").1.unwrap()).collect();
        let mut queue = [wait(1, "a1"), wait(1, "a2"), wait(1, "a3"), wait(2, "b1")].map(|(waiting, now)| {
            assert!(now.is_none());
            Some(waiting)
        });
        // The second query of the first address leaves.
        queue[1] = None;
        while let Some(turn) = turns.pop() {
            drop(turn);
            for waiting in &mut queue {
                if let Some(future) = waiting
                    && let Poll::Ready(turn) = future.as_mut().poll(&mut context)
                {
                    turns.push(turn);
                    *waiting = None;
                }
            }
        }
        assert_eq!(order.borrow()[HEAVY_AT_ONCE..], ["a1", "b1", "a3"]);
        assert_eq!(places.taken.lock().heavy, 0);
        // A query that leaves after its turn was granted but not noticed passes it on.
        let held: Vec<_> = (0..HEAVY_AT_ONCE).map(|_| wait(1, "x").1.unwrap()).collect();
        let (leaving, _) = wait(1, "leaving");
        drop(held);
        drop(leaving);
        assert_eq!(places.taken.lock().heavy, 0);
    }
}
