//! Brings the watches over two releases up to date: asks the store for what each of them has not seen, piece by piece.
//!
//! Each pair is watched from both ends: what the release took to serve a request, and what its callers waited for it.
//!
//! Guarantee: when a query fails, every watch stays as far as it came, and the next run goes on from there.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use emberline_model::{Release, Side, alert::Alert, time::seconds_of};
use emberline_storage::{
    QueryError, Range, ReleaseInfo, RequestQuery, ServiceInfo, ServicesQuery, Step, Store, UsualWindowQuery,
    WorkloadFilter, baseline_of,
};

use super::{
    VerdictConfig,
    units::{Served, Settings},
    watching::{PairWatch, Rows},
};

/// Windows are asked for in pieces of so many seconds.
const PIECE_S: i64 = 3_600;
/// Watches of all services. The limits on names let through fewer.
const MOST_WATCHES: usize = 50_000;
/// A caller does not say which instance answered: where more than one in so many of a release's instances is warming up, what its callers
/// measured is taken for warm-up.
const YOUNG_ONE_IN: usize = 20;

/// Two releases of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PairKey {
    pub(super) namespace: String,
    pub(super) service: String,
    pub(super) baseline: String,
    pub(super) candidate: String,
}

impl PairKey {
    pub(super) fn of(service: &ServiceInfo, pair: &Pair) -> PairKey {
        PairKey {
            namespace: service.namespace.clone(),
            service: service.service.clone(),
            baseline: pair.baseline.version.clone(),
            candidate: pair.candidate.version.clone(),
        }
    }

    pub(super) fn of_alert(alert: &Alert) -> PairKey {
        PairKey {
            namespace: alert.namespace.clone(),
            service: alert.service.clone(),
            baseline: alert.baseline.clone(),
            candidate: alert.candidate.clone(),
        }
    }

    fn release(&self, version: &str) -> Release {
        Release {
            namespace: self.namespace.clone(),
            service: self.service.clone(),
            version: version.to_owned(),
        }
    }

    fn who(&self) -> WorkloadFilter {
        WorkloadFilter {
            namespace: Some(self.namespace.clone()),
            ..WorkloadFilter::service(&self.service)
        }
    }
}

/// A baseline and a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) baseline: ReleaseInfo,
    pub(super) candidate: ReleaseInfo,
}

/// The newest release and the one that it replaces.
pub(super) fn newest_pair(service: &ServiceInfo) -> Option<Pair> {
    let candidate = service.releases.first()?;
    let baseline = baseline_of(&service.releases, &candidate.version)?;
    Some(Pair {
        baseline: baseline.clone(),
        candidate: candidate.clone(),
    })
}

/// Two releases by their versions.
pub(super) fn pair_of(service: &ServiceInfo, baseline: &str, candidate: &str) -> Option<Pair> {
    let find = |version: &str| {
        service
            .releases
            .iter()
            .find(|release| release.version == version)
            .cloned()
    };
    Some(Pair {
        baseline: find(baseline)?,
        candidate: find(candidate)?,
    })
}

/// Two releases to judge: since when, and which routes, if not all.
pub(super) struct Wanted {
    pub(super) pair: Pair,
    pub(super) begin: i64,
    pub(super) routes: Option<BTreeSet<String>>,
}

/// Two releases, and the end from which they are watched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WatchKey {
    pub(super) pair: PairKey,
    pub(super) side: Side,
}

/// The watches of all pairs, from both ends.
#[derive(Default)]
pub(super) struct Watches(BTreeMap<WatchKey, PairWatch>);

impl Watches {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&WatchKey, &PairWatch)> {
        self.0.iter()
    }

    /// Drops those of other pairs.
    pub(super) fn keep(&mut self, wanted: &BTreeMap<PairKey, Wanted>) {
        self.0.retain(|key, _| wanted.contains_key(&key.pair));
    }

    /// Whose windows tell what an end of a pair saw: the pair's own, or those of the services that the pair says it was called by.
    fn reporters(&self, key: &WatchKey) -> WorkloadFilter {
        match key.side {
            Side::Server => key.pair.who(),
            Side::Client => {
                let server = WatchKey {
                    side: Side::Server,
                    ..key.clone()
                };
                let callers = self.0.get(&server).map(PairWatch::callers);
                WorkloadFilter::among(callers.unwrap_or_default())
            }
        }
    }

    fn room(&self) -> usize {
        MOST_WATCHES.saturating_sub(self.0.values().map(PairWatch::watches).sum())
    }

    /// Works on one of them off the threads that serve connections.
    async fn work(
        &mut self,
        key: &WatchKey,
        work: impl FnOnce(&mut PairWatch) + Send + 'static,
    ) -> Result<(), QueryError> {
        let Some(mut watch) = self.0.remove(key) else {
            return Ok(());
        };
        let done = tokio::task::spawn_blocking(move || {
            work(&mut watch);
            watch
        });
        let watch = done.await.map_err(|error| QueryError::Internal {
            message: error.to_string(),
        })?;
        self.0.insert(key.clone(), watch);
        Ok(())
    }
}

/// Feeds watches from a store.
pub(super) struct Feeder<'a> {
    pub(super) store: &'a Store,
    pub(super) config: &'a VerdictConfig,
    pub(super) lookback: Duration,
}

impl Feeder<'_> {
    /// Brings the watches over two releases up to date.
    pub(super) async fn feed(
        &self,
        pair: &PairKey,
        wanted: &Wanted,
        to: i64,
        watches: &mut Watches,
    ) -> Result<(), QueryError> {
        let key = |side| WatchKey {
            pair: pair.clone(),
            side,
        };
        let server = key(Side::Server);
        self.feed_side(&server, wanted, to, watches).await?;
        // Who called is known from the server's end.
        match watches.0.get(&server) {
            Some(server) if !server.callers().is_empty() => {
                self.feed_side(&key(Side::Client), wanted, to, watches).await
            }
            _ => Ok(()),
        }
    }

    async fn feed_side(
        &self,
        key: &WatchKey,
        wanted: &Wanted,
        to: i64,
        watches: &mut Watches,
    ) -> Result<(), QueryError> {
        if wanted.begin >= to {
            return Ok(());
        }
        self.prepare(key, wanted, to, watches).await?;
        let left_out = watches.0.get(key).map_or(0, PairWatch::left_out);
        self.feed_stale(key, wanted, to, watches).await?;
        let reporters = watches.reporters(key);
        let mut infos = [wanted.pair.baseline.clone(), wanted.pair.candidate.clone()];
        if let Some(watch) = watches.0.get(key).filter(|watch| watch.fed() == watch.begin()) {
            infos = self.known_since(&key.pair, infos, watch.begin(), to).await?;
        }
        while let Some(watch) = watches.0.get(key)
            && watch.fed() < watch.whole_until(to)
        {
            let (from, end) = (watch.needed_from(), watch.whole_until(to).min(watch.fed() + PIECE_S));
            let (step, route) = (watch.step(), watch.only_route());
            let rows = self.rows(key, &reporters, &infos, (from, end), step, route).await?;
            let (config, room) = (self.config.clone(), watches.room());
            watches
                .work(key, move |watch| watch.take(&rows, end, room, &config))
                .await?;
            self.feed_stale(key, wanted, to, watches).await?;
        }
        if watches.0.get(key).is_some_and(|watch| watch.left_out() > left_out) {
            tracing::warn!(
                service = key.pair.service,
                "too many routes and callers to watch; the others are not judged"
            );
        }
        Ok(())
    }

    /// Makes a watch where there is none that serves.
    async fn prepare(&self, key: &WatchKey, wanted: &Wanted, to: i64, watches: &mut Watches) -> Result<(), QueryError> {
        let recent_s = to.saturating_sub(seconds_of(self.lookback)).max(wanted.begin);
        let reporters = watches.reporters(key);
        // Windows of SDKs are longer than ours and begin whenever the process did: both releases are judged by the same
        // stretches of time, long enough for a window of either.
        let step_since = async |from_unix_s| {
            let range = Range {
                from_unix_s,
                to_unix_s: to,
            };
            let who = reporters.clone();
            let usual = self.store.ask(UsualWindowQuery { who, range }).await?;
            Ok::<i64, QueryError>(i64::from(Step::holding_s(usual.length_s)))
        };
        let serves = match watches.0.get(key) {
            Some(known) => known.serves(wanted.begin, step_since(recent_s).await?, wanted.routes.as_ref()),
            None => false,
        };
        if !serves {
            let step = step_since(wanted.begin).await?;
            let watch = PairWatch::new(
                wanted.begin,
                step,
                wanted.routes.clone(),
                Settings::of(self.config, key.side),
            );
            watches.0.insert(key.clone(), watch);
        }
        if let Some(watch) = watches.0.get_mut(key) {
            watch.narrow(wanted.routes.clone());
        }
        Ok(())
    }

    /// Feeds the routes again that have to be.
    async fn feed_stale(
        &self,
        key: &WatchKey,
        wanted: &Wanted,
        to: i64,
        watches: &mut Watches,
    ) -> Result<(), QueryError> {
        let reporters = watches.reporters(key);
        let mut infos = None;
        while let Some(watch) = watches.0.get(key)
            && let Some((route, from)) = watch.stale()
        {
            let infos = match &infos {
                Some(infos) => infos,
                None => {
                    let recent = [wanted.pair.baseline.clone(), wanted.pair.candidate.clone()];
                    infos.insert(self.known_since(&key.pair, recent, watch.begin(), to).await?)
                }
            };
            let end = watch.fed().min(from + PIECE_S);
            let rows = self
                .rows(key, &reporters, infos, (from, end), watch.step(), Some(route))
                .await?;
            let (config, room, route) = (self.config.clone(), watches.room(), route.to_owned());
            watches
                .work(key, move |watch| watch.feed_again(&route, &rows, end, room, &config))
                .await?;
        }
        Ok(())
    }

    /// Two releases with all their processes since a second, where they were asked for since a later one.
    async fn known_since(
        &self,
        key: &PairKey,
        infos: [ReleaseInfo; 2],
        from_unix_s: i64,
        to: i64,
    ) -> Result<[ReleaseInfo; 2], QueryError> {
        let range = Range {
            from_unix_s,
            to_unix_s: to,
        };
        let query = ServicesQuery {
            who: key.who(),
            ..ServicesQuery::new(range)
        };
        let services = self.store.ask(query).await?.services;
        let pair = services
            .first()
            .and_then(|service| pair_of(service, &key.baseline, &key.candidate));
        Ok(pair.map_or(infos, |pair| [pair.baseline, pair.candidate]))
    }

    /// Requests that both releases served, or that were made to them, by window, caller and route.
    async fn rows(
        &self,
        key: &WatchKey,
        reporters: &WorkloadFilter,
        infos: &[ReleaseInfo; 2],
        (from_unix_s, to_unix_s): (i64, i64),
        step_s: i64,
        route: Option<&str>,
    ) -> Result<Rows, QueryError> {
        let mut rows = Rows::default();
        for (rows, info) in rows.iter_mut().zip(infos) {
            let range = Range { from_unix_s, to_unix_s };
            let release = key.pair.release(&info.version);
            let query = RequestQuery {
                side: Some(key.side),
                step: Step::Seconds(u32::try_from(step_s).unwrap_or(u32::MAX)),
                route: route.map(str::to_owned),
                ..RequestQuery::new(reporters.clone(), range)
            };
            let query = match key.side {
                Side::Server => RequestQuery {
                    who: WorkloadFilter::release(&release),
                    warm_until_s: self.warm_until_s(info, from_unix_s),
                    ..query
                },
                Side::Client => RequestQuery {
                    source: Some(release),
                    ..query
                },
            };
            // What callers gave up says how patient they were, not how slow the release is.
            let answered = self
                .store
                .ask(query)
                .await?
                .into_iter()
                .filter(|row| !row.is_given_up());
            let mut young: BTreeMap<i64, bool> = BTreeMap::new();
            let mut is_young = |window| *young.entry(window).or_insert_with(|| self.is_young(info, window));
            rows.extend(answered.map(|row| Served {
                window: row.window_start_s,
                warming: match key.side {
                    Side::Server => row.warming,
                    Side::Client => is_young(row.window_start_s),
                },
                source: match key.side {
                    Side::Server => row.peer,
                    Side::Client => Some(row.reporter),
                },
                route: row.route,
                error: row.error,
                duration: row.duration,
            }));
        }
        Ok(rows)
    }

    /// Whether a release has so many instances that are warming up that its callers notice.
    fn is_young(&self, info: &ReleaseInfo, window: i64) -> bool {
        let warm_up = seconds_of(self.config.warm_up);
        let known = info.instances_since_s.iter().filter(|since_s| **since_s <= window);
        let (all, young) = known.fold((0, 0), |(all, young), since_s| {
            (all + 1, young + usize::from(window < since_s + warm_up))
        });
        young * YOUNG_ONE_IN > all
    }

    /// Until when each instance that is young in a range warms up.
    fn warm_until_s(&self, info: &ReleaseInfo, from: i64) -> BTreeMap<String, i64> {
        let warm_up = seconds_of(self.config.warm_up);
        let until = info.instances_since_s.iter().map(|since_s| since_s + warm_up);
        let instances = info.instances.iter().cloned().zip(until);
        instances.filter(|(_, until_s)| *until_s > from).collect()
    }
}
