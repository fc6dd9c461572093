//! What is wrong between keys that are each fine by themselves, each in its line.

mod filters;
mod rules;
mod sharing;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
};

use emberline_client::Tls;
use emberline_yaml::{Node, Problem};

use http::{HeaderName, uri::PathAndQuery};

use super::{
    Address, CheckKind, Config, DestinationConfig, HashOn, HealthConfig, IdentityRule, Inbound, Outbound, Protocol,
    RetryConfig, Timeouts, UpstreamProtocol,
};
use crate::route::RouteTable;

/// Looks through a configuration; `places` is its file.
pub(super) fn find(config: &Config, places: &Node) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut say = |path: &str, message: String| problems.push(Problem::new(places.line_of(path), message));
    if config.inbound.is_empty() && config.outbound.is_empty() {
        let message =
            "no listener: add `inbound: [{listen: 127.0.0.1:8080, to: 127.0.0.1:9080}]` or an `outbound` entry";
        say("", message.to_owned());
    }
    let inbound = config.inbound.iter().enumerate();
    let inbound = inbound.map(|(at, inbound)| (format!("inbound[{at}].listen"), inbound.listen));
    let outbound = sharing::listeners(&config.outbound);
    let outbound = outbound.map(|(at, outbound)| (format!("outbound[{at}].listen"), outbound.listen));
    let mut seen: HashMap<SocketAddr, usize> = HashMap::new();
    for (path, address) in std::iter::once(("admin".to_owned(), config.admin))
        .chain(inbound)
        .chain(outbound)
    {
        let times = seen.entry(address).or_default();
        *times += 1;
        if *times == 2 && address.port() != 0 {
            say(
                &path,
                format!("{address} is used by two listeners: give each its own port"),
            );
        }
    }
    if let Some(collector) = &config.collector {
        if !collector.endpoint.starts_with("https:") && !collector.tls.is_empty() {
            let message = "`collector.tls` has no effect without an `https://` endpoint: use one, or remove `tls`";
            say("collector.tls", message.to_owned());
        }
        if let Err(error) = collector.tls.check() {
            say("collector.tls", format!("collector.tls: {error}"));
        }
    }
    for (at, inbound) in config.inbound.iter().enumerate() {
        if inbound.identity == Some(IdentityRule::Ignore) && !inbound.trusted_callers.is_empty() {
            let message = "`identity: ignore` trusts nobody: remove it, or remove `trusted_callers`";
            say(&format!("inbound[{at}].trusted_callers"), message.to_owned());
        }
        of_protocols(inbound.protocol, inbound.upstream_protocol, |message| {
            say(&format!("inbound[{at}].upstream_protocol"), message);
        });
        of_inbound_tls(inbound, |key, message| say(&format!("inbound[{at}].{key}"), message));
        if inbound.to == Address::Socket(inbound.listen) {
            let to = &inbound.to;
            let message = format!("`to: {to}` is the listener itself: set it to the application's address");
            say(&format!("inbound[{at}].to"), message);
        }
    }
    sharing::find(&config.outbound, &mut say);
    rules::find(&config.outbound, &mut say);
    filters::find(&config.inbound, &config.outbound, &mut say);
    for (at, outbound) in config.outbound.iter().enumerate() {
        of_destinations(&outbound.destinations, &outbound.service, "", |key, message| {
            say(&format!("outbound[{at}].{key}"), message);
        });
        of_protocols(outbound.protocol, outbound.upstream_protocol, |message| {
            say(&format!("outbound[{at}].upstream_protocol"), message);
        });
        of_outbound_tls(outbound, |key, message| say(&format!("outbound[{at}].{key}"), message));
        of_balancing(outbound, |key, message| say(&format!("outbound[{at}].{key}"), message));
    }
    let of_outbound = config.outbound.iter().enumerate();
    let of_outbound = of_outbound.map(|(at, outbound)| (format!("outbound[{at}].routes"), &outbound.routes));
    for (path, templates) in std::iter::once(("routes".to_owned(), &config.routes)).chain(of_outbound) {
        if let Err(duplicate) = RouteTable::new(templates) {
            let second = templates
                .iter()
                .rposition(|template| template.as_str() == duplicate.second);
            say(
                &format!("{path}[{}]", second.unwrap_or_default()),
                duplicate.to_string(),
            );
        }
        if templates.len() > RouteTable::MAX_TEMPLATES {
            let message = "more than 1000 templates: use parameters such as `/cart/{id}`";
            say(&format!("{path}[{}]", RouteTable::MAX_TEMPLATES), message.to_owned());
        }
    }
    problems
}

/// What is wrong between the protocols of callers and of those who answer.
fn of_protocols(callers: Protocol, upstream: UpstreamProtocol, mut say: impl FnMut(String)) {
    if callers == Protocol::Tcp && upstream != UpstreamProtocol::Same {
        let message =
            "`upstream_protocol` has no effect with `protocol: tcp`, which has no requests: remove one of them";
        say(message.to_owned());
    }
}

/// What is wrong with TLS of an inbound listener; `say` takes its key.
fn of_inbound_tls(inbound: &Inbound, mut say: impl FnMut(&str, String)) {
    let tls = inbound.tls.as_ref().filter(|tls| tls.is_on());
    if let Some(tls) = tls
        && tls.require_client_certificate
        && tls.client_ca_file.is_none()
    {
        let message = "client certificates cannot be verified without `client_ca_file`: set it, or `require_client_certificate: false`";
        say("tls", message.to_owned());
    }
    if inbound.identity == Some(IdentityRule::Certificate) {
        if tls.is_none_or(|tls| tls.client_ca_file.is_none()) {
            let message = "`identity: certificate` trusts nobody without `tls` and its `client_ca_file`: set them";
            say("identity", message.to_owned());
        }
        if !inbound.trusted_callers.is_empty() {
            let message = "`trusted_callers` has no effect with `identity: certificate`: remove one of them";
            say("trusted_callers", message.to_owned());
        }
    }
}

/// What is wrong with TLS towards the endpoints of an outbound listener.
fn of_outbound_tls(outbound: &Outbound, mut say: impl FnMut(&str, String)) {
    let Some(tls) = &outbound.tls else { return };
    if let Err(error) = Tls::from(tls).check() {
        say("tls", format!("tls: {error}"));
    }
    if tls.server_name.is_some() && tls.spiffe_id.is_some() {
        let message = "`server_name` has no effect with `spiffe_id`, which is what is verified: remove one of them";
        say("tls.server_name", message.to_owned());
    }
    let has_names = outbound
        .destinations
        .iter()
        .any(|d| matches!(d.address, Address::Name(..)));
    if outbound.health.is_some() && has_names && tls.server_name.is_none() && tls.spiffe_id.is_none() {
        let message = "health checks connect to the addresses of a name: say with `server_name` or `spiffe_id` whose certificate they expect";
        say("tls", message.to_owned());
    }
}

/// What is wrong with the destinations of a service or cluster called `name`; `say` takes a key, which begins with `below`.
fn of_destinations(destinations: &[DestinationConfig], name: &str, below: &str, mut say: impl FnMut(&str, String)) {
    let path = format!("{below}destinations");
    if destinations.is_empty() {
        let message = format!("`destinations` of {name} is empty: add `destinations: [{{address: 127.0.0.1:9101}}]`");
        say(&path, message);
    } else if destinations.iter().all(|d| d.weight == 0) {
        let message = format!("every destination of {name} has weight 0: give at least one a `weight` above 0");
        say(&path, message);
    }
    let mut addresses = HashSet::new();
    for (index, destination) in destinations.iter().enumerate() {
        if !addresses.insert(&destination.address) {
            let message = format!(
                "destination {} of {name} is listed twice: remove one",
                destination.address
            );
            say(&format!("{path}[{index}].address"), message);
        }
    }
}

/// What is wrong with how requests are shared; `say` takes the key of an outbound listener.
fn of_balancing(outbound: &Outbound, mut say: impl FnMut(&str, String)) {
    let (options, size) = (&outbound.balancer_options, outbound.destinations.len());
    match &outbound.hash_on {
        None if outbound.balancer.hashes() => {
            let message = "this balancer hashes a key: add, for example, `hash_on: {header: x-user}`";
            say("balancer", message.to_owned());
        }
        Some(_) if !outbound.balancer.hashes() => {
            let message = "`hash_on` has no effect with this balancer: use `balancer: maglev`, or remove it";
            say("hash_on", message.to_owned());
        }
        Some(HashOn::Header(name)) if HeaderName::try_from(name).is_err() => {
            say("hash_on", format!("`{name}` is not a valid header name"));
        }
        Some(HashOn::Cookie(name)) if name.is_empty() || name.contains(['=', ';', ' ']) => {
            say("hash_on", format!("`{name}` is not a valid cookie name"));
        }
        _ => {}
    }
    if outbound.outlier.is_some()
        && matches!(&outbound.destinations[..], [only] if matches!(only.address, Address::Socket(_)))
    {
        let message =
            "`outlier` has no effect with a single address, which is never ejected: add another, or remove it";
        say("outlier", message.to_owned());
    }
    if let Some(health) = &outbound.health {
        let (is_http, is_grpc) = (
            matches!(health.check, CheckKind::Http | CheckKind::Http2),
            health.check == CheckKind::Grpc,
        );
        if !health.path.starts_with('/') || health.path.parse::<PathAndQuery>().is_err() {
            say(
                "health.path",
                format!("`{}` is not a path: use, for example, `/healthz`", health.path),
            );
        }
        if !is_http && (health.expect.is_some() || health.path != HealthConfig::default().path) {
            let message = "`path` and `expect` have no effect with this check: use `check: http`, or remove them";
            say("health", message.to_owned());
        }
        if !is_grpc && !health.service.is_empty() {
            let message = "`service` has no effect with this check: use `check: grpc`, or remove it";
            say("health.service", message.to_owned());
        }
    }
    if let Some(message) = of_per_try(&outbound.retries, &outbound.timeouts) {
        say("retries.per_try_ms", message);
    }
    if options.ring_max_points < options.ring_min_points {
        let message = format!(
            "`ring_max_points` is below `ring_min_points` ({}): raise it",
            options.ring_min_points
        );
        say("balancer_options.ring_max_points", message);
    }
    if options.table_size <= size {
        let message = format!("`table_size` must be larger than the number of endpoints ({size} here)");
        say("balancer_options.table_size", message);
    }
}

/// What is wrong with the time of an attempt.
fn of_per_try(retries: &RetryConfig, timeouts: &Timeouts) -> Option<String> {
    let (per_try, request) = (retries.per_try_ms?, timeouts.request_ms?);
    (per_try > request).then(|| {
        format!("`per_try_ms: {per_try}` has no effect above `timeouts.request_ms` ({request}): lower it, or remove it")
    })
}
