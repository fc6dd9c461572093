//! Traffic that is made up, with fixed seeds: recorded-like routes, each different, and every setting that is known to fool a
//! rule. Times are seconds since the candidate's first request; the half hour before is the baseline's.

use crate::support::Random;

/// Seconds of the baseline before the candidate begins.
pub(crate) const HISTORY_S: i64 = 1800;
/// Seconds that are watched.
pub(crate) const WATCHED_S: i64 = 3600;

/// One request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    /// When it began.
    pub(crate) at: f64,
    /// How long it took.
    pub(crate) seconds: f64,
    /// Whether it came after the candidate began, and to it.
    pub(crate) candidate: bool,
}

/// How requests come to the two releases.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Split {
    /// Both serve; this share of the requests (or of the traces) goes to the candidate.
    Concurrent { share: f64, by_trace: bool },
    /// The candidate replaces the baseline.
    BeforeAfter,
}

/// What differs in the candidate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Change {
    None,
    /// Every request takes so many times as long.
    Times(f64),
    /// A share of the requests takes so many seconds more.
    Adds {
        share: f64,
        seconds: f64,
    },
    /// The share of requests that miss the cache.
    Misses(f64),
    /// Seconds by which the way to it is longer, as its callers measure it: a way of half a millisecond, more or less, is part of all.
    Way(f64),
}

/// What moves the level (natural logarithm of durations) besides the release.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wave {
    /// First-order autoregression with this standard deviation and memory.
    Wander { sd: f64, memory_s: f64 },
    /// A sine of this relative amplitude.
    Sine { amplitude: f64, period_s: f64 },
    /// In this share of windows everything is up to so many times slower.
    Bursts { share: f64, most: f64 },
    /// So many seconds in each ten minutes are slower.
    Bad { seconds: i64, factor: f64 },
    /// So many per hour on average, of this length.
    Outages { per_hour: f64, seconds: i64, factor: f64 },
}

/// How a release starts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start {
    /// So many times slower, falling by a factor of e in this time.
    Falls { factor: f64, seconds: f64 },
    /// All requests miss the cache, which fills in this time.
    ColdCache { seconds: f64 },
}

/// One route's traffic.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    /// Requests per second of both releases together.
    pub(crate) rate: f64,
    pub(crate) median: f64,
    /// Standard deviation of the logarithm of durations.
    pub(crate) spread: f64,
    /// Share of requests that miss a cache, and how much slower those are.
    pub(crate) misses: Option<(f64, f64)>,
    /// Share of requests with a tail of this index (Pareto).
    pub(crate) tail: Option<(f64, f64)>,
    /// Share of requests that time out after this time.
    pub(crate) timeouts: Option<(f64, f64)>,
    /// Requests per session, seconds between them, standard deviation of a session's own factor.
    pub(crate) session: Option<(u32, f64, f64)>,
    pub(crate) shared: Vec<Wave>,
    /// Of each release on its own.
    pub(crate) own: Vec<Wave>,
    /// Every 30 s each release pauses for this time, on its own.
    pub(crate) pauses: f64,
    /// Instances of both releases and the standard deviation of their levels.
    pub(crate) instances: Option<(u16, u16, f64)>,
    pub(crate) start: Option<Start>,
    /// Durations are multiples of this.
    pub(crate) tick: Option<f64>,
}

impl Model {
    /// Independent requests: a side has 2.5 per second, median 20 ms.
    pub(crate) fn plain() -> Model {
        Model {
            rate: 5.0,
            median: 0.020,
            spread: 0.5,
            misses: None,
            tail: None,
            timeouts: None,
            session: None,
            shared: Vec::new(),
            own: Vec::new(),
            pauses: 0.0,
            instances: None,
            start: None,
            tick: None,
        }
    }

    /// A route as service meshes have them; each seed gives another. `least` and `most` are requests per second of the
    /// smaller side.
    pub(crate) fn recorded_like(seed: u64, (least, most): (f64, f64), split: Split) -> Model {
        let mut random = Random::new(seed ^ 0x5eed_2011);
        let between = |random: &mut Random, low: f64, high: f64| low * (high / low).powf(random.uniform());
        let smaller = between(&mut random, least, most);
        let rate = match split {
            Split::Concurrent { share, .. } => smaller / share.min(1.0 - share),
            Split::BeforeAfter => smaller,
        };
        let misses = random.chance(0.4).then(|| {
            let share = 0.05 + 0.35 * random.uniform();
            (share, between(&mut random, 1.5, 8.0))
        });
        let tail = random
            .chance(0.5)
            .then(|| (0.002 + 0.03 * random.uniform(), 1.2 + random.uniform()));
        // Calls come in traces that call a route several times.
        let session = random
            .chance(0.5)
            .then(|| (2 + (3.0 * random.uniform()) as u32, 0.05, 0.1));
        let mut shared = vec![Wave::Wander {
            sd: 0.10 * random.uniform(),
            memory_s: between(&mut random, 60.0, 1800.0),
        }];
        if random.chance(0.5) {
            shared.push(Wave::Sine {
                amplitude: 0.4 * random.uniform(),
                period_s: 86_400.0,
            });
        }
        if random.chance(0.5) {
            shared.push(Wave::Outages {
                per_hour: 3.0 * random.uniform(),
                seconds: between(&mut random, 5.0, 60.0) as i64,
                factor: between(&mut random, 1.3, 4.0),
            });
        }
        // What one process does by itself: collections of garbage, a noisy neighbour.
        let mut own = vec![Wave::Wander {
            sd: 0.02 * random.uniform(),
            memory_s: between(&mut random, 10.0, 600.0),
        }];
        if random.chance(0.3) {
            own.push(Wave::Outages {
                per_hour: 1.0,
                seconds: 10,
                factor: between(&mut random, 1.2, 3.0),
            });
        }
        Model {
            rate,
            median: between(&mut random, 0.000_3, 0.2),
            spread: between(&mut random, 0.12, 0.7),
            misses,
            tail,
            session,
            shared,
            own,
            tick: random.chance(0.2).then_some(0.001),
            ..Model::plain()
        }
    }

    /// All requests of the half hour before and of the watched hour, in order.
    pub(crate) fn draw(&self, split: Split, change: Change, seed: u64) -> Vec<Request> {
        // Changes do not move the noise: both are drawn from sources of their own.
        let mut random = Random::new(seed);
        let mut noise = Random::new(seed ^ 0xba11);
        let shared = levels(&self.shared, &mut noise);
        let own = [levels(&self.own, &mut noise), levels(&self.own, &mut noise)];
        let pause = [30.0 * noise.uniform(), 30.0 * noise.uniform()];
        let mut speeds = |many: u16, sd: f64| (0..many.max(1)).map(|_| sd * noise.normal()).collect::<Vec<f64>>();
        let (base, cand, sd) = self.instances.unwrap_or((1, 1, 0.0));
        let speeds = [speeds(base, sd), speeds(cand, sd)];
        let (size, gap, session_sd) = self.session.unwrap_or((1, 0.0, 0.0));
        let mut requests = Vec::new();
        let mut begins = -(HISTORY_S as f64) - f64::from(size) * gap;
        loop {
            begins -= (1.0 - random.uniform()).ln() * f64::from(size) / self.rate;
            if begins >= WATCHED_S as f64 {
                break;
            }
            let factor = session_sd * random.normal();
            let draw_side = |random: &mut Random| match split {
                Split::Concurrent { share, .. } => random.uniform() < share,
                Split::BeforeAfter => true,
            };
            let of_trace = draw_side(&mut random);
            let instance = random.next();
            for nth in 0..size {
                let at = begins + f64::from(nth) * gap * (0.5 + random.uniform());
                let own_side = draw_side(&mut random);
                let by_trace = gap >= 1.0 || !matches!(split, Split::Concurrent { by_trace: false, .. });
                let candidate = at >= 0.0 && if by_trace { of_trace } else { own_side };
                let side = usize::from(candidate);
                let second = ((at + HISTORY_S as f64) as usize).min(shared.len() - 1);
                let instance = (instance % speeds[side].len() as u64) as usize;
                let level = factor + shared[second] + own[side][second] + speeds[side][instance];
                let seconds = self.duration(at, candidate, level, change, pause[side], &mut random);
                if at >= -(HISTORY_S as f64) && at < WATCHED_S as f64 {
                    requests.push(Request { at, seconds, candidate });
                }
            }
        }
        requests.sort_by(|a, b| a.at.total_cmp(&b.at));
        requests
    }

    fn duration(&self, at: f64, candidate: bool, level: f64, change: Change, pause: f64, random: &mut Random) -> f64 {
        let [normal, miss, tail, timeout, changed] = [
            random.normal(),
            random.uniform(),
            random.uniform(),
            random.uniform(),
            random.uniform(),
        ];
        let long = random.uniform();
        let mut seconds = self.median * (level + self.spread * normal).exp();
        if let Some((share, factor)) = self.misses {
            let share = match (change, self.start) {
                (Change::Misses(share), _) if candidate => share,
                (_, Some(Start::ColdCache { seconds })) if candidate => share + (1.0 - share) * (-at / seconds).exp(),
                _ => share,
            };
            seconds *= if miss < share { factor } else { 1.0 };
        }
        if let Some((share, index)) = self.tail {
            seconds *= if tail < share {
                (1.0 - long).powf(-1.0 / index).min(1e3)
            } else {
                1.0
            };
        }
        if let Some((share, after)) = self.timeouts {
            seconds += if timeout < share { after } else { 0.0 };
        }
        if let (Some(Start::Falls { factor, seconds: time }), true) = (self.start, candidate) {
            seconds *= 1.0 + (factor - 1.0) * (-at / time).exp();
        }
        if self.pauses > 0.0 {
            let into = (at + pause).rem_euclid(30.0);
            seconds += (self.pauses - into).max(0.0);
        }
        match change {
            Change::Times(factor) if candidate => seconds *= factor,
            Change::Way(longer) => {
                seconds += 0.000_5 * (0.5 * (2.0 * changed - 1.0)).exp() + if candidate { longer } else { 0.0 };
            }
            Change::Adds { share, seconds: more } if candidate && changed < share => seconds += more,
            _ => {}
        }
        match self.tick {
            Some(tick) => (seconds / tick).ceil() * tick,
            None => seconds,
        }
    }
}

/// The level of each second.
fn levels(waves: &[Wave], random: &mut Random) -> Vec<f64> {
    let many = (HISTORY_S + WATCHED_S) as usize;
    let mut sum = vec![0.0; many];
    for &wave in waves {
        match wave {
            Wave::Wander { sd, memory_s } => {
                let keep = (-1.0 / memory_s).exp();
                let mut level = sd * random.normal();
                for value in &mut sum {
                    level = keep * level + sd * (1.0 - keep * keep).sqrt() * random.normal();
                    *value += level;
                }
            }
            Wave::Sine { amplitude, period_s } => {
                let phase = std::f64::consts::TAU * random.uniform();
                for (at, value) in sum.iter_mut().enumerate() {
                    let angle = std::f64::consts::TAU * at as f64 / period_s + phase;
                    *value += (1.0 + amplitude * angle.sin()).ln();
                }
            }
            Wave::Bursts { share, most } => {
                for window in sum.chunks_mut(10) {
                    if random.chance(share) {
                        let level = (1.0 + (most - 1.0) * random.uniform()).ln();
                        window.iter_mut().for_each(|value| *value += level);
                    }
                }
            }
            Wave::Bad { seconds, factor } => {
                let phase = (600.0 * random.uniform()) as usize;
                for (at, value) in sum.iter_mut().enumerate() {
                    *value += if (at + phase) % 600 < seconds as usize {
                        factor.ln()
                    } else {
                        0.0
                    };
                }
            }
            Wave::Outages {
                per_hour,
                seconds,
                factor,
            } => {
                let mut left = 0;
                for value in &mut sum {
                    if left == 0 && random.chance(per_hour / 3600.0) {
                        left = seconds;
                    }
                    if left > 0 {
                        left -= 1;
                        *value += factor.ln();
                    }
                }
            }
        }
    }
    sum
}
