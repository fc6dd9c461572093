//! The addresses of names, kept up to date in the background.
//!
//! Guarantees: no request waits for a lookup once a name has an answer; an answer is used for its time to live, within
//! [`SHORTEST`] and [`LONGEST`]; a failed lookup leaves the previous answer in place and is counted, and logged once a
//! minute per name. All workers and listeners share the lookups of a name.
//!
//! Wrong on purpose: an address missing from one answer (some name servers return a random part of a long list) is
//! dropped with that answer.

mod system;

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};

use crate::counters::Counters;
pub use system::System;

/// The shortest time between two lookups of a name: a time to live of 0 means "do not store", not "ask for every
/// request".
pub const SHORTEST: Duration = Duration::from_secs(1);
/// The longest time between two lookups of a name: a service that moves is found again within this time, whatever its
/// records promised, and a caching name server nearby answers from memory.
pub const LONGEST: Duration = Duration::from_secs(30);
/// How long an answer is used if its source has no time to live, such as `/etc/hosts`.
pub const UNLIMITED: Duration = Duration::from_secs(5);
/// Longest lookup: two attempts of five seconds, the default of resolv.conf(5).
const LOOKUP_LIMIT: Duration = Duration::from_secs(10);
/// The most addresses of a name that are used.
const MAX_ADDRESSES: usize = 256;
/// Time between two warnings about one name.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The result of a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// All addresses, of both families.
    pub addresses: BTreeSet<IpAddr>,
    /// How long they may be used.
    pub good_for: Duration,
}

/// Why a name has no addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LookupError(Arc<str>);

impl LookupError {
    /// An error with this message.
    pub fn new(why: impl fmt::Display) -> LookupError {
        LookupError(why.to_string().into())
    }
}

/// A lookup in progress.
pub type LookingUp<'a> = Pin<Box<dyn Future<Output = Result<Found, LookupError>> + Send + 'a>>;

/// A source of addresses for names.
pub trait LookUp: fmt::Debug + Send + Sync + 'static {
    /// Performs one lookup.
    fn look_up<'a>(&'a self, host: &'a str) -> LookingUp<'a>;
}

/// The names of a process.
#[derive(Debug)]
pub(crate) struct Resolver {
    known: Mutex<HashMap<String, Weak<Resolution>>>,
    added: mpsc::UnboundedSender<Weak<Resolution>>,
}

/// The other half of a [`Resolver`]: looks up the names added there.
#[derive(Debug)]
pub(crate) struct Lookups {
    added: mpsc::UnboundedReceiver<Weak<Resolution>>,
    source: Arc<dyn LookUp>,
    counters: Arc<Counters>,
}

impl Resolver {
    pub(crate) fn new(source: Arc<dyn LookUp>, counters: Arc<Counters>) -> (Resolver, Lookups) {
        let (added, receiver) = mpsc::unbounded_channel();
        let resolver = Resolver {
            known: Mutex::default(),
            added,
        };
        let lookups = Lookups {
            added: receiver,
            source,
            counters,
        };
        (resolver, lookups)
    }

    /// The addresses of a name, which is looked up for as long as this is held.
    pub(crate) fn resolution(&self, host: &str) -> Arc<Resolution> {
        let mut known = self.known.lock();
        if let Some(resolution) = known.get(host).and_then(Weak::upgrade) {
            return resolution;
        }
        known.retain(|_, resolution| resolution.strong_count() > 0);
        let resolution = Arc::new(Resolution {
            host: host.to_owned(),
            state: watch::Sender::default(),
            asked: Arc::default(),
        });
        known.insert(host.to_owned(), Arc::downgrade(&resolution));
        // The other half ends only with the process.
        let _ = self.added.send(Arc::downgrade(&resolution));
        resolution
    }
}

impl Lookups {
    /// Looks up names until the process ends.
    pub(crate) async fn run(mut self) {
        while let Some(added) = self.added.recv().await {
            tokio::spawn(keep_asking(added, Arc::clone(&self.source), Arc::clone(&self.counters)));
        }
        std::future::pending::<()>().await;
    }
}

async fn keep_asking(resolution: Weak<Resolution>, source: Arc<dyn LookUp>, counters: Arc<Counters>) {
    let mut pause = SHORTEST;
    let mut warned: Option<Instant> = None;
    loop {
        let Some(resolution) = resolution.upgrade() else { return };
        let began = Instant::now();
        let looked = tokio::time::timeout(LOOKUP_LIMIT, source.look_up(&resolution.host)).await;
        let looked = looked
            .unwrap_or_else(|_| Err(LookupError::new(format_args!("no answer within {LOOKUP_LIMIT:?}"))))
            .and_then(|found| match found.addresses.is_empty() {
                true => Err(LookupError::new("the name has no address")),
                false => Ok(found),
            });
        counters.lookups.add();
        match looked {
            Ok(found) => {
                pause = found.good_for.clamp(SHORTEST, LONGEST);
                resolution.succeeded(&found.addresses);
            }
            Err(error) => {
                counters.lookup_failures.add();
                // Back off while the name server is down.
                let had_failed = resolution.state.borrow().failure.is_some();
                pause = if had_failed { (2 * pause).min(LONGEST) } else { SHORTEST };
                if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                    warned = Some(Instant::now());
                    let has_answer = resolution.state.borrow().addresses.is_some();
                    let then = if has_answer {
                        "keeping its addresses"
                    } else {
                        "requests to it fail"
                    };
                    tracing::warn!(name = resolution.host, %error, "cannot look up a destination; {then}");
                }
                resolution.failed(error);
            }
        }
        let asked = Arc::clone(&resolution.asked);
        drop(resolution);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = asked.notified() => {}
        }
        tokio::time::sleep_until(began + SHORTEST).await;
    }
}

#[derive(Debug, Default)]
struct State {
    addresses: Option<Arc<[IpAddr]>>,
    /// Lookups that have completed.
    ended: u64,
    /// Why the last one failed.
    failure: Option<(Instant, LookupError)>,
}

/// The addresses of one name.
#[derive(Debug)]
pub(crate) struct Resolution {
    host: String,
    state: watch::Sender<State>,
    asked: Arc<Notify>,
}

impl Resolution {
    fn succeeded(&self, addresses: &BTreeSet<IpAddr>) {
        self.state.send_modify(|state| {
            state.ended += 1;
            state.failure = None;
            let addresses = addresses.iter().take(MAX_ADDRESSES);
            let is_same = state
                .addresses
                .as_ref()
                .is_some_and(|known| known.iter().eq(addresses.clone()));
            if !is_same {
                state.addresses = Some(addresses.copied().collect());
            }
        });
    }

    fn failed(&self, error: LookupError) {
        self.state.send_modify(|state| {
            state.ended += 1;
            state.failure = Some((Instant::now(), error));
        });
    }

    /// The addresses, in order, unless they are those already `seen`.
    pub(crate) fn newer_than(&self, seen: Option<&Arc<[IpAddr]>>) -> Option<Arc<[IpAddr]>> {
        let state = self.state.borrow();
        let addresses = state.addresses.as_ref()?;
        let is_seen = seen.is_some_and(|seen| Arc::ptr_eq(seen, addresses));
        (!is_seen).then(|| Arc::clone(addresses))
    }

    /// Returns when there is an answer. A failure within the last [`SHORTEST`] is returned as this one's.
    pub(crate) async fn known(&self) -> Result<(), LookupError> {
        let mut states = self.state.subscribe();
        let ended = {
            let state = states.borrow_and_update();
            if state.addresses.is_some() {
                return Ok(());
            }
            match &state.failure {
                Some((at, error)) if at.elapsed() < SHORTEST => return Err(error.clone()),
                _ => state.ended,
            }
        };
        self.ask_again();
        let state = states.wait_for(|state| state.ended > ended).await;
        let state = state.map_err(|_| LookupError::new("the process is stopping"))?;
        match &state.failure {
            Some((_, error)) if state.addresses.is_none() => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Requests a lookup ahead of time. There is at most one per [`SHORTEST`].
    pub(crate) fn ask_again(&self) {
        self.asked.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a prepared answer, and counts the lookups.
    #[derive(Debug, Default)]
    struct Told(Mutex<(u64, Option<Found>)>);

    impl Told {
        fn say(&self, last: &[u8], good_for: Duration) {
            let addresses = last.iter().map(|&last| IpAddr::from([10, 0, 0, last])).collect();
            self.0.lock().1 = Some(Found { addresses, good_for });
        }

        fn fail(&self) {
            self.0.lock().1 = None;
        }

        fn asked(&self) -> u64 {
            self.0.lock().0
        }
    }

    impl LookUp for Told {
        fn look_up<'a>(&'a self, _: &'a str) -> LookingUp<'a> {
            let mut told = self.0.lock();
            told.0 += 1;
            let answer = told.1.clone().ok_or_else(|| LookupError::new("told to fail"));
            Box::pin(async move { answer })
        }
    }

    fn start() -> (Arc<Told>, Resolver, Arc<Counters>) {
        let (told, counters) = (Arc::new(Told::default()), Arc::<Counters>::default());
        let (resolver, lookups) = Resolver::new(Arc::clone(&told) as Arc<dyn LookUp>, Arc::clone(&counters));
        tokio::spawn(lookups.run());
        (told, resolver, counters)
    }

    fn last(resolution: &Resolution) -> Vec<u8> {
        let addresses = resolution.newer_than(None);
        let last = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(_) => 0,
        };
        addresses.iter().flat_map(|ips| ips.iter().map(last)).collect()
    }

    /// Slightly later, so that what is due at that time has been done.
    async fn after(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds) + Duration::from_millis(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_asked_again_when_its_time_to_live_is_over_within_bounds() {
        for (good_for, pause) in [(0, 1), (7, 7), (86_400, 30)] {
            let (told, resolver, counters) = start();
            told.say(&[1, 2], Duration::from_secs(good_for));
            let name = resolver.resolution("a.test");
            name.known().await.unwrap();
            // The call that waited for the first answer triggered a lookup, too.
            after(1).await;
            assert_eq!(told.asked(), 2);
            told.say(&[2, 3], Duration::from_secs(good_for));
            after(pause - 1).await;
            assert_eq!((told.asked(), last(&name)), (2, vec![1, 2]), "{good_for}");
            after(1).await;
            assert_eq!((told.asked(), last(&name)), (3, vec![2, 3]), "{good_for}");
            assert_eq!(
                (counters.lookups.get(), counters.lookup_failures.get()),
                (told.asked(), 0)
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_lookup_keeps_the_addresses_and_is_counted_and_tried_less_and_less_often() {
        let (told, resolver, counters) = start();
        told.say(&[1], SHORTEST);
        let name = resolver.resolution("a.test");
        name.known().await.unwrap();
        told.fail();
        after(600).await;
        assert_eq!(last(&name), [1]);
        let failures = counters.lookup_failures.get();
        // 1, 2, 4, 8, 16 and then every 30 s.
        assert!((20..=26).contains(&failures), "{failures}");
        told.say(&[2], SHORTEST);
        after(30).await;
        assert_eq!(last(&name), [2]);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_a_name_without_an_answer_learns_of_a_failure_and_asks_once_a_second() {
        let (told, resolver, _) = start();
        let name = resolver.resolution("a.test");
        assert_eq!(name.known().await, Err(LookupError::new("told to fail")));
        let asked = told.asked();
        for _ in 0..100 {
            assert_eq!(name.known().await, Err(LookupError::new("told to fail")));
        }
        assert_eq!(told.asked(), asked, "a failure of just now stands for one's own");
        after(2).await;
        told.say(&[1], SHORTEST);
        assert_eq!(name.known().await, Ok(()));
        assert_eq!(last(&name), [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_connection_asks_before_the_time_but_once_a_second_at_most() {
        let (told, resolver, _) = start();
        told.say(&[1], LONGEST);
        let name = resolver.resolution("a.test");
        name.known().await.unwrap();
        after(3).await;
        let asked = told.asked();
        told.say(&[2], LONGEST);
        for _ in 0..1_000 {
            name.ask_again();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let more = told.asked() - asked;
        assert!((9..=11).contains(&more), "{more} lookups in 10 s");
        assert_eq!(last(&name), [2]);
    }

    #[tokio::test(start_paused = true)]
    async fn lookups_are_shared_and_end_with_the_last_who_wants_them() {
        let (told, resolver, _) = start();
        told.say(&[1], SHORTEST);
        let (one, two) = (resolver.resolution("a.test"), resolver.resolution("a.test"));
        assert!(Arc::ptr_eq(&one, &two));
        after(10).await;
        assert!((10..=12).contains(&told.asked()), "{}", told.asked());
        drop((one, two));
        after(2).await;
        let asked = told.asked();
        after(60).await;
        assert_eq!(told.asked(), asked);
        assert_eq!(last(&resolver.resolution("a.test")), [0; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_without_an_address_is_a_failure_and_a_very_long_one_is_cut() {
        let (told, resolver, counters) = start();
        told.say(&[], LONGEST);
        let name = resolver.resolution("a.test");
        assert_eq!(name.known().await, Err(LookupError::new("the name has no address")));
        assert!(counters.lookup_failures.get() > 0);
        let addresses = (0..1_000_u32).map(|n| IpAddr::from(n.to_be_bytes())).collect();
        told.0.lock().1 = Some(Found {
            addresses,
            good_for: LONGEST,
        });
        after(2).await;
        assert_eq!(name.newer_than(None).unwrap().len(), MAX_ADDRESSES);
    }
}
