//! Who wrote a metric, and what is known of some of them that no attribute says.
//!
//! Guarantees: a request that two scopes of one process measure is counted by one of them; where a path is expected and a version of
//! an instrumentation has the route, it is taken for one from that version on.
//!
//! Wrong on purpose: what is known holds for a scope's name, whoever uses it; requests that only the scope that gives way has seen (of
//! another server in the process) are lost.

/// Instrumentations that put the route, and not the path, into `http.target` of their metrics under the old names, and the
/// first version (`major.minor`) that does. Others put the path there.
const ROUTE_IN_TARGET: [(&str, (u32, u32)); 6] = [
    ("opentelemetry.instrumentation.flask", (0, 0)),
    ("opentelemetry.instrumentation.django", (0, 0)),
    ("opentelemetry.instrumentation.asgi", (0, 0)),
    ("opentelemetry.instrumentation.fastapi", (0, 0)),
    ("opentelemetry.instrumentation.starlette", (0, 0)),
    ("opentelemetry.instrumentation.tornado", (0, 64)),
];

/// Scopes whose server durations are those of another scope of the same process, by which they are counted: a framework that measures
/// itself inside a middleware, and the server inside which a framework is measured with its routes.
const COUNTED_BY: [(&str, &[&str]); 2] = [
    (
        "fastapi",
        &[
            "opentelemetry.instrumentation.asgi",
            "opentelemetry.instrumentation.fastapi",
            "opentelemetry.instrumentation.starlette",
        ],
    ),
    ("@opentelemetry/instrumentation-http", &["@hono/otel"]),
];

/// How the names of Python's instrumentations begin. They give a request its status when there was an answer, and most of them say
/// no other word where there was none; a metric that somebody made by hand may have no statuses at all.
pub(super) const PYTHON: &str = "opentelemetry.instrumentation.";

/// True when a scope's server durations are counted by one of the others that measure in the same process.
pub(super) fn counted_by_another(scope: &str, measuring: &[&str]) -> bool {
    let known = COUNTED_BY.iter().find(|(name, _)| *name == scope);
    known.is_some_and(|(_, by)| by.iter().any(|by| measuring.contains(by)))
}

/// Who wrote a point.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer<'a> {
    /// Name of the instrumentation.
    pub(super) scope: &'a str,
    /// Its version.
    pub(super) version: &'a str,
    /// One of our own proxies or libraries, whose routes and errors are what they say.
    pub(super) own: bool,
}

impl Writer<'_> {
    /// True when the route is in `http.target`.
    pub(super) fn has_route_in_target(&self) -> bool {
        let mut numbers = self.version.split('.').map(|part| {
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..end].parse::<u32>().unwrap_or(0)
        });
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        ROUTE_IN_TARGET
            .iter()
            .any(|(scope, since)| *scope == self.scope && version >= *since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `findings/tornado-counts-a-failed-request-twice.sh`
    #[test]
    fn the_version_decides_whether_a_target_is_a_route() {
        let has_route = |scope, version| {
            let writer = Writer {
                scope,
                version,
                own: false,
            };
            writer.has_route_in_target()
        };
        let tornado = "opentelemetry.instrumentation.tornado";
        for version in ["0.66b1", "0.64b0", "1.2"] {
            assert!(has_route(tornado, version), "{version}");
        }
        for version in ["0.63b0", "0.9", "", "b1"] {
            assert!(!has_route(tornado, version), "{version}");
        }
        assert!(has_route("opentelemetry.instrumentation.flask", ""));
        assert!(!has_route("opentelemetry.instrumentation.aiohttp_server", "0.66b1"));
    }
}
