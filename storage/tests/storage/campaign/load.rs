//! What is sent, as a function of its number, and what the store must answer about it. Both processes of a campaign
//! know it, so that they only exchange numbers.

use emberline_model::{Batch, BatchId, Component, Exemplar, Signal};

use crate::common::{T0, batch, labels, profile, requests, window, workload};

/// Seconds between two batches: 30 make an hour, so that hours begin, end, are sealed and expire all the time.
pub const STEP_S: i64 = 120;
/// How long windows are kept unless a campaign says otherwise.
pub const RETENTION_HOURS: i64 = 8;
/// The service that sends these batches.
pub const SERVICE: &str = "checkout";
/// A service that is deleted, again and again.
pub const DELETED_SERVICE: &str = "gone";
/// An hour of the first day at which no quarter begins.
pub const CUT_S: i64 = T0 + 7 * 3600;
/// The build whose locations get names.
pub const NAMED_BUILD: &str = "ffee00112233aabb";
/// The build whose locations never do.
pub const NAMELESS_BUILD: &str = "00112233aabbccdd";
/// Weight of the stack that all batches share.
pub const SHARED_VALUE: i64 = 7;
/// Durations of the requests of a window, in milliseconds.
const DURATIONS_MS: [u64; 2] = [3, 9];

/// What the store says about one batch, a number for each kind of row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    pub value: i64,
    pub samples: u64,
    pub requests: u64,
    /// CPU from the profiler, added up over windows.
    pub cpu_ns: u64,
    /// Samples that say which span they worked for.
    pub exemplars: u64,
}

/// The correct facts about a batch.
pub fn facts(number: u64) -> Facts {
    Facts {
        value: 1000 + number as i64,
        samples: 1,
        requests: DURATIONS_MS.len() as u64,
        cpu_ns: 5,
        exemplars: 1,
    }
}

/// The value of its exemplar, which has its number as span.
pub fn exemplar_value(number: u64) -> i64 {
    3 + number as i64
}

/// The time at which a batch is sent.
pub fn clock_s(number: u64) -> i64 {
    T0 + number as i64 * STEP_S
}

/// Some windows arrive an hour or two late, after their hour was sealed.
fn hours_late(number: u64) -> i64 {
    match number.wrapping_mul(0x9e37_79b9) >> 5 & 15 {
        0 | 1 => 1,
        2 => 2,
        _ => 0,
    }
}

/// Start of its window.
pub fn start_s(number: u64) -> i64 {
    clock_s(number) - STEP_S - hours_late(number) * 3600
}

/// The batch of a window, by its start and its instance.
pub fn number_of(start_s: i64, instance: &str) -> Option<u64> {
    let late: i64 = instance.parse().ok()?;
    u64::try_from((start_s + late * 3600 + STEP_S - T0) / STEP_S).ok()
}

/// True when the leaf of its stack gets a name.
pub fn is_named(number: u64) -> bool {
    number.is_multiple_of(4)
}

/// The name that its leaf gets.
pub fn name(number: u64) -> String {
    format!("n_{number:x}")
}

/// The batch of the deleted service: the same under another name.
pub fn of_deleted(number: u64) -> Batch {
    let mut batch = made(number);
    batch.id = Some(BatchId {
        sender: "demo/gone".into(),
        epoch: number,
        sequence: 1,
        signal: Signal::Profiles,
    });
    batch
        .windows
        .iter_mut()
        .for_each(|window| DELETED_SERVICE.clone_into(&mut window.workload.service));
    batch
}

/// The batch.
pub fn made(number: u64) -> Batch {
    let version = ["v1", "v2"][(number % 2) as usize];
    let route = ["/pay", "/cart/{id}", "/quote/{id}"][(number % 3) as usize];
    let build = if is_named(number) { NAMED_BUILD } else { NAMELESS_BUILD };
    let who = workload(SERVICE, version, &hours_late(number).to_string());
    let mut window = window(&who, Component::Application, start_s(number));
    window.has_requests = true;
    window.has_profiles = true;
    window.requests = vec![requests(emberline_model::Side::Server, route, &DURATIONS_MS)];
    let own = [number, 1 << 40, (1 << 41) + number % 7];
    let shared = [(1 << 42) + number % 5, 1 << 40];
    let mut of_window = profile(
        build,
        &[
            (&own, labels(route), facts(number).value),
            (&shared, labels(route), SHARED_VALUE),
        ],
    );
    of_window.exemplars = vec![Exemplar {
        stack: 0,
        label_set: 0,
        value: exemplar_value(number),
        unix_ns: start_s(number) * 1_000_000_000,
        trace_id: [7; 16],
        span_id: number,
    }];
    window.profiles = vec![of_window];
    Batch {
        id: Some(BatchId {
            sender: format!("demo/checkout-{}", number % 3),
            epoch: 1,
            sequence: number / 3 + 1,
            signal: Signal::Profiles,
        }),
        ..batch(number, vec![window])
    }
}
