//! The runner: asks the store, judges, and publishes the alerts.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use emberline_analysis::latency::LatencyOutcome;
use emberline_model::{
    Release, Side,
    alert::{Alert, AlertStatus, AlertsBoard},
    time::{Clock, WINDOW_SECONDS, window_start},
};
use emberline_storage::{QueryError, Range, RequestQuery, ServiceInfo, Step, Store, WorkloadFilter};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use super::{
    VerdictConfig,
    alerts::{self, Ranges},
    evidence::{self, Remembered},
    folding::{self, Slow, Traffic},
    releases::{Pair, Seen, newest_pair},
    units::{self, Served},
};
use crate::self_metrics::SelfMetrics;

const WINDOW_S: i64 = WINDOW_SECONDS as i64;
/// The runner rests this many times as long as it worked.
const REST: u32 = 9;

/// Judges, on a schedule and on demand.
pub(crate) struct VerdictRunner {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: VerdictConfig,
    pub(crate) lookback: Duration,
    pub(crate) board: AlertsBoard,
    pub(crate) publish: watch::Sender<Arc<Vec<Alert>>>,
    pub(crate) metrics: SelfMetrics,
    pub(crate) memory: Mutex<Memory>,
}

/// What is kept between runs; without it a run comes to the same alerts, only slower.
#[derive(Default)]
pub(crate) struct Memory {
    evidence: Remembered,
    /// First window in which an alert that still stands was stated, milliseconds: an alert older than the lookback keeps
    /// its beginning.
    started_ms: BTreeMap<String, i64>,
}

impl VerdictRunner {
    /// Runs after each window until cancelled.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let begun = Instant::now();
            if let Err(error) = self.judge().await {
                tracing::warn!("releases were not judged this time: {error}");
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
        let grace_s = i64::try_from(self.config.grace.as_secs()).unwrap_or(i64::MAX / 4);
        let to = window_start(self.clock.now_unix_s() - grace_s);
        let mut judged_units = 0;
        let result = self.judge_until(to, &mut memory, &mut judged_units).await;
        let outcome = if result.is_ok() { "done" } else { "failed" };
        self.metrics
            .verdict_run(outcome, begun.elapsed().as_secs_f64(), judged_units);
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

    async fn judge_until(&self, to: i64, memory: &mut Memory, judged: &mut usize) -> Result<Vec<Alert>, QueryError> {
        let lookback = i64::try_from(self.lookback.as_secs()).unwrap_or(i64::MAX / 4);
        let range = Range {
            from_unix_s: to.saturating_sub(lookback).max(0),
            to_unix_s: to,
        };
        if range.from_unix_s >= range.to_unix_s {
            return Ok(Vec::new());
        }
        let mut slow = Vec::new();
        let mut traffic = Traffic::default();
        for service in self.store.services(range).await? {
            if let Some(pair) = pair_of(&service) {
                slow.extend(self.judge_service(&service, &pair, range, &mut traffic, judged).await?);
            }
        }
        let slow = folding::fold_callers(folding::one_per_route(slow), &traffic);
        let mut alerts = Vec::new();
        let mut remembered = Remembered::new();
        for one in &slow {
            let (most, reference) = (self.config.evidence_windows, self.config.latency.before_after_windows);
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
            alerts.extend(alerts::assemble(one, &evidence, waiting));
            remembered.insert(one.id(), evidence);
        }
        memory.evidence = remembered;
        keep_beginnings(&mut alerts, &mut memory.started_ms);
        alerts.sort_by(|a, b| b.started_ms.cmp(&a.started_ms).then_with(|| a.id.cmp(&b.id)));
        Ok(alerts)
    }

    /// True while an alert may wait for names.
    fn may_wait(&self, slow: &Slow, to: i64) -> bool {
        let limit = i64::try_from(self.config.wait_for_symbols.as_secs()).unwrap_or(i64::MAX / 4);
        slow.judged
            .verdict
            .fired_at_window
            .is_some_and(|fired| to < fired + WINDOW_S + limit)
    }

    /// What is slower in one service.
    async fn judge_service(
        &self,
        service: &ServiceInfo,
        pair: &Pair,
        range: Range,
        traffic: &mut Traffic,
        judged: &mut usize,
    ) -> Result<Vec<Slow>, QueryError> {
        // The baseline's windows before the candidate's first are the reference when they do not serve together.
        let lead = i64::try_from(self.config.latency.before_after_windows)
            .unwrap_or(i64::MAX / 4)
            .saturating_mul(WINDOW_S);
        let from = range.from_unix_s.max(pair.candidate.first_seen_s.saturating_sub(lead));
        let range = Range {
            from_unix_s: from,
            ..range
        };
        let who = WorkloadFilter {
            namespace: Some(service.namespace.clone()),
            ..WorkloadFilter::service(&service.service)
        };
        // Windows of SDKs are longer than ours and begin whenever the process did: both releases are judged by the same
        // stretches of time, long enough for a window of either.
        let step = Step::Seconds(Step::holding_s(self.store.usual_window_s(range, who).await?));
        let (before, after) = (&pair.baseline.version, &pair.candidate.version);
        let baseline = self.served(service, before, range, step, traffic).await?;
        let candidate = self.served(service, after, range, step, traffic).await?;
        let units = units::build(baseline, candidate, self.config.min_source_requests);
        let (config, to) = (self.config.clone(), range.to_unix_s);
        let judge = move || -> Vec<_> {
            units
                .into_iter()
                .filter_map(|unit| units::judge(unit, to, &config))
                .collect()
        };
        let all = tokio::task::spawn_blocking(judge)
            .await
            .map_err(|error| QueryError::Internal {
                message: error.to_string(),
            })?;
        *judged += all.len();
        let slower = all
            .into_iter()
            .filter(|one| one.verdict.outcome == LatencyOutcome::Slower);
        let named = slower.map(|judged| Slow {
            namespace: service.namespace.clone(),
            service: service.service.clone(),
            baseline: pair.baseline.version.clone(),
            candidate: pair.candidate.version.clone(),
            judged,
            folded: Vec::new(),
        });
        Ok(named.collect())
    }

    /// Requests that a release served, by window, caller and route.
    async fn served(
        &self,
        service: &ServiceInfo,
        version: &str,
        range: Range,
        step: Step,
        traffic: &mut Traffic,
    ) -> Result<Vec<Served>, QueryError> {
        let release = Release {
            namespace: service.namespace.clone(),
            service: service.service.clone(),
            version: version.to_owned(),
        };
        let query = RequestQuery {
            side: Some(Side::Server),
            step,
            ..RequestQuery::new(WorkloadFilter::release(&release), range)
        };
        let rows = self.store.requests(query).await?;
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
                duration: row.duration,
            }
        });
        Ok(served.collect())
    }
}

fn pair_of(service: &ServiceInfo) -> Option<Pair> {
    let seen = service.releases.iter().map(|release| Seen {
        version: release.version.clone(),
        first_seen_s: release.first_seen_s,
        last_seen_s: release.last_seen_s,
    });
    newest_pair(seen.collect())
}

/// An alert that stands keeps the earliest beginning it had.
fn keep_beginnings(alerts: &mut [Alert], started_ms: &mut BTreeMap<String, i64>) {
    let mut kept = BTreeMap::new();
    for alert in alerts.iter_mut().filter(|alert| alert.state != AlertStatus::Resolved) {
        alert.started_ms = started_ms
            .get(&alert.id)
            .map_or(alert.started_ms, |&before| before.min(alert.started_ms));
        kept.insert(alert.id.clone(), alert.started_ms);
    }
    *started_ms = kept;
}
