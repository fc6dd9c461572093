//! Query parameters. Guarantees: a parameter that an endpoint does not know, that occurs twice or that does not parse
//! is refused by name (a typo never silently widens a query); and the same table that parses them describes them in the
//! OpenAPI document.
//!
//! An empty value means "not given", as in forms and links.

use emberline_model::{Side, comparison::Per, workload::Component};
use emberline_storage::Range;

use crate::{
    http::error::{ApiError, shorten},
    query::{names, times},
};

/// How a parameter is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// See [`times::parse`].
    Time,
    /// A non-negative integer.
    Count,
    /// The identifier of a node of a tree.
    Node,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

/// One parameter of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parameter {
    /// As in the URL.
    pub(crate) name: &'static str,
    /// Its values.
    pub(crate) kind: Kind,
    /// The query makes no sense without it.
    pub(crate) required: bool,
    /// For readers of the OpenAPI document.
    pub(crate) description: &'static str,
}

const fn parameter(name: &'static str, kind: Kind, description: &'static str) -> Parameter {
    Parameter {
        name,
        kind,
        required: false,
        description,
    }
}

pub(crate) const FROM: Parameter = parameter(
    "from",
    Kind::Time,
    "Start: Unix seconds (integer or decimal), `now`, or `now-15m` (s, m, h, d). Default: `now-1h`.",
);
pub(crate) const TO: Parameter = parameter(
    "to",
    Kind::Time,
    "End (exclusive), in the same format as `from`. Default: `now`.",
);
pub(crate) const NAMESPACE: Parameter = parameter(
    "namespace",
    Kind::Text,
    "Namespace of the service; needed only if the name exists in several. `(none)` is the empty namespace.",
);
pub(crate) const SERVICE: Parameter = Parameter {
    required: true,
    ..parameter("service", Kind::Text, "Name of the service.")
};
pub(crate) const CONFIRM: Parameter = Parameter {
    required: true,
    ..parameter(
        "confirm",
        Kind::Text,
        "The service name again, to confirm: a deletion cannot be undone.",
    )
};
pub(crate) const VERSION: Parameter = parameter(
    "version",
    Kind::Text,
    "Version. Default: the newest release in the range.",
);
pub(crate) const INSTANCE: Parameter = parameter("instance", Kind::Text, "Only this instance.");
pub(crate) const ROUTE: Parameter = parameter(
    "route",
    Kind::Text,
    "Route template, for example `/cart/{id}`; `(none)` selects samples outside of requests. Default: all.",
);
pub(crate) const COMPONENT: Parameter = parameter(
    "component",
    Kind::OneOf(&["application", "proxy"]),
    "Component to profile. Default: `application` if it is profiled, else `proxy`.",
);
pub(crate) const SIDE: Parameter = parameter(
    "side",
    Kind::OneOf(&["server", "client"]),
    "Side of the edge that the work was done for. Default for comparisons: `server`.",
);
pub(crate) const PROFILE_TYPE: Parameter = parameter(
    "profile_type",
    Kind::Text,
    "`name:sample_type:unit:period_type:period_unit`. Default: `process_cpu:cpu:nanoseconds:cpu:nanoseconds`.",
);
pub(crate) const LIMIT: Parameter = parameter(
    "limit",
    Kind::Count,
    "Display limit of the tree in nodes; the rest is summed up in cut nodes. 0 means no limit. Default: 8192. It affects neither the function table nor exports.",
);
pub(crate) const NODE: Parameter = parameter(
    "node",
    Kind::Node,
    "Only the subtree below this node: 16 hexadecimal digits from the column `node` of a response to the same query. `limit` then applies to the subtree.",
);
pub(crate) const SELECTOR: Parameter = parameter(
    "selector",
    Kind::Text,
    "Samples to select, for example `{service=\"checkout\",version=~\"v1|v2\"}`: operators `=`, `!=`, `=~`, `!~`; regular expressions must match the whole value; a missing label is empty. Labels: namespace, service, version, instance, component, side, route. Default: all.",
);
pub(crate) const GROUP_BY: Parameter = parameter(
    "group_by",
    Kind::Text,
    "Comma-separated labels; one series per combination of their values. Default: none, a single series.",
);
pub(crate) const STEP: Parameter = parameter(
    "step",
    Kind::Count,
    "Seconds per point; points start at multiples of it. Default: about 120 points, at least one window (10 s) each.",
);
pub(crate) const AGGREGATION: Parameter = parameter(
    "aggregation",
    Kind::OneOf(&["sum", "average"]),
    "`sum` adds up the windows of a step, `average` divides by their number. Default: gauges are averaged per instance and summed over instances, all other types summed.",
);
pub(crate) const SERIES_LIMIT: Parameter = parameter(
    "series_limit",
    Kind::Count,
    "Maximum number of series; those with the largest sums are kept, the rest is summed up in `series_cut`. Default: 100, at most 1000.",
);
pub(crate) const TRACE_ID: Parameter = parameter(
    "trace_id",
    Kind::Text,
    "Comma-separated trace IDs to select, 32 hexadecimal digits each. Default: all.",
);
pub(crate) const SPAN_ID: Parameter = parameter(
    "span_id",
    Kind::Text,
    "Comma-separated span IDs to select, 16 hexadecimal digits each. Default: all.",
);
pub(crate) const EXEMPLARS_LIMIT: Parameter = parameter(
    "exemplars_limit",
    Kind::Count,
    "Maximum number of samples, oldest first; `found` and `value` are not affected. Default: 100, at most 10000.",
);
pub(crate) const LABEL: Parameter = Parameter {
    required: true,
    ..parameter("label", Kind::Text, "Name of a label, for example `version`.")
};
pub(crate) const FUNCTION: Parameter = Parameter {
    required: true,
    ..parameter(
        "function",
        Kind::Text,
        "A function: its name, or its ID (16 hexadecimal digits) from a function table.",
    )
};
pub(crate) const FUNCTIONS_LIMIT: Parameter = parameter(
    "functions_limit",
    Kind::Count,
    "Rows of the function table; the rest is summed up in `functions_cut`. Default: all.",
);
pub(crate) const PER: Parameter = parameter(
    "per",
    Kind::OneOf(&["request", "second", "total", "best"]),
    "What costs are divided by. `best`: requests if both sides have both signals, else seconds. Default: `request`.",
);
pub(crate) const BASELINE: Parameter = parameter(
    "baseline",
    Kind::Text,
    "Baseline version. Default: the release before the candidate.",
);
pub(crate) const CANDIDATE: Parameter = parameter(
    "candidate",
    Kind::Text,
    "Candidate version. Default: the newest release.",
);
pub(crate) const BASELINE_FROM: Parameter = parameter(
    "baseline_from",
    Kind::Time,
    "Start for the baseline only. Default: `from`.",
);
pub(crate) const BASELINE_TO: Parameter =
    parameter("baseline_to", Kind::Time, "End for the baseline only. Default: `to`.");
pub(crate) const CANDIDATE_FROM: Parameter = parameter(
    "candidate_from",
    Kind::Time,
    "Start for the candidate only. Default: `from`.",
);
pub(crate) const CANDIDATE_TO: Parameter =
    parameter("candidate_to", Kind::Time, "End for the candidate only. Default: `to`.");
pub(crate) const FORMAT: Parameter = parameter(
    "format",
    Kind::OneOf(&[
        "json",
        "pprof",
        "folded",
        "speedscope",
        "firefox",
        "svg",
        "html",
        "columns",
    ]),
    "Default: the Accept header's choice if it names exactly one of them (`application/vnd.speedscope+json`, `application/vnd.firefox-profiler+json` and `application/vnd.emberline.columns` for those three), else `json`. `columns` is the `json` response as JsonSlabs, with the tree as typed arrays: preorder, depth and self values (times `scale`), from which totals follow.",
);
pub(crate) const ALERT_STATE: Parameter = parameter(
    "state",
    Kind::OneOf(&["all", "firing"]),
    "`firing` omits suspected, recovering and resolved alerts. Default: `all`.",
);

/// The value of `route` and `namespace` that selects data without one.
pub(crate) const NONE: &str = emberline_storage::NO_LABEL;

/// The parameters of one query, checked against what the endpoint knows.
#[derive(Debug)]
pub(crate) struct Params {
    given: Vec<(&'static Parameter, String)>,
    now_unix_ns: i64,
}

impl Params {
    /// Parses a query string. `now_unix_ns` is the meaning of `now`, once for the whole query.
    pub(crate) fn read(query: Option<&str>, known: &'static [Parameter], now_unix_ns: i64) -> Result<Params, ApiError> {
        let mut given: Vec<(&'static Parameter, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let Some(parameter) = known.iter().find(|p| p.name == name) else {
                return Err(unknown_parameter(&name, known));
            };
            if given.iter().any(|(p, _)| p.name == name) {
                return Err(ApiError::bad_request(
                    "bad_parameter",
                    format!("parameter `{name}` is set twice: set it once"),
                ));
            }
            if let Kind::OneOf(words) = parameter.kind
                && !value.is_empty()
                && !words.contains(&value.as_ref())
            {
                let message = format!("`{name}={}` is not one of: {}", shorten(&value), words.join(", "));
                return Err(ApiError::bad_request("bad_parameter", message));
            }
            given.push((parameter, value.into_owned()));
        }
        let params = Params { given, now_unix_ns };
        for parameter in known.iter().filter(|p| p.required) {
            if params.text(parameter).is_none() {
                let message = format!("parameter `{}` is missing: {}", parameter.name, parameter.description);
                return Err(ApiError::bad_request("missing_parameter", message));
            }
        }
        Ok(params)
    }

    /// The value of a parameter; `None` if missing or empty.
    pub(crate) fn text(&self, parameter: &Parameter) -> Option<&str> {
        let found = self.given.iter().find(|(p, _)| p.name == parameter.name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A whole number.
    pub(crate) fn count(&self, parameter: &Parameter) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.text(parameter) else {
            return Ok(None);
        };
        match text.parse::<usize>() {
            Ok(count) => Ok(Some(count)),
            Err(_) => {
                let message = format!("`{}={}` is not a non-negative integer", parameter.name, shorten(text));
                Err(ApiError::bad_request("bad_parameter", message))
            }
        }
    }

    /// The node below which a tree is requested.
    pub(crate) fn node(&self) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.text(&NODE) else {
            return Ok(None);
        };
        match id(text) {
            Some(node) => Ok(Some(node)),
            None => {
                let message = format!("`node={}` is not 16 hexadecimal digits", shorten(text));
                Err(ApiError::bad_request("bad_parameter", message))
            }
        }
    }

    /// Refuses `node` if the response is not a tree to look at: a file always contains the whole tree.
    pub(crate) fn no_node_in_files(&self, is_file: bool) -> Result<(), ApiError> {
        if is_file && self.text(&NODE).is_some() {
            let message = "`node` selects a subtree, but exports contain the whole tree: remove `node` or `format`";
            return Err(ApiError::bad_request("bad_parameter", message));
        }
        Ok(())
    }

    /// A range of times with its defaults; `from` is rounded down and `to` up to whole seconds.
    pub(crate) fn range(&self, from: &Parameter, to: &Parameter) -> Result<Range, ApiError> {
        let read = |own: &Parameter, shared: &Parameter, default: &str| {
            let (name, text) = match (self.text(own), self.text(shared)) {
                (Some(text), _) => (own.name, text),
                (None, Some(text)) => (shared.name, text),
                (None, None) => (shared.name, default),
            };
            times::parse(text, self.now_unix_ns)
                .map_err(|why| ApiError::bad_request("bad_time", format!("`{name}={}`: {why}", shorten(text))))
        };
        let from_s = read(from, &FROM, "now-1h")?.floor() as i64;
        let to_s = read(to, &TO, "now")?.ceil() as i64;
        if from_s >= to_s {
            let message = format!("`{}` ({from_s}) must be before `{}` ({to_s})", from.name, to.name);
            return Err(ApiError::bad_request("bad_range", message));
        }
        Ok(Range {
            from_unix_s: from_s,
            to_unix_s: to_s,
        })
    }

    /// The shared range.
    pub(crate) fn shared_range(&self) -> Result<Range, ApiError> {
        self.range(&FROM, &TO)
    }

    /// The component, if given.
    pub(crate) fn component(&self) -> Option<Component> {
        // `read` accepts only words that parse.
        self.text(&COMPONENT).and_then(|text| text.parse().ok())
    }

    /// The side, if given.
    pub(crate) fn side(&self) -> Option<Side> {
        self.text(&SIDE).map(|text| {
            if text == Side::Client.as_str() {
                Side::Client
            } else {
                Side::Server
            }
        })
    }

    /// What costs are divided by; `None`: whatever is possible.
    pub(crate) fn per(&self) -> Option<Per> {
        match self.text(&PER) {
            Some("best") => None,
            text => Some(text.and_then(|text| text.parse().ok()).unwrap_or_default()),
        }
    }
}

/// An identifier as in responses: 16 hexadecimal digits.
pub(crate) fn id(text: &str) -> Option<u64> {
    let plain = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if plain {
        u64::from_str_radix(text, 16).ok()
    } else {
        None
    }
}

fn unknown_parameter(name: &str, known: &'static [Parameter]) -> ApiError {
    let message = match names::nearest(name, known.iter().map(|p| p.name)).first() {
        None => format!("unknown parameter `{}`: this endpoint takes none", shorten(name)),
        Some(nearest) => {
            let all: Vec<&str> = known.iter().map(|p| p.name).collect();
            format!(
                "unknown parameter `{}`: did you mean `{nearest}`? Known: {}",
                shorten(name),
                all.join(", ")
            )
        }
    };
    ApiError::bad_request("unknown_parameter", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: &[Parameter] = &[SERVICE, FROM, TO, PER, LIMIT];
    const NOW: i64 = 10_000 * 1_000_000_000;

    fn read(query: &str) -> Result<Params, ApiError> {
        Params::read(Some(query), KNOWN, NOW)
    }

    #[test]
    fn a_typo_is_refused_with_the_name_that_was_meant() {
        let error = read("service=a&frmo=now").unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (400, "unknown_parameter"));
        assert!(
            error.message.contains("`frmo`") && error.message.contains("`from`"),
            "{}",
            error.message
        );
    }

    #[test]
    fn missing_repeated_and_unparsable_values_are_refused_by_name() {
        for (query, code, named) in [
            ("", "missing_parameter", "service"),
            ("service=", "missing_parameter", "service"),
            ("service=a&service=b", "bad_parameter", "service"),
            ("service=a&per=hour", "bad_parameter", "per"),
        ] {
            let error = read(query).unwrap_err();
            assert_eq!(error.code, code, "{query}");
            assert!(error.message.contains(named), "{query}: {}", error.message);
        }
        assert_eq!(
            read("service=a&limit=-1").unwrap().count(&LIMIT).unwrap_err().code,
            "bad_parameter"
        );
        assert_eq!(
            read("service=a&from=now&to=now-1m")
                .unwrap()
                .shared_range()
                .unwrap_err()
                .code,
            "bad_range"
        );
        assert_eq!(
            read("service=a&from=tomorrow")
                .unwrap()
                .shared_range()
                .unwrap_err()
                .code,
            "bad_time"
        );
    }

    #[test]
    fn ranges_default_and_round_outwards() {
        let range = read("service=a").unwrap().shared_range().unwrap();
        assert_eq!((range.from_unix_s, range.to_unix_s), (6_400, 10_000));
        let range = read("service=a&from=100.7&to=101.2").unwrap().shared_range().unwrap();
        assert_eq!((range.from_unix_s, range.to_unix_s), (100, 102));
    }

    #[test]
    fn values_are_percent_decoded() {
        let params = read("service=%2Fcart%2F%7Bid%7D+x%zz").unwrap();
        assert_eq!(params.text(&SERVICE), Some("/cart/{id} x%zz"));
    }

    proptest! {
        #[test]
        fn any_query_string_is_answered_without_panic(query in ".{0,60}") {
            match read(&query) {
                Ok(params) => {
                    let bytes: usize = KNOWN.iter().filter_map(|known| params.text(known)).map(str::len).sum();
                    // A byte that is not text takes three.
                    prop_assert!(bytes <= 3 * query.len());
                }
                Err(error) => prop_assert_eq!(error.status.as_u16(), 400),
            }
        }
    }
}
