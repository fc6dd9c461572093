//! Scraping: fetches profiles of programs that only offer them, such as Go's `net/http/pprof`.
//!
//! Guarantees: scraped profiles pass the limits of all ingest and are on disk before they count; counters that grow
//! from the start of a process are stored as their increase between two scrapes, across its restarts, and a scrape that
//! was not stored is made up for by the next; gauges are stored unchanged, the first one of each window, because a
//! second one would count twice. Connections, bytes and time are bounded; a failing target does not affect others.
//! Scrapes are spread over the interval by target and profile, so that neither a start nor a restart of this server
//! bunches them.
//!
//! Wrong on purpose: times are those of this server, not of the targets; the increase of a target that was unreachable
//! for long counts in one window of ten minutes; a change of the scrape configuration itself needs a restart.

mod address;
mod config;
mod discovery;
mod duration;
mod fetch;
mod relabel;
mod target;
mod target_status;

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use emberline_client::{Client, TlsError};
use emberline_model::{
    formats::{self, Format, Reading, Sender, Times, cumulative::is_cumulative},
    otlp::Decoded,
    time::{Clock, window_start},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{AbortHandle, JoinSet},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use self::{
    config::{Endpoint, Job, Keeps},
    discovery::Discovery,
    fetch::Fetcher,
    target::Target,
    target_status::{Board, Row, STATES},
};
use crate::{
    cumulative::{Looking, Remembered},
    ingest::{Accepted, Ingest, Payload, rejection::Rejection, sender::SenderKey},
    self_metrics::SelfMetrics,
};

pub use config::{ScrapeConfig, ScrapeConfigError, parse, parse_section};

/// The longest pause between two checks of a job.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// An increase over a longer time counts in its most recent part.
const LONGEST_GROWTH_NS: i64 = 600 * 1_000_000_000;
/// The assumed length of a measurement without one: one window.
const NO_LENGTH_NS: i64 = 10 * 1_000_000_000;

/// The TLS settings of a job are invalid.
#[derive(Debug, thiserror::Error)]
#[error("`tls_config` of job `{job}` in the scrape configuration: {why}")]
pub struct InvalidScrapeTls {
    /// The job.
    pub job: String,
    /// What is wrong.
    pub why: TlsError,
}

/// Fetches the profiles of all jobs.
pub(crate) struct Scraper {
    config: ScrapeConfig,
    /// One per job.
    fetchers: Vec<Fetcher>,
    ingest: Arc<Ingest>,
    clock: Arc<dyn Clock>,
    metrics: SelfMetrics,
    pub(crate) board: Board,
    reads: Semaphore,
    places: Arc<Semaphore>,
}

/// A target being scraped; dropping this ends it.
struct Running {
    tasks: Vec<AbortHandle>,
    rows: Vec<Row>,
    board: Board,
    _place: OwnedSemaphorePermit,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.rows.iter().for_each(|row| self.board.close(row));
    }
}

impl Scraper {
    pub(crate) fn new(
        config: ScrapeConfig,
        ingest: Arc<Ingest>,
        clock: Arc<dyn Clock>,
        metrics: SelfMetrics,
    ) -> Result<Scraper, InvalidScrapeTls> {
        let fetcher = |job: &Job| match Client::new(&job.tls) {
            Ok(client) => Ok(Fetcher {
                client,
                scheme: job.scheme,
            }),
            Err(why) => Err(InvalidScrapeTls {
                job: job.name.clone(),
                why,
            }),
        };
        Ok(Scraper {
            fetchers: config.jobs.iter().map(fetcher).collect::<Result<_, _>>()?,
            reads: Semaphore::new(config.limits.max_concurrent_reads),
            places: Arc::new(Semaphore::new(config.limits.max_targets.min(Semaphore::MAX_PERMITS))),
            config,
            ingest,
            clock,
            metrics,
            board: Board::default(),
        })
    }

    /// Scrapes until it is stopped.
    pub(crate) async fn run(self: Arc<Scraper>, stop: CancellationToken) {
        let mut jobs = JoinSet::new();
        for (job, fetcher) in self.config.jobs.clone().into_iter().zip(self.fetchers.clone()) {
            jobs.spawn(Arc::clone(&self).run_job(Arc::new(job), fetcher));
        }
        // Dropping the jobs ends them, and everything they started.
        stop.cancelled().await;
    }

    async fn run_job(self: Arc<Scraper>, job: Arc<Job>, fetcher: Fetcher) {
        let mut discovery = Discovery::new((*job).clone(), self.config.folder.clone());
        let mut running: BTreeMap<Target, Running> = BTreeMap::new();
        let pause = discovery.pause().map_or(LOOK_EVERY, |pause| pause.min(LOOK_EVERY));
        loop {
            let mut found = discovery.refresh(self.config.limits.max_targets).await;
            running.retain(|target, _| found.targets.contains(target));
            for target in &found.targets {
                if running.contains_key(target) {
                    continue;
                }
                let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                    found.problems.push(format!(
                        "more than {} targets in all jobs (`max_targets`); the others are not scraped",
                        self.config.limits.max_targets
                    ));
                    break;
                };
                running.insert(target.clone(), self.start(&job, &fetcher, target, place));
            }
            if self.board.set_problems(&job.name, &found.problems) {
                for problem in &found.problems {
                    tracing::warn!(job = job.name, "targets: {problem}");
                }
            }
            for (state, profiles) in STATES.into_iter().zip(self.board.counts(&job.name)) {
                self.metrics.scrape_profiles(&job.name, state, profiles);
            }
            self.metrics.cumulative_rows(self.ingest.cumulative.budget.used());
            tokio::time::sleep(pause).await;
        }
    }

    fn start(
        self: &Arc<Scraper>,
        job: &Arc<Job>,
        fetcher: &Fetcher,
        target: &Target,
        place: OwnedSemaphorePermit,
    ) -> Running {
        let mut running = Running {
            tasks: Vec::with_capacity(job.endpoints.len()),
            rows: Vec::with_capacity(job.endpoints.len()),
            board: self.board.clone(),
            _place: place,
        };
        for endpoint in &job.endpoints {
            let row = Row {
                job: job.name.clone(),
                target: target.clone(),
                kind: endpoint.kind,
            };
            self.board.open(row.clone());
            running.rows.push(row.clone());
            let task = Arc::clone(self).scrape_for_ever(Arc::clone(job), fetcher.clone(), row, endpoint.clone());
            running.tasks.push(tokio::spawn(task).abort_handle());
        }
        running
    }

    async fn scrape_for_ever(self: Arc<Scraper>, job: Arc<Job>, fetcher: Fetcher, row: Row, endpoint: Endpoint) {
        let first = Instant::now() + spread(&row, job.interval);
        let mut ticks = tokio::time::interval_at(first, job.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Last::default();
        loop {
            ticks.tick().await;
            self.scrape((&job, &fetcher), &row, &endpoint, &mut last).await;
        }
    }

    /// Scrapes once and records the outcome.
    async fn scrape(&self, (job, fetcher): (&Job, &Fetcher), row: &Row, endpoint: &Endpoint, last: &mut Last) {
        let began = Instant::now();
        let bounds = fetch::Bounds {
            time: job.timeout + Duration::from_secs(endpoint.seconds),
            bytes: self.config.limits.max_profile_bytes,
            reads: &self.reads,
        };
        let fetched = fetcher
            .get(&row.target.address, row.target.trust, &endpoint.path, bounds)
            .await;
        let outcome = match fetched {
            Ok(file) => self
                .take(row, endpoint, file, last)
                .await
                .map_err(|refused| refused.to_string()),
            Err(error) => Err(error.to_string()),
        };
        self.metrics
            .scrape(&job.name, if outcome.is_ok() { "stored" } else { "failed" });
        let at_unix_ms = self.clock.now_unix_ms();
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.board.change(row, |shown| {
            // The first failure is logged; those that follow are only in the status.
            if let Err(error) = outcome.as_ref().map_err(|error| (shown.failures == 0).then_some(error))
                && let Some(error) = error
            {
                let (target, profile) = (row.target.address.authority(), row.kind.word());
                tracing::warn!(job = row.job, target, profile, "scrape failed: {error}");
            }
            shown.at_unix_ms = at_unix_ms;
            shown.took_ms = took_ms;
            match outcome {
                Ok((accepted, restarted)) => {
                    shown.error.clear();
                    shown.failures = 0;
                    shown.samples = accepted.samples;
                    shown.left_out = accepted.message();
                    shown.restarts += u64::from(restarted);
                }
                Err(error) => {
                    shown.error = error;
                    shown.failures += 1;
                }
            }
        });
    }

    /// Stores a file; the counters kept are replaced once it is on disk. Returns whether the process was restarted.
    async fn take(
        &self,
        row: &Row,
        endpoint: &Endpoint,
        file: Bytes,
        last: &mut Last,
    ) -> Result<(Accepted, bool), Rejection> {
        let reading = Read {
            sender: Sender {
                name: endpoint.kind.type_name().map(str::to_owned),
                times: Times::OfFile,
                ..row.target.sender()
            },
            keeps: endpoint.keeps,
            limit: self.config.limits.max_profile_bytes,
            gauges_until: last.gauges_until,
        };
        let bytes = file.len();
        let looking = Looking::new(&self.ingest.cumulative, SenderKey::Scraper, last.counters.clone());
        let gauges_until = Arc::new(AtomicI64::new(last.gauges_until));
        let reader = {
            let (looking, gauges_until) = (looking.clone(), Arc::clone(&gauges_until));
            move |now_unix_ns, limit| reading.windows(&file, limit, now_unix_ns, &looking, &gauges_until)
        };
        let accepted = self
            .ingest
            .accept(SenderKey::Scraper, None, Payload::third_party(bytes, reader), bytes)
            .await?;
        let restarted;
        (last.counters, restarted) = looking.stored();
        last.gauges_until = gauges_until.load(Ordering::Relaxed);
        Ok((accepted, restarted))
    }
}

/// What is kept between two scrapes of an endpoint.
#[derive(Default)]
struct Last {
    counters: Option<Arc<Remembered>>,
    /// The last window in which gauges were stored, seconds since the Unix epoch.
    gauges_until: i64,
}

/// How a scraped file is read.
struct Read {
    gauges_until: i64,
    sender: Sender,
    keeps: Keeps,
    limit: usize,
}

impl Read {
    /// Splits a file into windows, with the increase of its counters; returns which one contains its gauges, if any.
    fn windows(
        &self,
        file: &[u8],
        limit: usize,
        now_unix_ns: i64,
        looking: &Looking,
        gauges_until: &AtomicI64,
    ) -> Result<Decoded, Rejection> {
        let reading = Reading {
            format: Some(Format::Pprof),
            limit: limit.min(self.limit),
            ..Reading::default()
        };
        let mut read = formats::read(file, &reading).map_err(|error| match Rejection::is_too_large(&error) {
            true if limit < self.limit => Rejection::of_format(&error, limit),
            true => Rejection::Profile(format!("{error} (`max_profile_bytes` of the scrape configuration)")),
            false => Rejection::Profile(error.to_string()),
        })?;
        let profiles = &mut read.profiles;
        match self.keeps {
            Keeps::All => {}
            Keeps::Gauges => profiles.retain(|profile| !is_cumulative(&profile.profile_type)),
            Keeps::Counters => profiles.retain(|profile| is_cumulative(&profile.profile_type)),
        }
        let (since, left_out) = looking.look(profiles, now_unix_ns, is_cumulative);
        for profile in profiles.iter_mut() {
            let since = since.filter(|_| is_cumulative(&profile.profile_type));
            profile.duration_ns = match since {
                Some(since) => now_unix_ns.saturating_sub(since).min(LONGEST_GROWTH_NS),
                None => profile.duration_ns,
            };
            if profile.duration_ns <= 0 {
                profile.duration_ns = NO_LENGTH_NS;
            }
            profile.start_unix_ns = now_unix_ns.saturating_sub(profile.duration_ns);
        }
        profiles.retain(|profile| {
            let window = window_start(profile.start_unix_ns.div_euclid(1_000_000_000));
            let is_gauge = profile.profile_type.is_gauge();
            if is_gauge && window > self.gauges_until {
                gauges_until.store(window, Ordering::Relaxed);
            }
            !is_gauge || window > self.gauges_until
        });
        read.left_out.extend(left_out.into_iter().map(Into::into));
        Ok(self.sender.place(read, now_unix_ns))
    }
}

/// When within an interval something is scraped: the same after every start.
fn spread(row: &Row, interval: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    (&row.job, &row.target, row.kind).hash(&mut hasher);
    let nanoseconds = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
    Duration::from_nanos(hasher.finish() % nanoseconds)
}
