//! The runner: asks the store, judges, and publishes the alerts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use emberline_analysis::latency::LatencyOutcome;
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
    evidence::{self, Ranges, Remembered},
    folding::{self, AlertKey, Failing, Slow, Traffic},
    units::{self, Served},
};
use crate::{
    alert_book::{self, AlertBook},
    self_metrics::SelfMetrics,
};

/// The runner rests this many times as long as it worked.
const REST: u32 = 9;
/// For so long after a start nothing ends, in milliseconds: senders deliver what they kept meanwhile.
const HOLD_MS: i64 = 60_000;
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
        let mut all = Found::default();
        let mut traffic = Traffic::default();
        for service in &services {
            let mut recent = service.clone();
            recent.releases.retain(|release| release.last_seen_s > recent_from);
            let pair = newest_pair(&recent);
            if let Some(pair) = &pair {
                let range = Range {
                    from_unix_s: recent_from,
                    to_unix_s: to,
                };
                all.add(
                    self.judge_pair(service, pair, range, None, &mut traffic, judged)
                        .await?,
                );
            }
            for alert in &open {
                if (&alert.namespace, &alert.service) != (&service.namespace, &service.service) {
                    continue;
                }
                let Some(stated) = pair_of(service, &alert.baseline, &alert.candidate) else {
                    continue;
                };
                let range = Range {
                    from_unix_s: begins(alert),
                    to_unix_s: to,
                };
                let begins_alike =
                    self.reference_from(&stated, range.from_unix_s) == self.reference_from(&stated, recent_from);
                let is_judged = pair.as_ref() == Some(&stated) && begins_alike;
                if is_judged {
                    continue;
                }
                let route = Some(alert.route.as_str());
                let found = self
                    .judge_pair(service, &stated, range, route, &mut Traffic::default(), judged)
                    .await?;
                all.renew(&AlertKey::of(alert), found);
            }
        }
        let failing = folding::one_failing_per_route(all.failing);
        let slow = folding::one_per_route(all.slow);
        let found: BTreeSet<AlertKey> = slow.iter().map(Slow::key).collect();
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
        alerts.extend(failing.iter().filter_map(|one| {
            let alert = alerts::assemble_failing(one, to, self.config.evidence_windows)?;
            let changed_ms = one.state.changed_at.map_or(alert.started_ms, |at| at * 1000);
            Some(alert_book::Judged { alert, changed_ms })
        }));
        // What senders could not deliver while this process was away is not silence.
        let hold = self.clock.now_unix_ms() < self.started_ms.saturating_add(HOLD_MS);
        let why = |alert: &Alert| why_over(alert, &services, &found);
        let mut alerts = self.book.reconcile(alerts, to * 1000, hold, why);
        self.book.save().await;
        alerts.sort_by(|a, b| b.started_ms.cmp(&a.started_ms).then_with(|| a.id.cmp(&b.id)));
        Ok(alerts)
    }

    /// The first window that is looked at: those of the baseline before the candidate's first are the reference when the two
    /// do not serve together.
    fn reference_from(&self, pair: &Pair, from: i64) -> i64 {
        let lead = i64::try_from(self.config.latency.reference_windows)
            .unwrap_or(i64::MAX / 4)
            .saturating_mul(WINDOW_S);
        from.max(pair.candidate.first_window_s.saturating_sub(lead))
    }

    /// True while an alert may wait for names.
    fn may_wait(&self, slow: &Slow, to: i64) -> bool {
        let limit = seconds_of(self.config.wait_for_symbols);
        slow.judged
            .verdict
            .fired_at_window
            .is_some_and(|fired| to < fired + WINDOW_S + limit)
    }

    /// What is slower, or fails more often, in one release of a service than in another; on one route, or on all.
    async fn judge_pair(
        &self,
        service: &ServiceInfo,
        pair: &Pair,
        range: Range,
        route: Option<&str>,
        traffic: &mut Traffic,
        judged: &mut Extent,
    ) -> Result<Found, QueryError> {
        let range = Range {
            from_unix_s: self.reference_from(pair, range.from_unix_s),
            ..range
        };
        if range.from_unix_s >= range.to_unix_s {
            return Ok(Found::default());
        }
        let who = WorkloadFilter {
            namespace: Some(service.namespace.clone()),
            ..WorkloadFilter::service(&service.service)
        };
        // Windows of SDKs are longer than ours and begin whenever the process did: both releases are judged by the same
        // stretches of time, long enough for a window of either.
        let step = Step::Seconds(Step::holding_s(
            self.store.ask(UsualWindowQuery { who, range }).await?.length_s,
        ));
        let asked = (range, step, route);
        let baseline = self.served(service, &pair.baseline, asked, traffic).await?;
        let candidate = self.served(service, &pair.candidate, asked, traffic).await?;
        let units = units::build(baseline, candidate, self.config.min_source_requests);
        let (config, to) = (self.config.clone(), range.to_unix_s);
        let judge = move || {
            let mut failing = Vec::new();
            let mut latency = Vec::new();
            for unit in units {
                if let Some((verdict, state)) = units::judge_failures(&unit, to, &config)
                    && verdict.fired_at_window.is_some()
                {
                    failing.push((unit.clone(), verdict, state));
                }
                latency.extend(units::judge(unit, to, &config));
            }
            (latency, failing)
        };
        let (latency, failing) = tokio::task::spawn_blocking(judge)
            .await
            .map_err(|error| QueryError::Internal {
                message: error.to_string(),
            })?;
        judged.units += latency.len() as u64;
        judged.windows += latency.iter().map(|one| one.verdict.windows_used).sum::<u64>();
        let slower = latency
            .into_iter()
            .filter(|one| one.verdict.outcome == LatencyOutcome::Slower);
        let slow = slower.map(|judged| Slow {
            namespace: service.namespace.clone(),
            service: service.service.clone(),
            baseline: pair.baseline.version.clone(),
            candidate: pair.candidate.version.clone(),
            judged,
            folded: Vec::new(),
        });
        let failing = failing.into_iter().map(|(unit, verdict, state)| Failing {
            namespace: service.namespace.clone(),
            service: service.service.clone(),
            baseline: pair.baseline.version.clone(),
            candidate: pair.candidate.version.clone(),
            unit,
            verdict,
            state,
        });
        Ok(Found {
            slow: slow.collect(),
            failing: failing.collect(),
        })
    }

    /// Requests that a release served, by window, caller and route.
    async fn served(
        &self,
        service: &ServiceInfo,
        info: &ReleaseInfo,
        (range, step, route): (Range, Step, Option<&str>),
        traffic: &mut Traffic,
    ) -> Result<Vec<Served>, QueryError> {
        let release = Release {
            namespace: service.namespace.clone(),
            service: service.service.clone(),
            version: info.version.clone(),
        };
        let query = RequestQuery {
            side: Some(Side::Server),
            step,
            route: route.map(str::to_owned),
            warm_until_s: self.warm_until_s(info, range.from_unix_s),
            ..RequestQuery::new(WorkloadFilter::release(&release), range)
        };
        let rows = self.store.ask(query).await?;
        // What callers gave up says how patient they were, not how slow the release is.
        let answered = rows.into_iter().filter(|row| !row.is_given_up());
        let served = answered.map(|row| {
            traffic.add(
                &release,
                &row.route,
                row.peer.as_ref(),
                row.window_start_s,
                row.duration.count(),
            );
            Served {
                window: row.window_start_s,
                source: row.peer,
                route: row.route,
                warming: row.warming,
                error: row.error,
                duration: row.duration,
            }
        });
        Ok(served.collect())
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
    fn add(&mut self, other: Found) {
        self.slow.extend(other.slow);
        self.failing.extend(other.failing);
    }

    /// Puts what was found of one alert in the place of what was found of it before, if there is anything.
    fn renew(&mut self, key: &AlertKey, mut other: Found) {
        other.slow.retain(|one| one.key() == *key);
        other.failing.retain(|one| one.key() == *key);
        if !other.slow.is_empty() {
            self.slow.retain(|one| one.key() != *key);
        }
        if !other.failing.is_empty() {
            self.failing.retain(|one| one.key() != *key);
        }
        self.add(other);
    }
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
