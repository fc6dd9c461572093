//! What is wrong with the rules of a service: targets that are none, conditions that nothing meets, rules that are never reached.
//!
//! Wrong on purpose: a rule is found to be unreachable if one earlier rule takes all of its requests; several that do so together
//! are not noticed, nor is a template that takes what another kind of path does.

use emberline_yaml::nearest;
use http::{HeaderName, Method};

use super::super::{Outbound, PathMatch, Protocol, RuleConfig, ValueMatch};
use super::sharing;
use crate::route::matching::has_prefix;

/// Looks through all rules; `say` takes a path.
pub(super) fn find(outbound: &[Outbound], mut say: impl FnMut(&str, String)) {
    let firsts = sharing::first_of_each(outbound);
    for (at, entry) in outbound.iter().enumerate() {
        let on_listener = || {
            outbound
                .iter()
                .enumerate()
                .filter(|(other, _)| firsts[*other] == firsts[at])
        };
        let services = on_listener().map(|(_, other)| other.service.as_str());
        let own = entry.clusters.iter().map(|cluster| cluster.name.as_str());
        let names: Vec<&str> = services.chain(own).collect();
        of_clusters(entry, &names, |key, message| {
            say(&format!("outbound[{at}].{key}"), message);
        });
        if entry.protocol == Protocol::Tcp && !entry.rules.is_empty() {
            let message = "`rules` has no effect with `protocol: tcp`, which has no requests: remove one of them";
            say(&format!("outbound[{at}].rules"), message.to_owned());
        }
        for (index, rule) in entry.rules.iter().enumerate() {
            let mut say = |key: &str, message: String| say(&format!("outbound[{at}].rules[{index}]{key}"), message);
            of_target(rule, &names, &mut say);
            of_conditions(rule, &mut say);
            let (retries, timeouts) = (rule.retries.as_ref(), rule.timeouts.unwrap_or(entry.timeouts));
            if let Some(message) = retries.and_then(|retries| super::of_per_try(retries, &timeouts)) {
                say(".retries.per_try_ms", message);
            }
            if let Some(earlier) = entry.rules[..index]
                .iter()
                .position(|earlier| takes_all_of(earlier, rule))
            {
                let message = format!(
                    "this rule of {} is never reached, because outbound[{at}].rules[{earlier}] takes all of its requests: move it \
                     before that one, or remove it",
                    entry.service
                );
                say("", message);
            }
        }
        let is_named = |other: &Outbound| {
            let targets = other.rules.iter().flat_map(targets);
            targets.into_iter().any(|(_, name)| name == entry.service)
                || other.rules.iter().any(|rule| rule.cluster_header.is_some())
        };
        if entry.hosts.as_ref().is_some_and(Vec::is_empty) && !on_listener().any(|(_, other)| is_named(other)) {
            let message = format!(
                "no request reaches {}: list its `hosts`, or name it in a rule of another entry of {}",
                entry.service, entry.listen
            );
            say(&format!("outbound[{at}].hosts"), message);
        }
    }
}

/// The clusters that a rule names, with their keys.
fn targets(rule: &RuleConfig) -> Vec<(String, &str)> {
    let one = rule.cluster.iter().map(|name| (".cluster".to_owned(), name.as_str()));
    let split = rule.split.iter().enumerate();
    let split = split.map(|(at, share)| (format!(".split[{at}].cluster"), share.cluster.as_str()));
    one.chain(split).collect()
}

fn of_clusters(entry: &Outbound, names: &[&str], mut say: impl FnMut(&str, String)) {
    for (at, cluster) in entry.clusters.iter().enumerate() {
        let name = &cluster.name;
        if names.iter().filter(|known| *known == name).count() > 1 {
            let message = format!(
                "two clusters or services of {} are called `{name}`: rename one",
                entry.listen
            );
            say(&format!("clusters[{at}].name"), message);
        }
        super::of_destinations(&cluster.destinations, name, &format!("clusters[{at}]."), &mut say);
    }
}

fn of_target(rule: &RuleConfig, names: &[&str], say: &mut impl FnMut(&str, String)) {
    let kinds = [
        rule.cluster.is_some(),
        !rule.split.is_empty(),
        rule.cluster_header.is_some(),
    ];
    match kinds.into_iter().filter(|is_there| *is_there).count() {
        0 => say(
            "",
            "this rule has no destination: add, for example, `cluster: canary`".to_owned(),
        ),
        1 => {}
        _ => say(
            "",
            "this rule has several targets: keep one of `cluster`, `split` and `cluster_header`".to_owned(),
        ),
    }
    for (key, name) in targets(rule) {
        if names.contains(&name) {
            continue;
        }
        let known = names.join(", ");
        let message = match nearest(name, names.iter().copied()) {
            Some(near) => format!("unknown cluster `{name}`: did you mean `{near}`? (clusters here: {known})"),
            None => format!("unknown cluster `{name}`: add it to `clusters` (clusters here: {known})"),
        };
        say(&key, message);
    }
    if !rule.split.is_empty() && rule.split.iter().all(|share| share.weight == 0) {
        say(
            ".split",
            "every share has weight 0: give at least one a `weight` above 0".to_owned(),
        );
    }
    if let Some(name) = rule
        .cluster_header
        .as_ref()
        .filter(|name| HeaderName::try_from(*name).is_err())
    {
        say(".cluster_header", format!("`{name}` is not a valid header name"));
    }
}

fn of_conditions(rule: &RuleConfig, say: &mut impl FnMut(&str, String)) {
    if let Some(PathMatch::Exact(path) | PathMatch::Prefix(path)) = &rule.path
        && (!path.starts_with('/') || path.contains(['?', '#']))
    {
        say(
            ".path",
            format!("`{path}` is not a path: use, for example, `/api`, and `query` for parameters"),
        );
    }
    for (at, method) in rule.methods.iter().enumerate() {
        let is_upper = !method.bytes().any(|b| b.is_ascii_lowercase());
        if !is_upper || method.parse::<Method>().is_err() {
            say(
                &format!(".methods[{at}]"),
                format!("`{method}` is not a method: use, for example, `GET`"),
            );
        }
    }
    for (at, header) in rule.headers.iter().enumerate() {
        if HeaderName::try_from(&header.name).is_err() {
            say(
                &format!(".headers[{at}].name"),
                format!("`{}` is not a valid header name", header.name),
            );
        }
    }
    let of_kind = |key: &'static str, values: &[ValueMatch]| {
        let both = values
            .iter()
            .position(|value| value.exact.is_some() && value.prefix.is_some());
        both.map(|at| format!(".{key}[{at}]"))
    };
    for key in [of_kind("headers", &rule.headers), of_kind("query", &rule.query)]
        .into_iter()
        .flatten()
    {
        say(&key, "`exact` and `prefix` exclude each other: keep one".to_owned());
    }
}

/// Whether no request that the later rule would take gets past the earlier one.
fn takes_all_of(earlier: &RuleConfig, later: &RuleConfig) -> bool {
    let path = match (&earlier.path, &later.path) {
        (None, _) => true,
        (Some(PathMatch::Prefix(wide)), Some(PathMatch::Prefix(path) | PathMatch::Exact(path))) => {
            has_prefix(path, wide)
        }
        (Some(PathMatch::Prefix(wide)), _) => wide == "/",
        (Some(wide), Some(path)) => wide == path,
        (Some(_), None) => false,
    };
    let methods = earlier.methods.is_empty()
        || (!later.methods.is_empty() && later.methods.iter().all(|method| earlier.methods.contains(method)));
    let implied = |wide: &[ValueMatch], narrow: &[ValueMatch], ignores_case: bool| {
        wide.iter()
            .all(|wide| narrow.iter().any(|narrow| is_implied(wide, narrow, ignores_case)))
    };
    let target = match (&earlier.cluster_header, &later.cluster_header) {
        (None, _) => true,
        (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
        (Some(_), None) => false,
    };
    path && methods
        && target
        && implied(&earlier.headers, &later.headers, true)
        && implied(&earlier.query, &later.query, false)
}

/// Whether the wide condition holds wherever the narrow one does.
fn is_implied(wide: &ValueMatch, narrow: &ValueMatch, ignores_case: bool) -> bool {
    let is_same_name = wide.name == narrow.name || (ignores_case && wide.name.eq_ignore_ascii_case(&narrow.name));
    is_same_name
        && match (&wide.exact, &wide.prefix) {
            (Some(_), _) => wide.exact == narrow.exact,
            (None, Some(prefix)) => {
                let value = narrow.exact.as_ref().or(narrow.prefix.as_ref());
                value.is_some_and(|value| value.starts_with(prefix))
            }
            (None, None) => true,
        }
}
