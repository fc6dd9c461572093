//! What an alert says in one sentence. Here and not in the pages, because webhooks and Alertmanager send it as it is.

use std::fmt::Write;

use emberline_analysis::{
    attribution::Finding,
    compare::{WHOLE_SERVICE, format_ns},
    errors::Failures,
};
use emberline_model::{Side, comparison::Judgement};

use super::{
    evidence::Evidence,
    folding::{Failing, Slow},
};

/// A service that takes longer by less than this share of what its callers wait does not take longer.
const NOTICED: f64 = 0.25;

/// Of a route that fails more often.
pub(super) fn of_failing(failing: &Failing) -> String {
    let verdict = &failing.verdict;
    let percent = |failures: &Failures| {
        let (low, high) = failures.interval();
        format!(
            "{:.1} % ({:.1} to {:.1} %)",
            failures.share() * 100.0,
            low * 100.0,
            high * 100.0
        )
    };
    format!(
        "{} {} fails more often than {} on {}: {} → {} of requests",
        failing.service,
        failing.candidate,
        failing.baseline,
        failing.unit.route,
        percent(&verdict.baseline),
        percent(&verdict.candidate),
    )
}

/// Of a route that got slower, or whose callers wait longer.
pub(super) fn of_slow(slow: &Slow, evidence: &Evidence) -> String {
    let (verdict, route) = (&slow.judged.verdict, &slow.judged.unit.route);
    let (service, candidate, baseline) = (&slow.service, &slow.candidate, &slow.baseline);
    let mut text = match slow.side {
        Side::Server => format!("{service} {candidate} is slower than {baseline} on {route}"),
        Side::Client => format!("callers of {service} wait longer for {candidate} than for {baseline} on {route}"),
    };
    // People know the median best: it is quoted when it shows the slowdown by itself.
    let sure = verdict
        .quantiles
        .iter()
        .find(|q| q.e_value_ln >= verdict.e_value_ln_needed);
    let leading = || {
        verdict
            .quantiles
            .iter()
            .find(|q| Some(q.quantile) == verdict.leading_quantile)
    };
    if let Some((quantile, before, after)) = sure
        .or_else(leading)
        .and_then(|q| Some((q.quantile, q.baseline?, q.candidate?)))
    {
        let time = |seconds: f64| format_ns(seconds * 1e9);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            ": p{:.0} {} → {}",
            quantile * 100.0,
            time(before.value),
            time(after.value)
        );
    }
    text.push_str("; ");
    text.push_str(&match slow.side {
        Side::Server => cause(evidence, slower_by_ns(slow)),
        Side::Client => between(slow, evidence),
    });
    text
}

/// Where callers wait, as far as the service itself tells.
fn between(slow: &Slow, evidence: &Evidence) -> String {
    let service = &slow.service;
    let waited = slow.judged.verdict.shift_seconds.unwrap_or(0.0);
    match evidence.server_shift_seconds {
        None => format!("{service} does not report what it took: the service, a proxy or the network"),
        Some(own) if own > NOTICED * waited => format!(
            "{service} itself takes {} longer, the rest is the network, a proxy or queueing",
            format_ns(own * 1e9)
        ),
        Some(_) => format!("{service} itself does not take longer: the network, a proxy or queueing"),
    }
}

/// How much longer requests take in the mean, which is what CPU per request is a part of.
fn slower_by_ns(slow: &Slow) -> f64 {
    let verdict = &slow.judged.verdict;
    let means = verdict.baseline.mean().zip(verdict.candidate.mean());
    means.map_or(0.0, |(before, after)| (after - before) * 1e9)
}

/// "Waiting" is said only where it is shown: no function surely grew, and CPU surely by less than half of `slower_by_ns`.
fn cause(evidence: &Evidence, slower_by_ns: f64) -> String {
    let Some(cpu) = &evidence.cpu else {
        return "stacks from both releases are needed to attribute the change to a function".to_owned();
    };
    let grew = cpu.judgement == Judgement::Changed && cpu.delta_ns > 0.0;
    let mut text = match (&evidence.guilty, &cpu.spread, &cpu.finding) {
        (Some(guilty), ..) => {
            let share = match grew {
                true => format!(" ({:.0} % of the growth)", guilty.share * 100.0),
                false => String::new(),
            };
            format!(
                "{} takes {} more CPU per request{share}",
                guilty.words(),
                format_ns(guilty.delta_ns_per_request)
            )
        }
        (None, Some(spread), _) if grew => {
            format!("CPU per request grew by {}, {spread}", format_ns(cpu.delta_ns))
        }
        (None, Some(spread), _) => format!("functions grew, {spread}"),
        (.., Finding::CostShift { .. }) => format!(
            "CPU per request did not surely grow. {}",
            cpu.moved.as_deref().unwrap_or_default().trim_end_matches('.')
        ),
        (.., Finding::TooFewSamples) => "too few stack samples to name a function".to_owned(),
        (.., Finding::Unexplained) => "CPU moved between functions, none can be named".to_owned(),
        (.., finding) if !cpu.whole_service && finding.is_waiting(cpu.most_ns, slower_by_ns) => {
            "CPU per request did not grow as much: the time is spent waiting".to_owned()
        }
        _ => "too few stack samples to say whether CPU or waiting explains it".to_owned(),
    };
    if cpu.whole_service {
        // Writing to a string cannot fail.
        let _ = write!(text, " ({WHOLE_SERVICE})");
    }
    text
}
