//! Which metrics are request durations, and what their attributes say about the requests.
//!
//! Guarantees: one table lists every metric that is accepted, with its side and its unit; a request path never becomes
//! a route; an address never becomes a destination. Both generations of the semantic conventions are supported: HTTP
//! before and since 1.23, RPC before and since 1.39, as are gRPC's own plugins (gRFC A66).
//!
//! Wrong on purpose: a caller measured by an SDK knows only the name that it asked for: that is a destination, as for a
//! proxy's outbound listener, not a release. Two names of one metric in one scope are the same requests, and only the
//! newer one counts.
//!
//! One file because the name of a metric decides how its attributes are read, and the tests hold both together. The writer and the
//! callee of a request have files of their own.

use opentelemetry_proto::tonic::common::v1::KeyValue;

use super::{
    called::called,
    find_int, find_peer, find_text, names,
    writers::{PYTHON, Writer},
};
use crate::{
    batch::RequestSeries,
    histogram::Histogram,
    protocol::{CALLER_LEFT, Protocol, StatusKind},
    route,
    workload::{ROUTE_OTHER, Side, UNKNOWN},
};

/// What kind of call a metric measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    Rpc,
}

/// An accepted metric.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Duration {
    pub(super) name: &'static str,
    pub(super) side: Side,
    kind: Kind,
    /// If the metric does not state its unit.
    unit: &'static str,
    /// A preferred name for the same requests.
    pub(super) newer: Option<&'static str>,
}

const fn duration(
    name: &'static str,
    side: Side,
    kind: Kind,
    unit: &'static str,
    newer: Option<&'static str>,
) -> Duration {
    Duration {
        name,
        side,
        kind,
        unit,
        newer,
    }
}

static DURATIONS: [Duration; 11] = [
    duration(names::SERVER_DURATION, Side::Server, Kind::Http, "s", None),
    duration(names::CLIENT_DURATION, Side::Client, Kind::Http, "s", None),
    duration(
        "http.server.duration",
        Side::Server,
        Kind::Http,
        "ms",
        Some(names::SERVER_DURATION),
    ),
    duration(
        "http.client.duration",
        Side::Client,
        Kind::Http,
        "ms",
        Some(names::CLIENT_DURATION),
    ),
    duration("rpc.server.call.duration", Side::Server, Kind::Rpc, "s", None),
    duration("rpc.client.call.duration", Side::Client, Kind::Rpc, "s", None),
    duration(
        "rpc.server.duration",
        Side::Server,
        Kind::Rpc,
        "ms",
        Some("rpc.server.call.duration"),
    ),
    duration(
        "rpc.client.duration",
        Side::Client,
        Kind::Rpc,
        "ms",
        Some("rpc.client.call.duration"),
    ),
    duration("grpc.server.call.duration", Side::Server, Kind::Rpc, "s", None),
    duration("grpc.client.call.duration", Side::Client, Kind::Rpc, "s", None),
    duration(
        "grpc.client.attempt.duration",
        Side::Client,
        Kind::Rpc,
        "s",
        Some("grpc.client.call.duration"),
    ),
];

/// Names of Connect, which has gRPC's codes and says them in its own words: before and since 1.39.
const CONNECT: [&str; 2] = ["connect_rpc", "connectrpc"];

/// Codes of gRPC by name.
const GRPC_CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

impl Duration {
    /// The metric with this name.
    pub(super) fn named(name: &str) -> Option<&'static Duration> {
        DURATIONS.iter().find(|duration| duration.name == name)
    }

    /// A metric's unit in seconds; `None` if it is not a unit of time.
    pub(super) fn seconds(&self, unit: &str) -> Option<f64> {
        match if unit.is_empty() { self.unit } else { unit } {
            "s" | "seconds" | "second" => Some(1.0),
            "ms" | "milliseconds" | "millisecond" => Some(1e-3),
            "us" | "µs" | "microseconds" => Some(1e-6),
            "ns" | "nanoseconds" => Some(1e-9),
            _ => None,
        }
    }

    /// True for a request whose caller left: for a handler that is cancelled this instrumentation says nothing, for one that fails
    /// it has an error, but only since the names are new.
    fn gave_up(&self, series: &RequestSeries, writer: Writer<'_>, failed: bool) -> bool {
        let tells = writer.scope == "opentelemetry.instrumentation.aiohttp_server" && self.newer.is_none();
        tells && self.side == Side::Server && series.status == 0 && !failed
    }

    /// What the attributes of a point say; without the duration.
    pub(super) fn series(&self, attributes: &[KeyValue], writer: Writer<'_>) -> RequestSeries {
        let of = |keys: &[&str]| {
            keys.iter()
                .find_map(|key| find_text(attributes, key).filter(|text| !text.is_empty()))
        };
        // On the server's side, the address is this server's own name.
        let (peer, destination) = match (self.side, writer.own) {
            (Side::Client, true) => (find_peer(attributes), of(&[names::DESTINATION])),
            (Side::Client, false) => match find_peer(attributes).filter(|peer| peer.version != UNKNOWN) {
                Some(peer) => (Some(peer), None),
                None => (None, called(attributes)),
            },
            (Side::Server, _) => (find_peer(attributes), None),
        };
        let error_type = of(&[names::ERROR_TYPE]);
        let mut series = RequestSeries {
            side: self.side,
            route: ROUTE_OTHER.to_owned(),
            method: of(&[names::METHOD, "http.method"]).unwrap_or_default(),
            peer,
            destination: destination.unwrap_or_default(),
            protocol: String::new(),
            status: 0,
            error: false,
            duration: Histogram::new(),
            streaming_s: 0.0,
            request_bytes: 0,
            response_bytes: 0,
            open: 0,
        };
        match self.kind {
            Kind::Http => {
                let in_target = self.newer.is_some() && writer.has_route_in_target();
                let template = (self.side == Side::Client).then(|| of(&["url.template"])).flatten();
                let found = of(&[names::ROUTE])
                    .or(template)
                    .or_else(|| in_target.then(|| of(&["http.target"])).flatten());
                if let Some(found) = found {
                    series.route = if writer.own {
                        found
                    } else {
                        route::of_path(&found).into_owned()
                    };
                }
                let status = find_int(attributes, names::STATUS).or_else(|| find_int(attributes, "http.status_code"));
                series.status = status.and_then(|status| u16::try_from(status).ok()).unwrap_or(0);
                series.protocol = http_protocol(attributes);
                if self.gave_up(&series, writer, error_type.is_some()) {
                    series.status = CALLER_LEFT;
                }
                series.error = match series.status {
                    _ if writer.own => error_type.is_some(),
                    500.. => true,
                    0 if writer.scope.starts_with(PYTHON) => true,
                    // Senders call 4xx an error of the caller; here it is an answer.
                    400..500 => false,
                    _ => error_type.is_some(),
                };
            }
            Kind::Rpc => {
                let system = of(&["rpc.system.name", "rpc.system"]).unwrap_or_else(|| "grpc".to_owned());
                let is_grpc = system == "grpc";
                series.protocol = if is_grpc {
                    Protocol::Grpc.name().to_owned()
                } else {
                    system
                };
                if is_grpc {
                    "POST".clone_into(&mut series.method);
                }
                // Names of unregistered methods, in both conventions.
                let is_known = |method: &String| !["_OTHER", "other"].contains(&method.as_str());
                let method = of(&["rpc.method", "grpc.method"]).filter(is_known);
                series.route = match (of(&["rpc.service"]), method) {
                    (_, Some(method)) if method.contains('/') => format!("/{}", method.trim_start_matches('/')),
                    (Some(service), Some(method)) => format!("/{service}/{method}"),
                    _ => ROUTE_OTHER.to_owned(),
                };
                let code = of(&[
                    "rpc.response.status_code",
                    "rpc.grpc.status_code",
                    "grpc.status",
                    "rpc.connect_rpc.error_code",
                ]);
                series.status = code.as_deref().map_or(0, grpc_code);
                series.error = match (is_grpc || CONNECT.contains(&series.protocol.as_str()), code) {
                    (true, Some(_)) => StatusKind::Grpc.is_server_error(series.status),
                    _ => error_type.is_some(),
                };
            }
        }
        series
    }
}

fn grpc_code(text: &str) -> u16 {
    // In Connect's spelling.
    let text = if text == "canceled" { "CANCELLED" } else { text };
    let by_name = |text: &str| {
        GRPC_CODES
            .iter()
            .position(|name| name.eq_ignore_ascii_case(text))
            .map(|at| at as u16)
    };
    text.parse().ok().or_else(|| by_name(text)).unwrap_or(2)
}

/// The protocol's name as in our proxies.
fn http_protocol(attributes: &[KeyValue]) -> String {
    let name = find_text(attributes, names::PROTOCOL).unwrap_or_default();
    let version = ["network.protocol.version", "http.flavor", "net.protocol.version"];
    let version = version.iter().find_map(|key| find_text(attributes, key));
    match (name.as_str(), version.as_deref()) {
        ("" | "http", Some("2" | "2.0")) => Protocol::Http2.name().to_owned(),
        ("" | "http", Some("3" | "3.0")) => Protocol::Http3.name().to_owned(),
        ("" | "http", _) => Protocol::Http1.name().to_owned(),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;

    use super::*;
    use crate::otlp::{attribute, text};

    const THIRD_PARTY: Writer<'_> = Writer {
        scope: "",
        version: "",
        own: false,
    };

    fn series(name: &str, scope: &str, attributes: &[(&str, &str)]) -> RequestSeries {
        let attributes: Vec<KeyValue> = attributes
            .iter()
            .map(|(key, value)| match value.parse() {
                Ok(number) => attribute(key, Value::IntValue(number)),
                Err(_) => text(key, value),
            })
            .collect();
        Duration::named(name)
            .unwrap()
            .series(&attributes, Writer { scope, ..THIRD_PARTY })
    }

    #[test]
    fn routes_are_templates_and_never_paths() {
        let flask = "opentelemetry.instrumentation.flask";
        let tornado = "opentelemetry.instrumentation.tornado";
        for (name, scope, attributes, route) in [
            (
                "http.server.request.duration",
                "",
                vec![("http.route", "/quote/:id"), ("url.path", "/quote/7")],
                "/quote/{id}",
            ),
            (
                "http.server.request.duration",
                "",
                vec![("url.path", "/quote/7")],
                "other",
            ),
            (
                "http.server.request.duration",
                flask,
                vec![("http.target", "/quote/7")],
                "other",
            ),
            (
                "http.server.duration",
                flask,
                vec![("http.target", "/quote/<int:item>")],
                "/quote/{item}",
            ),
            (
                "http.server.duration",
                flask,
                vec![("http.target", "/a"), ("http.route", "/b")],
                "/b",
            ),
            (
                "http.server.duration",
                tornado,
                vec![("http.target", "/quote/7")],
                "other",
            ),
            (
                "http.server.duration",
                "opentelemetry.instrumentation.aiohttp_server",
                vec![("http.target", "/quote/7")],
                "other",
            ),
            (
                "http.client.request.duration",
                "",
                vec![("url.template", "/quote/{id}")],
                "/quote/{id}",
            ),
            (
                "http.server.request.duration",
                "",
                vec![("http.route", "quote/<id>/")],
                "/quote/{id}",
            ),
            (
                "rpc.server.duration",
                "",
                vec![("rpc.service", "shop.Cart"), ("rpc.method", "Add")],
                "/shop.Cart/Add",
            ),
            (
                "rpc.server.call.duration",
                "",
                vec![("rpc.method", "shop.Cart/Add")],
                "/shop.Cart/Add",
            ),
            ("rpc.server.call.duration", "", vec![("rpc.method", "_OTHER")], "other"),
            (
                "grpc.server.call.duration",
                "grpc-python",
                vec![("grpc.method", "shop.Cart/Total")],
                "/shop.Cart/Total",
            ),
            ("grpc.server.call.duration", "", vec![("grpc.method", "other")], "other"),
        ] {
            assert_eq!(series(name, scope, &attributes).route, route, "{name} {attributes:?}");
        }
    }

    /// `findings/failed-calls-of-python-clients-have-no-error.sh` and `findings/starlette-counts-an-exception-without-a-status.sh`
    #[test]
    fn a_request_of_python_without_a_status_failed() {
        let of = |name: &str, scope: &str, attributes: &[(&str, &str)]| {
            let found = series(name, scope, attributes);
            (found.status, found.error)
        };
        let (client, server) = ("http.client.request.duration", "http.server.request.duration");
        let aiohttp = "opentelemetry.instrumentation.aiohttp_client";
        assert_eq!(of(client, aiohttp, &[("server.address", "cart")]), (0, true));
        let requests = "opentelemetry.instrumentation.requests";
        assert_eq!(
            of("http.client.duration", requests, &[("net.peer.name", "cart")]),
            (0, true)
        );
        assert_eq!(
            of(server, "shop", &[("http.route", "/quote")]),
            (0, false),
            "made by hand"
        );
        let starlette = "opentelemetry.instrumentation.starlette";
        assert_eq!(of(server, starlette, &[("http.route", "/boom")]), (0, true));
        assert_eq!(of("http.server.duration", starlette, &[]), (0, true));
        assert_eq!(
            of(server, starlette, &[("http.response.status_code", "200")]),
            (200, false)
        );
        // There a handler that fails has an error, and one that is cancelled with its caller has none.
        let aiohttp = "opentelemetry.instrumentation.aiohttp_server";
        assert_eq!(of(server, aiohttp, &[("http.route", "/slow")]), (CALLER_LEFT, false));
        assert_eq!(of(server, aiohttp, &[("error.type", "ValueError")]), (0, true));
        assert_eq!(of("http.server.duration", aiohttp, &[]), (0, true));
        // Our own say what failed.
        let own = Writer {
            own: true,
            ..THIRD_PARTY
        };
        assert!(!Duration::named(server).unwrap().series(&[], own).error);
    }

    /// `findings/connect-calls-every-refusal-an-error.sh`
    #[test]
    fn calls_of_connect_are_judged_by_their_code() {
        let of = |code: &str| {
            let attributes = [
                ("rpc.system.name", "connectrpc"),
                ("rpc.method", "shop.Cart/Total"),
                ("error.type", "ConnectError"),
                ("rpc.response.status_code", code),
            ];
            let found = series("rpc.server.call.duration", "connectrpc-otel", &attributes);
            let kind = StatusKind::of_name(&found.protocol);
            (found.status, found.error, kind.is_given_up(found.status))
        };
        assert_eq!(of("not_found"), (5, false, false));
        assert_eq!(of("invalid_argument"), (3, false, false));
        assert_eq!(of("canceled"), (1, false, true));
        assert_eq!(of("internal"), (13, true, false));
        // Without an error, as instrumentations of the older names write it.
        let old = [
            ("rpc.system", "connect_rpc"),
            ("rpc.connect_rpc.error_code", "unavailable"),
        ];
        let old = series("rpc.server.duration", "", &old);
        assert_eq!((old.status, old.error), (14, true));
    }

    #[test]
    fn a_caller_names_whom_it_asked_for_and_never_an_address() {
        let called = |name: &str, attributes: &[(&str, &str)]| {
            let series = series(name, "", attributes);
            assert_eq!(series.peer, None, "a name is no release: {attributes:?}");
            series.destination
        };
        for (attributes, expected) in [
            (
                vec![("server.address", "api.pay.example"), ("server.port", "443")],
                "api.pay.example",
            ),
            (vec![("net.peer.name", "Inventory")], "inventory"),
            (
                vec![("server.address", "inventory.prod.svc.cluster.local.")],
                "prod/inventory",
            ),
            (vec![("server.address", "10.0.0.1")], ""),
            (vec![("server.address", "[::1]")], ""),
            (vec![("server.address", "localhost")], ""),
            (vec![("server.address", "/run/app.sock")], ""),
            (
                vec![("http.url", "http://cart.shop.svc:8080/item/7?q=a:1")],
                "shop/cart",
            ),
            (vec![("http.url", "https://user@pay.example/")], "pay.example"),
            (vec![("http.url", "http://[::1]:8080/")], ""),
            (vec![("http.url", "http://10.0.0.1/")], ""),
            (vec![("http.url", "/item/7")], ""),
            (vec![("server.address", "db"), ("peer.service", "orders")], "orders"),
            (
                vec![
                    ("server.address", "db"),
                    ("service.peer.name", "orders"),
                    ("service.peer.namespace", "shop"),
                ],
                "shop/orders",
            ),
        ] {
            assert_eq!(
                called("http.client.request.duration", &attributes),
                expected,
                "{attributes:?}"
            );
        }
        for (target, expected) in [
            ("dns:///cart.shop.svc:8080", "shop/cart"),
            ("dns:cart", "cart"),
            ("cart:8080", "cart"),
            ("xds:///cart", "cart"),
            ("127.0.0.1:8080", ""),
            ("ipv4:127.0.0.1:8080", ""),
            ("unix:/run/cart.sock", ""),
            ("unix:///run/cart.sock", ""),
        ] {
            let attributes = [("grpc.target", target), ("grpc.method", "shop.Cart/Total")];
            assert_eq!(
                called("grpc.client.attempt.duration", &attributes),
                expected,
                "{target}"
            );
        }
        let own_name = [("server.address", "shop.example")];
        assert_eq!(called("http.server.request.duration", &own_name), "");
        let known = [("service.peer.name", "orders"), ("emberline.peer.version", "v3")];
        let known = series("http.client.request.duration", "", &known);
        let peer = known.peer.map(|release| release.to_string());
        assert_eq!((peer.as_deref(), known.destination.as_str()), (Some("orders@v3"), ""));
    }

    #[test]
    fn statuses_errors_and_protocols_of_both_generations_are_read() {
        let http = |attributes: &[(&str, &str)]| {
            let found = series("http.client.request.duration", "", attributes);
            (found.status, found.error, found.protocol)
        };
        let one = || "http/1.1".to_owned();
        assert_eq!(
            http(&[("http.response.status_code", "404"), ("error.type", "404")]),
            (404, false, one())
        );
        assert_eq!(
            http(&[("http.status_code", "503"), ("http.flavor", "2.0")]),
            (503, true, "http/2".to_owned())
        );
        assert_eq!(
            http(&[("error.type", "timeout"), ("network.protocol.name", "http")]),
            (0, true, one())
        );
        let rpc = |attributes: &[(&str, &str)]| {
            let found = series("rpc.server.duration", "", attributes);
            (found.status, found.error, found.protocol, found.method)
        };
        let grpc = || "grpc".to_owned();
        assert_eq!(
            rpc(&[("rpc.system", "grpc"), ("rpc.grpc.status_code", "14")]),
            (14, true, grpc(), "POST".into())
        );
        assert_eq!(
            rpc(&[("rpc.response.status_code", "NOT_FOUND"), ("error.type", "NOT_FOUND")]),
            (5, false, grpc(), "POST".into())
        );
        assert_eq!(
            rpc(&[("grpc.method", "shop.Cart/Total"), ("grpc.status", "UNAVAILABLE")]),
            (14, true, grpc(), "POST".into())
        );
        assert_eq!(rpc(&[("rpc.response.status_code", "odd")]).0, 2);
        assert!(rpc(&[("rpc.system.name", "connectrpc"), ("error.type", "unavailable")]).1);
    }
}
