//! From a finding and its evidence to the alert as people read it. Pure.

use std::{collections::BTreeMap, fmt::Write};

use emberline_analysis::{
    alert_state::AlertPhase,
    compare::{WHOLE_SERVICE, format_ns, latency_evidence},
    errors::Failures,
};
use emberline_model::{
    Histogram,
    alert::{Alert, AlertStatus, ClientServerSplit},
    comparison::Judgement,
    time::WINDOW_SECONDS,
};

use super::{
    evidence::Evidence,
    folding::{ERRORS, Failing, LATENCY, Slow},
};

const WINDOW_S: i64 = WINDOW_SECONDS as i64;

/// ln of the largest e-value written: beyond it the number says nothing more, and infinity is no JSON.
const MAX_E_VALUE_LN: f64 = 690.0;

/// Puts an alert together; `waiting` keeps it suspected. `None` when there is nothing to show.
pub(super) fn assemble(slow: &Slow, evidence: &Evidence, waiting: bool) -> Option<Alert> {
    let verdict = &slow.judged.verdict;
    let state = slow.judged.state;
    let started = verdict.fired_at_window?;
    let status = match state.phase.status()? {
        AlertStatus::Firing if waiting => AlertStatus::Suspected,
        status => status,
    };
    let went_away = state.phase == AlertPhase::Resolved && !state.has_fired;
    let newest = verdict.judged.last().map_or(started, |judged| judged.window);
    Some(Alert {
        id: format!("{:016x}", slow.id()),
        state: status,
        kind: LATENCY.to_owned(),
        namespace: slow.namespace.clone(),
        service: slow.service.clone(),
        baseline: slow.baseline.clone(),
        candidate: slow.candidate.clone(),
        route: slow.judged.unit.route.clone(),
        source: slow.judged.unit.source.as_ref().map(ToString::to_string),
        mode: verdict.mode,
        started_ms: started * 1000,
        updated_ms: newest * 1000,
        resolved_ms: state
            .changed_at
            .filter(|_| state.phase == AlertPhase::Resolved)
            .map(|at| at * 1000),
        sentence: sentence(slow, evidence),
        function: evidence.guilty.clone(),
        functions: evidence.functions.clone(),
        latency: latency_evidence(&verdict.baseline, &verdict.candidate),
        e_value: verdict.e_value_ln_peak.min(MAX_E_VALUE_LN).exp(),
        alpha: verdict.alpha,
        windows: verdict.windows_used,
        client_server: evidence.client_server.clone(),
        folded: slow.folded.clone(),
        diff_url: diff_url(slow, evidence),
        ended_reason: None,
        suppressed_reason: went_away.then(|| "it went away before it was confirmed".to_owned()),
    })
}

/// The same for a route that fails more often. `None` when there is nothing to show.
pub(super) fn assemble_failing(failing: &Failing, to: i64, most: u32) -> Option<Alert> {
    let (verdict, state) = (&failing.verdict, failing.state);
    let started = verdict.fired_at_window?;
    let status = state.phase.status()?;
    let went_away = state.phase == AlertPhase::Resolved && !state.has_fired;
    let since = verdict.since_window.unwrap_or(started);
    let end = to.min(started + WINDOW_S * (i64::from(most) + 1)).max(since + WINDOW_S);
    let durations = |windows: &BTreeMap<i64, Histogram>| {
        windows
            .range(since..end)
            .fold(Histogram::new(), |mut all, (_, window)| {
                all.merge(window);
                all
            })
    };
    let unit = &failing.unit;
    let mut candidate = durations(&unit.candidate);
    candidate.merge(&durations(&unit.warming));
    let percent = |failures: &Failures| {
        let (low, high) = failures.interval();
        format!(
            "{:.1} % ({:.1} to {:.1} %)",
            failures.share() * 100.0,
            low * 100.0,
            high * 100.0
        )
    };
    let sentence = format!(
        "{} {} fails more often than {} on {}: {} → {} of requests",
        failing.service,
        failing.candidate,
        failing.baseline,
        unit.route,
        percent(&verdict.baseline),
        percent(&verdict.candidate),
    );
    Some(Alert {
        id: format!("{:016x}", failing.id()),
        state: status,
        kind: ERRORS.to_owned(),
        namespace: failing.namespace.clone(),
        service: failing.service.clone(),
        baseline: failing.baseline.clone(),
        candidate: failing.candidate.clone(),
        route: unit.route.clone(),
        source: unit.source.as_ref().map(ToString::to_string),
        mode: verdict.mode,
        started_ms: started * 1000,
        updated_ms: verdict.judged.last().map_or(started, |judged| judged.window) * 1000,
        resolved_ms: state
            .changed_at
            .filter(|_| state.phase == AlertPhase::Resolved)
            .map(|at| at * 1000),
        sentence,
        function: None,
        functions: Vec::new(),
        latency: latency_evidence(&durations(&unit.baseline), &candidate),
        e_value: verdict.e_value_ln_peak.min(MAX_E_VALUE_LN).exp(),
        alpha: verdict.alpha,
        windows: verdict.windows_used,
        client_server: ClientServerSplit::default(),
        folded: Vec::new(),
        diff_url: failing_url(failing, (since, end)),
        ended_reason: None,
        suppressed_reason: went_away.then(|| "it went away before it was confirmed".to_owned()),
    })
}

/// Path of the service's page with the windows since the failures began.
fn failing_url(failing: &Failing, (from, to): (i64, i64)) -> String {
    let mut query = String::from("/service?");
    if !failing.namespace.is_empty() {
        query.push_str("namespace=");
        percent_encode(&mut query, &failing.namespace);
        query.push('&');
    }
    query.push_str("service=");
    percent_encode(&mut query, &failing.service);
    // Some windows before it began, for comparison. Writing to a string cannot fail.
    let _ = write!(query, "&from={}&to={to}", from - 30 * WINDOW_S);
    query
}

fn sentence(slow: &Slow, evidence: &Evidence) -> String {
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
        return "no stacks of both releases to attribute the change to a function".to_owned();
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
                "CPU per request grew by {}, and no single function explains most of it",
                format_ns(cpu.delta_ns)
            )
        }
        (None, Judgement::TooFewSamples) => "there are too few stack samples to name a function".to_owned(),
        (None, _) => "its CPU per request did not grow: the time is spent waiting".to_owned(),
    };
    if cpu.whole_service {
        // Writing to a string cannot fail.
        let _ = write!(text, " ({WHOLE_SERVICE})");
    }
    text
}

/// Path of the Compare page with the windows the evidence rests on.
fn diff_url(slow: &Slow, evidence: &Evidence) -> String {
    let mut query = String::from("/compare?");
    let mut add = |key: &str, value: &str| {
        if !query.ends_with('?') {
            query.push('&');
        }
        query.push_str(key);
        query.push('=');
        percent_encode(&mut query, value);
    };
    if !slow.namespace.is_empty() {
        add("namespace", &slow.namespace);
    }
    add("service", &slow.service);
    add("baseline", &slow.baseline);
    add("candidate", &slow.candidate);
    add("route", &slow.judged.unit.route);
    add("component", evidence.component.as_str());
    // Without profiles the page shows latency, and CPU by what it can be divided by.
    if evidence.cpu.is_some() {
        add("per", "request");
    }
    let ranges = &evidence.ranges;
    if ranges.baseline == ranges.candidate {
        add("from", &ranges.candidate.0.to_string());
        add("to", &ranges.candidate.1.to_string());
    } else {
        add("baseline_from", &ranges.baseline.0.to_string());
        add("baseline_to", &ranges.baseline.1.to_string());
        add("candidate_from", &ranges.candidate.0.to_string());
        add("candidate_to", &ranges.candidate.1.to_string());
    }
    query
}

/// RFC 3986: everything but unreserved characters.
fn percent_encode(into: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_any_route() {
        let mut text = String::new();
        percent_encode(&mut text, "/quote/{id}?a=b&c#d é%");
        assert_eq!(text, "%2Fquote%2F%7Bid%7D%3Fa%3Db%26c%23d%20%C3%A9%25");
    }
}
