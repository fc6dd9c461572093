//! From a finding and its evidence to the alert that is shown and sent. Pure; `sentences` words it, `links` leads to its pages.

use emberline_analysis::{alert_state::AlertPhase, compare::latency_evidence};
use emberline_model::{
    Histogram,
    alert::{Alert, AlertStatus, ClientServerSplit},
};

use super::{
    evidence::Evidence,
    folding::{ERRORS, Failing, Slow},
    links::{self, Compared},
    sentences,
};

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
    let newest = slow.judged.newest.unwrap_or(started);
    Some(Alert {
        id: format!("{:016x}", slow.id()),
        state: status,
        kind: slow.kind().to_owned(),
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
        sentence: sentences::of_slow(slow, evidence),
        function: evidence.guilty.clone(),
        functions: evidence.functions.clone(),
        latency: latency_evidence(&verdict.baseline, &verdict.candidate),
        e_value: verdict.e_value_ln_peak.min(MAX_E_VALUE_LN).exp(),
        alpha: verdict.alpha,
        windows: verdict.windows_used,
        client_server: evidence.client_server.clone(),
        folded: slow.folded.clone(),
        diff_url: links::compare(&Compared {
            namespace: &slow.namespace,
            service: &slow.service,
            versions: [&slow.baseline, &slow.candidate],
            route: &slow.judged.unit.route,
            component: evidence.component,
            has_cpu: evidence.cpu.is_some(),
            ranges: [evidence.ranges.baseline, evidence.ranges.candidate],
        }),
        ended_reason: None,
        suppressed_reason: went_away.then(|| "it ended before it was confirmed".to_owned()),
    })
}

/// The same for a route that fails more often, with the latencies of both releases in a range. `None` when there is nothing to show.
pub(super) fn assemble_failing(failing: &Failing, latency: &[Histogram; 2], range: (i64, i64)) -> Option<Alert> {
    let (verdict, state) = (&failing.verdict, failing.state);
    let started = verdict.fired_at_window?;
    let status = state.phase.status()?;
    let went_away = state.phase == AlertPhase::Resolved && !state.has_fired;
    let unit = &failing.unit;
    let [baseline, candidate] = latency;
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
        updated_ms: failing.newest.unwrap_or(started) * 1000,
        resolved_ms: state
            .changed_at
            .filter(|_| state.phase == AlertPhase::Resolved)
            .map(|at| at * 1000),
        sentence: sentences::of_failing(failing),
        function: None,
        functions: Vec::new(),
        latency: latency_evidence(baseline, candidate),
        e_value: verdict.e_value_ln_peak.min(MAX_E_VALUE_LN).exp(),
        alpha: verdict.alpha,
        windows: verdict.windows_used,
        client_server: ClientServerSplit::default(),
        folded: Vec::new(),
        diff_url: links::service(&failing.namespace, &failing.service, range),
        ended_reason: None,
        suppressed_reason: went_away.then(|| "it ended before it was confirmed".to_owned()),
    })
}
