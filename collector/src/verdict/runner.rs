//! The runner: asks the store, judges, and publishes the alerts.
//!
//! One file because a run is one sequence: what it asks the store for depends on what the watches hold, and both on which alerts are
//! open. What is pure of it stands in `watching`, `units`, `folding` and `alerts`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use emberline_model::{
    Release, Side,
    alert::{Alert, AlertStatus, AlertsBoard},
    time::{Clock, WINDOW_S, seconds_of, window_start},
};
use emberline_storage::{
    QueryError, Range, ReleaseInfo, RequestQuery, ServiceInfo, ServicesQuery, Step, Store, UsualWindowQuery,
    WorkloadFilter, baseline_of,
};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use super::{
    VerdictConfig, alerts,
    evidence::{self, Ranges, Remembered, RememberedLatency},
    folding::{self, AlertKey, Failing, Slow, Traffic},
    units::{Served, Settings},
    watching::{PairWatch, Rows},
};
use crate::{
    alert_book::{self, AlertBook},
    self_metrics::SelfMetrics,
};

/// The runner rests this many times as long as it worked.
const REST: u32 = 9;
/// For so long after a start nothing ends, in milliseconds: senders deliver what they kept meanwhile.
const HOLD_MS: i64 = 60_000;
/// A watch gathers evidence for so long, in seconds, then it begins anew: what it needs after a restart has an end.
const EPOCH_S: i64 = 86_400;
/// After a restart an open alert is judged from at most so many seconds ago.
const LONGEST_S: i64 = 2 * EPOCH_S;
/// Windows are asked for in pieces of so many seconds.
const PIECE_S: i64 = 3_600;
/// Watches of all services. The limits on names let through fewer.
const MOST_WATCHES: usize = 50_000;
/// A store that is further behind than this is not judged.
const CATCH_UP: Duration = Duration::from_secs(20);

/// Judges, on a schedule and on demand.
pub(crate) struct VerdictRunner {
    pub(crate) book: AlertBook,
    /// When this process began.
    pub(crate) started_ms: i64,
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: VerdictConfig,
    pub(crate) lookback: Duration,
    pub(crate) board: AlertsBoard,
    pub(crate) publish: watch::Sender<Arc<Vec<Alert>>>,
    pub(crate) metrics: SelfMetrics,
    pub(crate) memory: Mutex<Memory>,
}

/// How much a run judged.
#[derive(Debug, Clone, Copy, Default)]
struct Extent {
    /// Sources, services and routes.
    units: u64,
    /// Windows of theirs that are in a verdict.
    windows: u64,
}

/// What is kept between runs; without it a run comes to the same alerts, only slower.
#[derive(Default)]
pub(crate) struct Memory {
    evidence: Remembered,
    failing: RememberedLatency,
    watches: BTreeMap<PairKey, PairWatch>,
}

/// Two releases of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct PairKey {
    namespace: String,
    service: String,
    baseline: String,
    candidate: String,
}

impl PairKey {
    fn of(service: &ServiceInfo, pair: &Pair) -> PairKey {
        PairKey {
            namespace: service.namespace.clone(),
            service: service.service.clone(),
            baseline: pair.baseline.version.clone(),
            candidate: pair.candidate.version.clone(),
        }
    }

    fn of_alert(alert: &Alert) -> PairKey {
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

/// Two releases to judge: since when, and which routes, if not all.
struct Wanted {
    pair: Pair,
    begin: i64,
    routes: Option<BTreeSet<String>>,
}

impl VerdictRunner {
    /// Runs after each window until cancelled.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let begun = Instant::now();
            if let Err(error) = self.judge().await {
                tracing::warn!("verdict run failed; the windows are judged in the next run: {error}");
            }
            let pause = self.until_next_window().max(begun.elapsed() * REST);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Time until the batches of the window that is open now should be there.
    fn until_next_window(&self) -> Duration {
        let now_ms = self.clock.now_unix_ms();
        let grace_ms = i64::try_from(self.config.grace.as_millis()).unwrap_or(i64::MAX / 4);
        let end_ms = (window_start((now_ms - grace_ms).div_euclid(1000)) + WINDOW_S) * 1000;
        let wait = (end_ms + grace_ms - now_ms).clamp(50, 2 * WINDOW_S * 1000);
        Duration::from_millis(wait.unsigned_abs())
    }

    /// Judges all complete windows and publishes the alerts.
    pub(crate) async fn judge(&self) -> Result<Vec<Alert>, QueryError> {
        let mut memory = self.memory.lock().await;
        let begun = Instant::now();
        let grace_s = seconds_of(self.config.grace);
        let to = window_start(self.clock.now_unix_s() - grace_s);
        let mut judged = Extent::default();
        // What was accepted and cannot be seen yet would be taken for silence.
        let caught_up = tokio::time::timeout(CATCH_UP, self.store.flush_applied()).await;
        let result = match caught_up {
            Ok(Ok(())) => self.judge_until(to, &mut memory, &mut judged).await,
            Ok(Err(error)) => Err(error),
            Err(_) => Err(QueryError::Unavailable {
                message: "the store is catching up with accepted data".to_owned(),
            }),
        };
        let outcome = if result.is_ok() { "done" } else { "failed" };
        self.metrics
            .verdict_run(outcome, begun.elapsed().as_secs_f64(), judged.units, judged.windows);
        let alerts = result?;
        for (state, name) in [
            (AlertStatus::Suspected, "suspected"),
            (AlertStatus::Firing, "firing"),
            (AlertStatus::Recovering, "recovering"),
            (AlertStatus::Resolved, "resolved"),
        ] {
            self.metrics
                .alerts(name, alerts.iter().filter(|a| a.state == state).count());
        }
        self.board.replace(alerts.clone());
        self.publish.send_replace(Arc::new(alerts.clone()));
        Ok(alerts)
    }

    async fn judge_until(&self, to: i64, memory: &mut Memory, judged: &mut Extent) -> Result<Vec<Alert>, QueryError> {
        let recent_from = to.saturating_sub(seconds_of(self.lookback)).max(0);
        if recent_from >= to {
            return Ok(Vec::new());
        }
        let open = self.book.open_alerts();
        // The windows an alert was stated from stay part of its judgement, so that it ends by what it shows and not by
        // what is forgotten.
        let oldest = to.saturating_sub(seconds_of(self.config.watch));
        let begins = |alert: &Alert| {
            let stated_from = (alert.started_ms / 1000).saturating_sub(seconds_of(self.lookback));
            stated_from.max(oldest).clamp(0, recent_from)
        };
        let range = Range {
            from_unix_s: open.iter().map(begins).min().unwrap_or(recent_from),
            to_unix_s: to,
        };
        let services = self.store.ask(ServicesQuery::new(range)).await?.services;
        let wanted = self.wanted(&services, &open, recent_from, to);
        memory.watches.retain(|key, _| wanted.contains_key(key));
        for (key, one) in &wanted {
            self.watch(key, one, to, memory).await?;
        }
        let open: BTreeSet<AlertKey> = open.iter().map(AlertKey::of).collect();
        let mut found = Found::default();
        for (key, watch) in &memory.watches {
            judged.units += watch.watches() as u64;
            judged.windows += watch.units().map(|(_, unit)| unit.windows_used()).sum::<u64>();
            let is_newest = wanted.get(key).is_some_and(|one| one.routes.is_none());
            let mut of_pair = Found::of(key, watch);
            if !is_newest {
                // Of two releases of which none is new, what is told already is judged and nothing else.
                of_pair.slow.retain(|one| open.contains(&one.key()));
                of_pair.failing.retain(|one| open.contains(&one.key()));
            }
            found.add(of_pair);
        }
        let failing = folding::one_failing_per_route(found.failing);
        let slow = folding::one_per_route(found.slow);
        let found: BTreeSet<AlertKey> = slow.iter().map(Slow::key).collect();
        let traffic = self.traffic(&slow, recent_from, to).await?;
        let slow = folding::fold_callers(slow, &traffic);
        let mut alerts = Vec::new();
        let mut remembered = Remembered::new();
        for one in &slow {
            let (most, reference) = (self.config.evidence_windows, self.config.latency.reference_windows);
            let Some(ranges) = Ranges::of(one, to, most, reference) else {
                continue;
            };
            // Evidence stands when its windows are all there and have names.
            let known = memory
                .evidence
                .remove(&one.id())
                .filter(|e| e.ranges == ranges && !e.is_incomplete());
            let evidence = match known {
                Some(evidence) => evidence,
                None => evidence::collect(&self.store, &self.config.own_code, one, ranges).await?,
            };
            let waiting = evidence.is_incomplete() && self.may_wait(one, to);
            alerts.extend(
                alerts::assemble(one, &evidence, waiting).map(|alert| alert_book::Judged {
                    changed_ms: one.judged.state.changed_at.map_or(alert.started_ms, |at| at * 1000),
                    alert,
                }),
            );
            remembered.insert(one.id(), evidence);
        }
        memory.evidence = remembered;
        let mut remembered = RememberedLatency::new();
        for one in &failing {
            let Some(range) = one.range(to, self.config.evidence_windows) else {
                continue;
            };
            let known = memory.failing.remove(&one.id()).filter(|(of, _)| *of == range);
            let latency = match known {
                Some((_, latency)) => latency,
                None => evidence::latency_of_failing(&self.store, one, range).await?,
            };
            alerts.extend(
                alerts::assemble_failing(one, &latency, range).map(|alert| alert_book::Judged {
                    changed_ms: one.state.changed_at.map_or(alert.started_ms, |at| at * 1000),
                    alert,
                }),
            );
            remembered.insert(one.id(), (range, latency));
        }
        memory.failing = remembered;
        // What senders could not deliver while this process was away is not silence.
        let hold = self.clock.now_unix_ms() < self.started_ms.saturating_add(HOLD_MS);
        let why = |alert: &Alert| why_over(alert, &services, &found);
        let mut alerts = self.book.reconcile(alerts, to * 1000, hold, why);
        self.book.save().await;
        alerts.sort_by(|a, b| b.started_ms.cmp(&a.started_ms).then_with(|| a.id.cmp(&b.id)));
        Ok(alerts)
    }

    /// The two newest releases of each service, and those of alerts that are open.
    fn wanted(&self, services: &[ServiceInfo], open: &[Alert], recent_from: i64, to: i64) -> BTreeMap<PairKey, Wanted> {
        let mut wanted = BTreeMap::new();
        for service in services {
            let of_service =
                |alert: &&Alert| (&alert.namespace, &alert.service) == (&service.namespace, &service.service);
            let alerts: Vec<&Alert> = open.iter().filter(of_service).collect();
            let mut add = |pair: Pair, routes: Option<BTreeSet<String>>| {
                let key = PairKey::of(service, &pair);
                let of_pair = alerts.iter().filter(|alert| PairKey::of_alert(alert) == key);
                let begin = self.begin(&pair, of_pair.map(|alert| alert.started_ms / 1000).min(), to);
                wanted.entry(key).or_insert(Wanted { pair, begin, routes });
            };
            let mut recent = service.clone();
            recent.releases.retain(|release| release.last_seen_s > recent_from);
            if let Some(pair) = newest_pair(&recent) {
                // As it is known over all of the time that was asked for.
                let known = pair_of(service, &pair.baseline.version, &pair.candidate.version);
                add(known.unwrap_or(pair), None);
            }
            for alert in &alerts {
                let same = |other: &&&Alert| PairKey::of_alert(other) == PairKey::of_alert(alert);
                let routes = alerts.iter().filter(same).map(|other| other.route.clone()).collect();
                if let Some(pair) = pair_of(service, &alert.baseline, &alert.candidate) {
                    add(pair, Some(routes));
                }
            }
        }
        wanted
    }

    /// Where a watch begins: with the epoch in which the oldest open alert was stated, or else with the present one; epochs are
    /// counted from the candidate's beginning, so that a restart begins where it began before. The baseline's windows before are
    /// the reference.
    fn begin(&self, pair: &Pair, stated_s: Option<i64>, to: i64) -> i64 {
        let first_s = pair.candidate.first_seen_s;
        let first_s = if first_s < to {
            first_s
        } else {
            pair.candidate.first_window_s
        };
        let from = stated_s.unwrap_or(to).clamp(to - LONGEST_S, to);
        let epoch = (from - first_s).div_euclid(EPOCH_S).max(0);
        let lead = i64::try_from(self.config.latency.reference_windows)
            .unwrap_or(i64::MAX / 4)
            .saturating_mul(WINDOW_S);
        let begin = (first_s + epoch * EPOCH_S).saturating_sub(lead).max(0);
        begin - begin.rem_euclid(WINDOW_S)
    }

    /// Brings the watches over two releases up to date.
    async fn watch(&self, key: &PairKey, wanted: &Wanted, to: i64, memory: &mut Memory) -> Result<(), QueryError> {
        if wanted.begin >= to {
            return Ok(());
        }
        let routes = wanted.routes.as_ref();
        let known = memory.watches.remove(key);
        let recent_s = to.saturating_sub(seconds_of(self.lookback)).max(wanted.begin);
        // Windows of SDKs are longer than ours and begin whenever the process did: both releases are judged by the same
        // stretches of time, long enough for a window of either.
        let step_since = async |from_unix_s| {
            let range = Range {
                from_unix_s,
                to_unix_s: to,
            };
            let usual = self.store.ask(UsualWindowQuery { who: key.who(), range }).await?;
            Ok::<i64, QueryError>(i64::from(Step::holding_s(usual.length_s)))
        };
        let mut watch = match known {
            Some(known) if known.serves(wanted.begin, step_since(recent_s).await?, routes) => known,
            _ => {
                let step = step_since(wanted.begin).await?;
                PairWatch::new(wanted.begin, step, wanted.routes.clone(), Settings::of(&self.config))
            }
        };
        watch.narrow(wanted.routes.clone());
        let others: usize = memory.watches.values().map(PairWatch::watches).sum();
        let end = watch.whole_until(to);
        let mut infos = [wanted.pair.baseline.clone(), wanted.pair.candidate.clone()];
        if watch.fed() == watch.begin() {
            infos = self.known_since(key, infos, watch.begin(), to).await?;
        }
        let left_out = watch.left_out();
        while watch.fed() < end {
            let (from, piece_end) = (watch.needed_from(), end.min(watch.fed() + PIECE_S));
            let only = watch.only_route().map(str::to_owned);
            let rows = match self
                .rows(key, &infos, (from, piece_end), watch.step(), only.as_deref())
                .await
            {
                Ok(rows) => rows,
                Err(error) => {
                    // It stands as it stood, and goes on from there.
                    memory.watches.insert(key.clone(), watch);
                    return Err(error);
                }
            };
            let room = MOST_WATCHES.saturating_sub(others + watch.watches());
            let (config, mut taken) = (self.config.clone(), watch);
            let (taken, stale) = on_a_thread(move || {
                let stale = taken.take(&rows, piece_end, room, &config);
                (taken, stale)
            })
            .await?;
            watch = taken;
            for route in stale {
                let infos = self.known_since(key, infos.clone(), watch.begin(), to).await?;
                watch = self.feed_again(key, &infos, watch, &route, others).await?;
            }
        }
        if watch.left_out() > left_out {
            tracing::warn!(
                service = key.service,
                "too many routes and callers to watch; the others are not judged"
            );
        }
        memory.watches.insert(key.clone(), watch);
        Ok(())
    }

    /// Feeds a route from the beginning.
    async fn feed_again(
        &self,
        key: &PairKey,
        infos: &[ReleaseInfo; 2],
        mut watch: PairWatch,
        route: &str,
        others: usize,
    ) -> Result<PairWatch, QueryError> {
        loop {
            watch.forget(route);
            let (mut from, end, mut is_stale) = (watch.begin(), watch.fed(), false);
            while from < end && !is_stale {
                let to = end.min(from + PIECE_S);
                let rows = self.rows(key, infos, (from, to), watch.step(), Some(route)).await?;
                let room = MOST_WATCHES.saturating_sub(others + watch.watches());
                let (config, route) = (self.config.clone(), route.to_owned());
                (watch, is_stale) = on_a_thread(move || {
                    let is_stale = watch.feed_again(&route, &rows, (from, to), room, &config);
                    (watch, is_stale)
                })
                .await?;
                from = to;
            }
            if !is_stale {
                return Ok(watch);
            }
        }
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

    /// True while an alert may wait for names.
    fn may_wait(&self, slow: &Slow, to: i64) -> bool {
        let limit = seconds_of(self.config.wait_for_symbols);
        slow.judged
            .verdict
            .fired_at_window
            .is_some_and(|fired| to < fired + WINDOW_S + limit)
    }

    /// Requests that both releases served, by window, caller and route.
    async fn rows(
        &self,
        key: &PairKey,
        infos: &[ReleaseInfo; 2],
        (from_unix_s, to_unix_s): (i64, i64),
        step_s: i64,
        route: Option<&str>,
    ) -> Result<Rows, QueryError> {
        let mut rows = Rows::default();
        for (rows, info) in rows.iter_mut().zip(infos) {
            let range = Range { from_unix_s, to_unix_s };
            let query = RequestQuery {
                side: Some(Side::Server),
                step: Step::Seconds(u32::try_from(step_s).unwrap_or(u32::MAX)),
                route: route.map(str::to_owned),
                warm_until_s: self.warm_until_s(info, from_unix_s),
                ..RequestQuery::new(WorkloadFilter::release(&key.release(&info.version)), range)
            };
            // What callers gave up says how patient they were, not how slow the release is.
            let answered = self
                .store
                .ask(query)
                .await?
                .into_iter()
                .filter(|row| !row.is_given_up());
            rows.extend(answered.map(|row| Served {
                window: row.window_start_s,
                source: row.peer,
                route: row.route,
                warming: row.warming,
                error: row.error,
                duration: row.duration,
            }));
        }
        Ok(rows)
    }

    /// Who called whom in the newest hour, as far as it says which of several slow services are slow because of another.
    async fn traffic(&self, slow: &[Slow], from_unix_s: i64, to: i64) -> Result<Traffic, QueryError> {
        let mut traffic = Traffic::default();
        let releases: BTreeSet<Release> = slow
            .iter()
            .filter(|one| one.is_active())
            .map(|one| one.release(&one.candidate))
            .collect();
        if releases.len() < 2 {
            return Ok(traffic);
        }
        for release in releases {
            let range = Range {
                from_unix_s,
                to_unix_s: to,
            };
            let query = RequestQuery {
                side: Some(Side::Server),
                step: Step::Seconds(60),
                ..RequestQuery::new(WorkloadFilter::release(&release), range)
            };
            for row in self.store.ask(query).await?.iter().filter(|row| !row.is_given_up()) {
                let requests = row.duration.count();
                traffic.add(&release, &row.route, row.peer.as_ref(), row.window_start_s, requests);
            }
        }
        Ok(traffic)
    }

    /// Until when each instance that is young in a range warms up.
    fn warm_until_s(&self, info: &ReleaseInfo, from: i64) -> BTreeMap<String, i64> {
        let warm_up = seconds_of(self.config.warm_up);
        let until = info.instances_since_s.iter().map(|since_s| since_s + warm_up);
        let instances = info.instances.iter().cloned().zip(until);
        instances.filter(|(_, until_s)| *until_s > from).collect()
    }
}

/// What is worse in candidates than in their baselines.
#[derive(Default)]
struct Found {
    slow: Vec<Slow>,
    failing: Vec<Failing>,
}

impl Found {
    fn of(key: &PairKey, watch: &PairWatch) -> Found {
        let mut found = Found::default();
        for (unit, of) in watch.units() {
            found.slow.extend(of.slow(unit).map(|judged| Slow {
                namespace: key.namespace.clone(),
                service: key.service.clone(),
                baseline: key.baseline.clone(),
                candidate: key.candidate.clone(),
                judged,
                folded: Vec::new(),
            }));
            found
                .failing
                .extend(of.failing().map(|(verdict, state, newest)| Failing {
                    namespace: key.namespace.clone(),
                    service: key.service.clone(),
                    baseline: key.baseline.clone(),
                    candidate: key.candidate.clone(),
                    unit: unit.clone(),
                    apart: match unit.source {
                        Some(_) => Vec::new(),
                        None => watch.apart(&unit.route),
                    },
                    verdict,
                    state,
                    newest,
                }));
        }
        found
    }

    fn add(&mut self, other: Found) {
        self.slow.extend(other.slow);
        self.failing.extend(other.failing);
    }
}

/// Runs what takes a while off the threads that serve connections.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, QueryError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| QueryError::Internal {
        message: error.to_string(),
    })
}

/// A baseline and a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pair {
    baseline: ReleaseInfo,
    candidate: ReleaseInfo,
}

/// The newest release and the one that it replaces.
fn newest_pair(service: &ServiceInfo) -> Option<Pair> {
    let candidate = service.releases.first()?;
    let baseline = baseline_of(&service.releases, &candidate.version)?;
    Some(Pair {
        baseline: baseline.clone(),
        candidate: candidate.clone(),
    })
}

/// Two releases by their versions.
fn pair_of(service: &ServiceInfo, baseline: &str, candidate: &str) -> Option<Pair> {
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

/// Why an alert that is not found any more is over; completes "it ended because ...".
fn why_over(alert: &Alert, services: &[ServiceInfo], slow: &BTreeSet<AlertKey>) -> String {
    if slow.contains(&AlertKey::of(alert)) {
        return "another alert explains it".to_owned();
    }
    let service = services
        .iter()
        .find(|s| (&s.namespace, &s.service) == (&alert.namespace, &alert.service));
    let Some(service) = service else {
        return format!("{} no longer reports", alert.service);
    };
    let missing = [&alert.candidate, &alert.baseline]
        .into_iter()
        .find(|version| !service.releases.iter().any(|release| release.version == **version));
    match missing {
        Some(version) => format!("{} {version} no longer reports", alert.service),
        None => "the latest windows no longer show it".to_owned(),
    }
}
