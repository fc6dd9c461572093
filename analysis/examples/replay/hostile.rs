//! Settings in which nothing changes and that fool rules: dependence between requests, starts, drift.

use crate::traffic::{Model, Start, Wave};

/// A setting in which nothing changes and that may fool a rule.
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) model: Model,
    /// The promise: at most so many watches in a hundred.
    pub(crate) most_percent: f64,
    /// Only meant where both releases serve.
    pub(crate) concurrent_only: bool,
}

/// All of them.
pub(crate) fn settings() -> Vec<Setting> {
    let of = |name, model| Setting {
        name,
        model,
        most_percent: 2.0,
        concurrent_only: false,
    };
    let own = |wave| Model {
        own: vec![wave],
        ..Model::plain()
    };
    let shared = |wave| Model {
        shared: vec![wave],
        ..Model::plain()
    };
    let instances = |base, cand, sd| Model {
        instances: Some((base, cand, sd)),
        ..Model::plain()
    };
    let start = |start| Model {
        start: Some(start),
        ..Model::plain()
    };
    let misses = Some((0.10, 6.0));
    let session = |size, sd| Model {
        session: Some((size, 1.0, sd)),
        ..Model::plain()
    };
    let wander = |sd, memory_s| Wave::Wander { sd, memory_s };
    vec![
        of("independent", Model::plain()),
        of(
            "independent, spread 1.0",
            Model {
                spread: 1.0,
                ..Model::plain()
            },
        ),
        of(
            "independent, 50 per second",
            Model {
                rate: 100.0,
                ..Model::plain()
            },
        ),
        of(
            "little traffic, .05 per second",
            Model {
                rate: 0.1,
                ..Model::plain()
            },
        ),
        of("sessions of 8", session(8, 0.5)),
        Setting {
            most_percent: 5.0,
            ..of("sessions of 30", session(30, 0.8))
        },
        of(
            "own 30 s x3 each 10 min",
            own(Wave::Bad {
                seconds: 30,
                factor: 3.0,
            }),
        ),
        of("own level wanders 10 %, 1 min", own(wander(0.10, 60.0))),
        of("own level wanders 20 %, 1 min", own(wander(0.20, 60.0))),
        of("own level wanders 5 %, 15 min", own(wander(0.05, 900.0))),
        of("own level wanders 10 %, 15 min", own(wander(0.10, 900.0))),
        of(
            "own pauses of .2 s each 30 s",
            Model {
                pauses: 0.2,
                ..Model::plain()
            },
        ),
        of("shared bursts", shared(Wave::Bursts { share: 0.1, most: 5.0 })),
        of(
            "shared outages",
            Model {
                shared: vec![Wave::Outages {
                    per_hour: 1.0,
                    seconds: 60,
                    factor: 5.0,
                }],
                timeouts: Some((0.02, 1.0)),
                ..Model::plain()
            },
        ),
        of(
            "daily drift 50 %",
            shared(Wave::Sine {
                amplitude: 0.5,
                period_s: 86_400.0,
            }),
        ),
        of(
            "hourly drift 30 %",
            shared(Wave::Sine {
                amplitude: 0.3,
                period_s: 3600.0,
            }),
        ),
        Setting {
            concurrent_only: true,
            ..of("one of 11 instances, sd 5 %", instances(10, 1, 0.05))
        },
        of("two instances against two, sd 5 %", instances(2, 2, 0.05)),
        of(
            "ticks of 10 ms",
            Model {
                tick: Some(0.010),
                ..Model::plain()
            },
        ),
        of(
            "warm-up x3, 20 s",
            start(Start::Falls {
                factor: 3.0,
                seconds: 20.0,
            }),
        ),
        of(
            "warm-up x3, 60 s",
            start(Start::Falls {
                factor: 3.0,
                seconds: 60.0,
            }),
        ),
        of(
            "warm-up x2, 5 min",
            start(Start::Falls {
                factor: 2.0,
                seconds: 300.0,
            }),
        ),
        of(
            "cold cache, 2 min",
            Model {
                misses,
                ..start(Start::ColdCache { seconds: 120.0 })
            },
        ),
    ]
}
