//! The runner: has the watches fed, judges, and publishes the alerts.

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
use emberline_storage::{QueryError, Range, RequestQuery, ServiceInfo, ServicesQuery, Step, Store, WorkloadFilter};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use super::{
    VerdictConfig, alerts,
    evidence::{self, Ranges, Remembered, RememberedLatency},
    feeding::{Feeder, Pair, PairKey, Wanted, WatchKey, Watches, newest_pair, pair_of},
    folding::{self, AlertKey, Failing, Slow, Traffic},
    watching::PairWatch,
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
    watches: Watches,
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
        memory.watches.keep(&wanted);
        let feeder = Feeder {
            store: &self.store,
            config: &self.config,
            lookback: self.lookback,
        };
        for (key, one) in &wanted {
            feeder.feed(key, one, to, &mut memory.watches).await?;
        }
        let open: BTreeSet<AlertKey> = open.iter().map(AlertKey::of).collect();
        let mut found = Found::default();
        for (key, watch) in memory.watches.iter() {
            judged.units += watch.watches() as u64;
            judged.windows += watch.units().map(|(_, unit)| unit.windows_used()).sum::<u64>();
            let is_newest = wanted.get(&key.pair).is_some_and(|one| one.routes.is_none());
            let mut of_pair = Found::of(key, watch);
            if !is_newest {
                // Of two releases of which none is new, what is told already is judged and nothing else.
                of_pair.slow.retain(|one| open.contains(&one.key()));
                of_pair.failing.retain(|one| open.contains(&one.key()));
            }
            found.add(of_pair);
        }
        let failing = folding::one_failing_per_route(found.failing);
        let mut slow = folding::one_per_route(found.slow);
        let mut remembered = Remembered::new();
        // Before callers are folded: what is no alert explains none.
        for one in slow.iter().filter(|one| one.side == Side::Client) {
            self.explain(one, to, &mut memory.evidence, &mut remembered).await?;
        }
        slow.retain(|one| {
            !remembered
                .get(&one.id())
                .is_some_and(|evidence| evidence.is_explained(one))
        });
        let found: BTreeSet<AlertKey> = slow.iter().map(Slow::key).collect();
        let traffic = self.traffic(&slow, recent_from, to).await?;
        let slow = folding::fold_callers(slow, &traffic);
        let mut alerts = Vec::new();
        for one in &slow {
            self.explain(one, to, &mut memory.evidence, &mut remembered).await?;
            let Some(evidence) = remembered.get(&one.id()) else {
                continue;
            };
            let waiting = one.side == Side::Server && evidence.is_incomplete() && self.may_wait(one, to);
            alerts.extend(
                alerts::assemble(one, evidence, waiting).map(|alert| alert_book::Judged {
                    changed_ms: one.judged.state.changed_at.map_or(alert.started_ms, |at| at * 1000),
                    alert,
                }),
            );
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

    /// Collects the evidence for a finding, unless it is known.
    async fn explain(
        &self,
        one: &Slow,
        to: i64,
        known: &mut Remembered,
        remembered: &mut Remembered,
    ) -> Result<(), QueryError> {
        let (most, reference) = (self.config.evidence_windows, self.config.latency.reference_windows);
        let Some(ranges) = Ranges::of(one, to, most, reference) else {
            return Ok(());
        };
        if remembered.contains_key(&one.id()) {
            return Ok(());
        }
        // Evidence stands when its windows are all there and have names.
        let is_whole = |evidence: &evidence::Evidence| one.side == Side::Client || !evidence.is_incomplete();
        let known = known.remove(&one.id()).filter(|of| of.ranges == ranges && is_whole(of));
        let evidence = match known {
            Some(evidence) => evidence,
            None => evidence::collect(&self.store, &self.config.own_code, one, ranges).await?,
        };
        remembered.insert(one.id(), evidence);
        Ok(())
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

    /// True while an alert may wait for names.
    fn may_wait(&self, slow: &Slow, to: i64) -> bool {
        let limit = seconds_of(self.config.wait_for_symbols);
        slow.judged
            .verdict
            .fired_at_window
            .is_some_and(|fired| to < fired + WINDOW_S + limit)
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
}

/// What is worse in candidates than in their baselines.
#[derive(Default)]
struct Found {
    slow: Vec<Slow>,
    failing: Vec<Failing>,
}

impl Found {
    fn of(WatchKey { pair: key, side }: &WatchKey, watch: &PairWatch) -> Found {
        let mut found = Found::default();
        for (unit, of) in watch.units() {
            found.slow.extend(of.slow(unit).map(|judged| Slow {
                side: *side,
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
