//! What an alert says in one sentence. Here and not in the pages, because webhooks and Alertmanager send it as it is.

use std::fmt::Write;

use emberline_analysis::{
    compare::{WHOLE_SERVICE, format_ns},
    errors::Failures,
};
use emberline_model::comparison::Judgement;

use super::{
    evidence::Evidence,
    folding::{Failing, Slow},
};

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

/// Of a route that got slower.
pub(super) fn of_slow(slow: &Slow, evidence: &Evidence) -> String {
    let (verdict, route) = (&slow.judged.verdict, &slow.judged.unit.route);
    let mut text = format!(
        "{} {} is slower than {} on {route}",
        slow.service, slow.candidate, slow.baseline
    );
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
    text.push_str(&cause(evidence));
    text
}

fn cause(evidence: &Evidence) -> String {
    let Some(cpu) = &evidence.cpu else {
        return "stacks from both releases are needed to attribute the change to a function".to_owned();
    };
    let mut text = match (&evidence.guilty, cpu.judgement) {
        (Some(guilty), _) => format!(
            "{} takes {} more CPU per request ({:.0} % of the growth)",
            guilty.words(),
            format_ns(guilty.delta_ns_per_request),
            guilty.share * 100.0,
        ),
        (None, Judgement::Changed) if cpu.delta_ns > 0.0 => {
            format!(
                "CPU per request grew by {}, but no single function explains most of it",
                format_ns(cpu.delta_ns)
            )
        }
        (None, Judgement::TooFewSamples) => "too few stack samples to name a function".to_owned(),
        (None, _) => "CPU per request did not grow: the time is spent waiting".to_owned(),
    };
    if cpu.whole_service {
        // Writing to a string cannot fail.
        let _ = write!(text, " ({WHOLE_SERVICE})");
    }
    text
}
