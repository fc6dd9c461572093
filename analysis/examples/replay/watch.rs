//! One watch: requests of one route go to the verdict window by window, and to the usual rules minute by minute.

use std::collections::BTreeMap;

use emberline_analysis::{
    latency::{LatencyConfig, LatencyOutcome},
    latency_watch::LatencyWatch,
};
use emberline_model::{histogram::Histogram, time::WINDOW_S};

use crate::{
    rules::{self, Seen},
    traffic::{HISTORY_S, Request, WATCHED_S},
};

/// When what was said, in minutes since the candidate began; `None` for what said nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Said {
    pub(crate) verdict: Option<f64>,
    pub(crate) rules: [Option<f64>; rules::NAMES.len()],
}

/// The verdict on some requests, given window by window.
pub(crate) fn verdict(requests: &[Request], config: &LatencyConfig) -> Option<f64> {
    let mut watch = LatencyWatch::new(config.clone());
    let mut windows: BTreeMap<i64, [Histogram; 2]> = (-HISTORY_S..WATCHED_S)
        .step_by(WINDOW_S as usize)
        .map(|start| (start, Default::default()))
        .collect();
    for request in requests {
        let start = (request.at.floor() as i64).div_euclid(WINDOW_S) * WINDOW_S;
        if let Some(sides) = windows.get_mut(&start) {
            sides[usize::from(request.candidate)].record_ns((request.seconds * 1e9) as u64);
        }
    }
    for (start, [baseline, candidate]) in &windows {
        watch.push(*start, baseline, candidate);
    }
    let verdict = watch.verdict();
    let slower = verdict.outcome == LatencyOutcome::Slower;
    let at = verdict.fired_at_window.filter(|_| slower)?;
    Some((at + WINDOW_S) as f64 / 60.0)
}

/// What the usual rules say of the same requests.
pub(crate) fn usual(requests: &[Request], before_after: bool) -> [Option<f64>; rules::NAMES.len()] {
    let mut said = [None; rules::NAMES.len()];
    let (mut baseline, mut candidate): (Vec<f64>, Vec<f64>) = Default::default();
    let mut minutes: [Vec<f64>; 2] = Default::default();
    let mut left = requests;
    for minute in -HISTORY_S / 60..WATCHED_S / 60 {
        let end = left.partition_point(|request| request.at < (minute + 1) as f64 * 60.0);
        let now = &left[..end];
        left = &left[end..];
        for (side, all) in [&mut baseline, &mut candidate].into_iter().enumerate() {
            let of: Vec<f64> = now
                .iter()
                .filter(|r| usize::from(r.candidate) == side)
                .map(|r| r.seconds)
                .collect();
            // Beside a baseline that serves, its half hour before is no comparison.
            if minute < 0 && !before_after {
                continue;
            }
            if !of.is_empty() {
                minutes[side].push(rules::quantile(&of, 0.5));
            }
            all.extend(of);
        }
        if minute < 0 {
            continue;
        }
        let seen = Seen {
            baseline: &baseline,
            candidate: &candidate,
            minutes: [&minutes[0], &minutes[1]],
            minute: minute as usize + 1,
        };
        for (said, fires) in said.iter_mut().zip(rules::fire(&seen)) {
            if fires && said.is_none() {
                *said = Some((minute + 1) as f64);
            }
        }
    }
    said
}
