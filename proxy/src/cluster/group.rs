//! What all workers together know about the endpoints of a listener's service: which are fit, and which are ejected
//! (outlier ejection, passive health checking).
//!
//! Guarantees: `consecutive_errors` at one endpoint, in any workers, eject it; never more than `max_ejected_percent` of
//! the endpoints, and never the last one; what is known survives a reload.
//!
//! Wrong on purpose: success rates of endpoints are not compared. That a release fails more often than another is for
//! verdicts to state, with their false-alarm rate.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Weak},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::health::Health;
use crate::{
    config::{HealthConfig, OutlierConfig},
    counters::Counters,
    tls::Outbound,
};

/// How endpoints are monitored.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Watch {
    pub(crate) outlier: Option<OutlierConfig>,
    pub(crate) check: Option<HealthConfig>,
}

/// The longest ejection, as a multiple of the first one.
const LONGEST: u32 = 10;

/// The endpoints of one service of a listener.
#[derive(Debug)]
pub(crate) struct Group {
    service: String,
    /// How connections to them are secured.
    tls: Option<Arc<Outbound>>,
    watch: ArcSwap<Watch>,
    members: Mutex<HashMap<SocketAddr, Weak<Health>>>,
    /// A task is checking the endpoints as [`Watch::check`] says.
    is_checked: Mutex<bool>,
    counters: Arc<Counters>,
}

impl Group {
    pub(crate) fn new(service: &str, tls: Option<Arc<Outbound>>, watch: Watch, counters: &Arc<Counters>) -> Arc<Group> {
        Arc::new(Group {
            service: service.to_owned(),
            tls,
            watch: ArcSwap::from_pointee(watch),
            members: Mutex::default(),
            is_checked: Mutex::new(false),
            counters: Arc::clone(counters),
        })
    }

    pub(super) fn service(&self) -> &str {
        &self.service
    }

    /// How connections to them are secured.
    pub(super) fn tls(&self) -> Option<&Arc<Outbound>> {
        self.tls.as_ref()
    }

    fn has_tls_of(&self, tls: Option<&Arc<Outbound>>) -> bool {
        self.tls.as_ref().map(Arc::as_ptr) == tls.map(Arc::as_ptr)
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// All endpoints that any worker has.
    pub(super) fn members(&self) -> Vec<(SocketAddr, Arc<Health>)> {
        let members = self.members.lock();
        members
            .iter()
            .filter_map(|(at, health)| Some((*at, health.upgrade()?)))
            .collect()
    }

    /// How endpoints are to be checked.
    pub(super) fn check_config(&self) -> Option<HealthConfig> {
        self.watch.load().check.clone()
    }

    /// The same for the checking task; once it gets `None`, it has to stop.
    pub(super) fn wanted_check(&self) -> Option<HealthConfig> {
        let mut is_checked = self.is_checked.lock();
        let config = self.check_config();
        if config.is_none() {
            *is_checked = false;
            self.members().iter().for_each(|(_, health)| health.forget_checks());
        }
        config
    }

    /// Whether a checking task has to be started.
    fn begins_checks(&self) -> bool {
        let mut is_checked = self.is_checked.lock();
        let begins = self.check_config().is_some() && !*is_checked;
        *is_checked |= begins;
        begins
    }

    /// The health of an address.
    pub(super) fn health(&self, at: SocketAddr) -> Arc<Health> {
        let mut members = self.members.lock();
        if let Some(known) = members.get(&at).and_then(Weak::upgrade) {
            return known;
        }
        members.retain(|_, health| health.strong_count() > 0);
        let health = Arc::new(Health::default());
        members.insert(at, Arc::downgrade(&health));
        health
    }

    /// An endpoint responded successfully.
    pub(super) fn succeeded(&self, at: SocketAddr, health: &Health) {
        if health.succeeded() {
            tracing::info!(service = self.service, endpoint = %at, "ejected endpoint has recovered");
        }
    }

    /// An endpoint failed: no connection, no response, or a response with an error.
    pub(super) fn failed(&self, at: SocketAddr, health: &Health) {
        let watch = self.watch.load();
        let Some(outlier) = &watch.outlier else { return };
        if !health.is_outlier_after_error(outlier.consecutive_errors) {
            return;
        }
        let members = self.members();
        let others = members
            .iter()
            .filter(|(_, other)| !std::ptr::eq(Arc::as_ptr(other), health));
        let others: Vec<bool> = others.map(|(_, other)| other.is_ejected()).collect();
        let away = others.iter().filter(|is_ejected| **is_ejected).count();
        let most = (others.len() + 1) * outlier.max_ejected_percent as usize / 100;
        if away == others.len() || away + 1 > most {
            self.counters.ejections_withheld.add();
            return;
        }
        let base = outlier.base_ejection();
        let time = health.eject(
            base,
            base.saturating_mul(LONGEST),
            self.counters.endpoints_ejected.one(),
        );
        self.counters.ejections.add();
        tracing::warn!(
            service = self.service, endpoint = %at, seconds = time.as_secs_f64(),
            "endpoint ejected after consecutive errors"
        );
    }
}

/// Groups whose endpoints are to be health-checked.
#[derive(Debug)]
pub(crate) struct ToCheck(mpsc::UnboundedReceiver<Weak<Group>>);

impl ToCheck {
    pub(super) async fn next(&mut self) -> Option<Weak<Group>> {
        self.0.recv().await
    }
}

/// The groups of a process, by address of the listener and service.
#[derive(Debug)]
pub(crate) struct Groups {
    known: Mutex<HashMap<(SocketAddr, String), Weak<Group>>>,
    added: mpsc::UnboundedSender<Weak<Group>>,
    counters: Arc<Counters>,
}

impl Groups {
    /// The groups, and the receiver of those to be health-checked.
    pub(crate) fn new(counters: Arc<Counters>) -> (Groups, ToCheck) {
        let (added, receiver) = mpsc::unbounded_channel();
        let groups = Groups {
            known: Mutex::default(),
            added,
            counters,
        };
        (groups, ToCheck(receiver))
    }

    /// The group of a listener, monitored in this way from now on. With different TLS it is another group, with
    /// connections of its own.
    pub(crate) fn group(
        &self,
        listen: SocketAddr,
        service: &str,
        tls: Option<&Arc<Outbound>>,
        watch: &Watch,
    ) -> Arc<Group> {
        let mut known = self.known.lock();
        let key = (listen, service.to_owned());
        let group = match known
            .get(&key)
            .and_then(Weak::upgrade)
            .filter(|group| group.has_tls_of(tls))
        {
            Some(group) => {
                if **group.watch.load() != *watch {
                    group.watch.store(Arc::new(watch.clone()));
                }
                group
            }
            None => {
                known.retain(|_, group| group.strong_count() > 0);
                let group = Group::new(service, tls.cloned(), watch.clone(), &self.counters);
                known.insert(key, Arc::downgrade(&group));
                group
            }
        };
        if group.begins_checks() {
            // The receiver exists until the process ends.
            let _ = self.added.send(Arc::downgrade(&group));
        }
        group
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BASE: Duration = Duration::from_secs(30);

    struct Endpoints {
        group: Arc<Group>,
        all: Vec<(SocketAddr, Arc<Health>)>,
    }

    impl Endpoints {
        fn new(n: u8) -> Endpoints {
            let outlier = OutlierConfig::default();
            let watch = Watch {
                outlier: Some(outlier),
                check: None,
            };
            let group = Group::new("shop", None, watch, &Arc::default());
            let endpoint = |last| {
                let at = SocketAddr::from(([127, 0, 0, last], 80));
                (at, group.health(at))
            };
            let all = (0..n).map(endpoint).collect();
            Endpoints { group, all }
        }

        fn fail(&self, at: usize, times: usize) {
            (0..times).for_each(|_| self.group.failed(self.all[at].0, &self.all[at].1));
        }

        fn succeed(&self, at: usize) {
            self.group.succeeded(self.all[at].0, &self.all[at].1);
        }

        fn fit(&self) -> Vec<bool> {
            self.all.iter().map(|(_, health)| health.is_fit()).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn five_errors_in_a_row_eject_and_a_success_between_them_does_not() {
        let endpoints = Endpoints::new(2);
        endpoints.fail(0, 4);
        endpoints.succeed(0);
        endpoints.fail(0, 4);
        assert_eq!(endpoints.fit(), [true, true]);
        endpoints.fail(0, 1);
        assert_eq!(endpoints.fit(), [false, true]);
        assert_eq!(endpoints.group.counters.ejections.get(), 1);
        assert!(Arc::ptr_eq(
            &endpoints.all[0].1,
            &endpoints.group.health(endpoints.all[0].0)
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn never_the_last_one_and_never_more_than_the_share() {
        let alone = Endpoints::new(1);
        alone.fail(0, 100);
        assert_eq!(alone.fit(), [true]);
        assert_eq!(alone.group.counters.ejections_withheld.get(), 96);
        let five = Endpoints::new(5);
        (0..5).for_each(|at| five.fail(at, 10));
        assert_eq!(five.fit(), [false, false, true, true, true], "half of five is two");
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_time_is_over_one_request_decides() {
        let endpoints = Endpoints::new(2);
        endpoints.fail(0, 5);
        let health = &endpoints.all[0].1;
        // A response in flight at the time of its ejection decides nothing.
        endpoints.succeed(0);
        endpoints.fail(0, 5);
        assert!(!health.is_fit());
        tokio::time::advance(BASE).await;
        assert!(health.is_fit());
        health.chosen();
        assert!(!health.is_fit(), "one at a time");
        endpoints.fail(0, 1);
        tokio::time::advance(BASE).await;
        assert!(!health.is_fit(), "the second time is twice as long");
        tokio::time::advance(BASE).await;
        health.chosen();
        endpoints.succeed(0);
        assert!(health.is_fit() && !health.is_ejected());
        // A probe that never ends does not keep it out.
        endpoints.fail(0, 5);
        tokio::time::advance(3 * BASE).await;
        health.chosen();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(health.is_fit());
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_setting_nobody_is_ejected_and_a_reload_sets_it() {
        let (groups, _) = Groups::new(Arc::default());
        let watched = Watch {
            outlier: Some(OutlierConfig::default()),
            check: None,
        };
        let listen = ([127, 0, 0, 1], 1).into();
        let group = groups.group(listen, "shop", None, &Watch::default());
        let (at, other) = (([127, 0, 0, 1], 2).into(), ([127, 0, 0, 1], 3).into());
        let (health, _other) = (group.health(at), group.health(other));
        (0..10).for_each(|_| group.failed(at, &health));
        assert!(health.is_fit());
        assert!(Arc::ptr_eq(&group, &groups.group(listen, "shop", None, &watched)));
        (0..5).for_each(|_| group.failed(at, &health));
        assert!(!health.is_fit());
    }
}
