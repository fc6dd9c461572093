//! The callee named by the attributes of a caller's requests. Guarantee: an address is never a service name.

use std::net::IpAddr;

use opentelemetry_proto::tonic::common::v1::KeyValue;

use super::{find_text, names};

/// The callee: a service named by attributes, otherwise the host unless that is an address. With a namespace as
/// `namespace/service`.
pub(super) fn called(attributes: &[KeyValue]) -> Option<String> {
    let of = |key| find_text(attributes, key).filter(|text: &String| !text.is_empty());
    if let Some(service) = of(names::PEER_SERVICE) {
        return Some(match of(names::PEER_NAMESPACE) {
            Some(namespace) => format!("{namespace}/{service}"),
            None => service,
        });
    }
    if let Some(service) = of("peer.service") {
        return Some(service);
    }
    let host = of("server.address").or_else(|| of("net.peer.name"));
    let host = host.or_else(|| of("grpc.target").and_then(|target| host_of_target(&target)));
    // All that Python's `urllib` has in its metrics under the old name.
    let host = host.or_else(|| of("http.url").and_then(|url| host_of_url(&url)))?;
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() || host.starts_with('/');
    if host.is_empty() || host == "localhost" || is_address {
        return None;
    }
    // Service names inside Kubernetes: `inventory.prod.svc`, `inventory.prod.svc.cluster.local`.
    let parts: Vec<&str> = host.splitn(4, '.').collect();
    if let [service, namespace, "svc", ..] = parts.as_slice() {
        return Some(format!("{namespace}/{service}"));
    }
    Some(host)
}

/// The host of `http://cart:8080/item/7`.
fn host_of_url(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => host,
    };
    (!host.is_empty()).then(|| host.to_owned())
}

/// The host of gRPC's name of a target: `dns:///cart:8080`, `dns:cart`, `cart:8080` (grpc/doc/naming.md).
fn host_of_target(target: &str) -> Option<String> {
    let endpoint = match target.rsplit_once('/') {
        Some((_, endpoint)) if target.contains("://") => endpoint,
        Some(_) => return None,
        None => target.strip_prefix("dns:").unwrap_or(target),
    };
    let host = match endpoint.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) => return None,
        None => endpoint,
    };
    let is_address = ["unix", "ipv4:", "ipv6:"]
        .iter()
        .any(|scheme| target.starts_with(scheme));
    (!host.is_empty() && !is_address).then(|| host.to_owned())
}
