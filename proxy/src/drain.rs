//! Stopping without cutting off what is in flight.
//!
//! Guarantee: [`Drain::start`] and [`Drain::retire`] tell every holder of a [`Draining`] once; [`Drain::done`] returns when
//! all of them are gone, however many there were and whenever they were made. Two channels in one: the value says how far
//! the end has come, and the dropping of the receivers says "done".
//!
//! Wrong on purpose: a connection that is asked to stop may continue for a while ([`Draining::run`]), because some
//! clients abort what they have in flight when they are told.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::sync::watch;

use crate::budget::Guard;

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Serving,
    /// New connections go to somebody else. Those that are here may go on, but should be left when their callers can.
    Retiring,
    /// Connections end as soon as nothing is in flight.
    Stopping,
}

/// What was asked for, for those who look at it at every poll.
#[derive(Debug, Default)]
struct Asked {
    is_retiring: AtomicBool,
    is_asked: AtomicBool,
    /// Milliseconds until connections that have not stopped are cut off.
    limit_ms: AtomicU64,
}

/// The side that requests the stop.
#[derive(Debug, Clone)]
pub(crate) struct Drain {
    asked: Arc<Asked>,
    sender: watch::Sender<Stage>,
}

/// A participant that is asked to stop; the stop waits until it is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Draining {
    asked: Arc<Asked>,
    receiver: watch::Receiver<Stage>,
}

impl Drain {
    pub(crate) fn new() -> Drain {
        Drain {
            asked: Arc::default(),
            sender: watch::Sender::new(Stage::Serving),
        }
    }

    /// One more participant to wait for.
    pub(crate) fn join(&self) -> Draining {
        Draining {
            asked: Arc::clone(&self.asked),
            receiver: self.sender.subscribe(),
        }
    }

    /// Asks everybody to send their callers elsewhere, however long that takes.
    pub(crate) fn retire(&self) {
        self.asked.is_retiring.store(true, Ordering::Release);
        self.sender.send_if_modified(|stage| {
            let is_first = *stage < Stage::Retiring;
            *stage = (*stage).max(Stage::Retiring);
            is_first
        });
    }

    /// Asks everybody to stop within `limit`.
    pub(crate) fn start(&self, limit: Duration) {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.asked.limit_ms.store(limit_ms, Ordering::Relaxed);
        self.asked.is_asked.store(true, Ordering::Release);
        self.sender.send_replace(Stage::Stopping);
    }

    /// Returns when all participants have stopped.
    pub(crate) async fn done(&self) {
        self.sender.closed().await;
    }

    /// True when all participants have stopped.
    pub(crate) fn is_done(&self) -> bool {
        self.sender.is_closed()
    }
}

/// What a connection does when it retires.
#[derive(Clone, Copy)]
pub(crate) enum Retires<'a> {
    /// It stops.
    Stops,
    /// It is told so, at its next turn, and goes on until it stops by itself.
    Tells(&'a Guard),
}

impl Draining {
    /// True once a stop was requested.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.is_asked.load(Ordering::Acquire)
    }

    /// True once callers should go elsewhere, or a stop was requested.
    pub(crate) fn is_retiring(&self) -> bool {
        self.asked.is_retiring.load(Ordering::Acquire) || self.is_asked()
    }

    /// How long those who are asked have.
    fn limit(&self) -> Duration {
        Duration::from_millis(self.asked.limit_ms.load(Ordering::Relaxed))
    }

    /// Returns when a stop is requested.
    pub(crate) async fn asked(&mut self) {
        // An error means that the asking side is gone: nobody will wait, but stopping is right.
        let _ = self.receiver.wait_for(|stage| *stage >= Stage::Stopping).await;
    }

    /// Returns when callers should go elsewhere, or the stop was asked for.
    pub(crate) async fn retires(&mut self) {
        // As above.
        let _ = self.receiver.wait_for(|stage| *stage >= Stage::Retiring).await;
    }

    /// Runs `connection` to its end; when the stop is asked for, or `retiring` is ready, `stop` is called once and the connection goes
    /// on to the end that this brings about. Before, `quiet` may have it go on for as long as it was given to stop, or less. One that
    /// can tell its caller to go elsewhere does so when it retires; another one is told, and waits for the stop.
    pub(crate) async fn run<C: Future, Q: Future<Output = ()>>(
        &mut self,
        connection: C,
        retires: Retires<'_>,
        mut retiring: Option<Pin<Box<impl Future<Output = ()>>>>,
        quiet: impl Fn(Option<Duration>) -> Q,
        stop: impl FnOnce(Pin<&mut C>),
    ) -> C::Output {
        let mut connection = pin!(connection);
        let flag = Arc::clone(&self.asked);
        {
            // Boxed, so that the many connections over HTTP/1 do not pay for its size.
            let mut retirement = matches!(retires, Retires::Stops).then(|| {
                let mut draining = self.clone();
                Box::pin(async move { draining.retires().await })
            });
            let mut is_told = false;
            let mut asked = pin!(self.asked());
            let mut is_registered = false;
            let ended = std::future::poll_fn(|cx| {
                // Once is enough: the task keeps its waker, and checking the flag costs only a load.
                if !is_registered {
                    is_registered = true;
                    let _ = asked.as_mut().poll(cx);
                    if let Some(retirement) = &mut retirement {
                        let _ = retirement.as_mut().poll(cx);
                    }
                }
                let is_over = retiring.as_mut().is_some_and(|over| over.as_mut().poll(cx).is_ready());
                let mut stops = is_over;
                if !is_told && flag.is_retiring.load(Ordering::Acquire) {
                    is_told = true;
                    match retires {
                        Retires::Stops => stops = true,
                        Retires::Tells(guard) => {
                            guard.retire();
                            // What woke it used the registration up.
                            let _ = asked.as_mut().poll(cx);
                        }
                    }
                }
                if stops || flag.is_asked.load(Ordering::Acquire) {
                    return Poll::Ready(None);
                }
                connection.as_mut().poll(cx).map(Some)
            })
            .await;
            if let Some(output) = ended {
                return output;
            }
        }
        loop {
            let limit = self.is_asked().then(|| self.limit());
            tokio::select! {
                biased;
                output = connection.as_mut() => return output,
                () = quiet(limit) => break,
                // A retiring connection has longer than one that is to stop.
                () = self.asked(), if limit.is_none() => {}
            }
        }
        stop(connection.as_mut());
        connection.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stop_does_not_wait_as_long_as_a_connection_that_retires_may() {
        let drain = Drain::new();
        let mut draining = drain.join();
        let (told, tells) = tokio::sync::oneshot::channel();
        let serving = tokio::spawn(async move {
            let connection = async { tells.await.unwrap() };
            let retiring = Some(Box::pin(std::future::ready(())));
            let quiet = |limit: Option<Duration>| tokio::time::sleep(limit.unwrap_or(Duration::from_secs(360)));
            draining
                .run(connection, Retires::Stops, retiring, quiet, |_| told.send(()).unwrap())
                .await;
        });
        let begun = tokio::time::Instant::now();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!serving.is_finished());
        drain.start(Duration::from_secs(5));
        serving.await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_secs(6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_cannot_tell_its_caller_goes_on_until_the_stop() {
        let serve = |can_tell: bool, drain: &Drain| {
            let mut draining = drain.join();
            tokio::spawn(async move {
                let (told, tells) = tokio::sync::oneshot::channel();
                let connection = async { tells.await.unwrap() };
                let never = None::<Pin<Box<std::future::Pending<()>>>>;
                let quiet = |_| std::future::ready(());
                let stop = |_: Pin<&mut _>| told.send(()).unwrap();
                let guard = Guard::for_test();
                let retires = if can_tell {
                    Retires::Stops
                } else {
                    Retires::Tells(&guard)
                };
                draining.run(connection, retires, never, quiet, stop).await;
                assert_ne!(guard.is_retiring(), can_tell);
            })
        };
        let drain = Drain::new();
        let (tells, waits) = (serve(true, &drain), serve(false, &drain));
        tokio::time::sleep(Duration::from_secs(1)).await;
        drain.retire();
        tells.await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waits.is_finished() && !drain.is_done());
        drain.start(Duration::ZERO);
        waits.await.unwrap();
        drain.done().await;
    }

    #[test]
    fn done_waits_for_everybody_also_for_those_who_join_late() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let drain = Drain::new();
            let mut first = drain.join();
            drain.start(Duration::ZERO);
            first.asked().await;
            let mut late = drain.join();
            late.asked().await;
            drop(first);
            let waiting = tokio::spawn({
                let drain = drain.clone();
                async move { drain.done().await }
            });
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            drop(late);
            waiting.await.unwrap();
        });
    }
}
