//! Conditions of rules on the head of a request.
//!
//! Guarantees: a rule matches a request if all its conditions hold; matching allocates nothing.
//!
//! Wrong on purpose: paths and query parameters are compared as sent (`%2F` is not `/`, `+` is not a space); if a
//! header or parameter occurs several times, one matching value is enough.

use http::{HeaderMap, HeaderName, Method, request::Parts};

use super::{RouteTable, Template};
use crate::config::{PathMatch, RuleConfig, ValueMatch};

/// The conditions of one rule.
#[derive(Debug)]
pub(crate) struct Matcher {
    path: Path,
    methods: Vec<Method>,
    headers: Vec<HeaderMatcher>,
    query: Vec<(String, Text)>,
    /// A name that no method can have: nothing matches.
    is_impossible: bool,
}

/// A condition on a header, on its own.
#[derive(Debug)]
pub(crate) struct HeaderMatcher(Option<(HeaderName, Text)>);

impl HeaderMatcher {
    pub(crate) fn new(wanted: &ValueMatch) -> HeaderMatcher {
        HeaderMatcher(wanted.name.parse().ok().map(|name| (name, Text::new(wanted))))
    }

    /// Whether it holds; never for an invalid header name.
    pub(crate) fn matches(&self, headers: &HeaderMap) -> bool {
        let Some((name, text)) = &self.0 else { return false };
        headers.get_all(name).iter().any(|value| text.matches(value.as_bytes()))
    }
}

#[derive(Debug)]
enum Path {
    Any,
    Exact(String),
    Prefix(String),
    Template(RouteTable),
}

#[derive(Debug)]
enum Text {
    Any,
    Exact(String),
    Prefix(String),
}

impl Text {
    fn new(wanted: &ValueMatch) -> Text {
        match (&wanted.exact, &wanted.prefix) {
            (Some(exact), _) => Text::Exact(exact.clone()),
            (None, Some(prefix)) => Text::Prefix(prefix.clone()),
            (None, None) => Text::Any,
        }
    }

    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Text::Any => true,
            Text::Exact(exact) => value == exact.as_bytes(),
            Text::Prefix(prefix) => value.starts_with(prefix.as_bytes()),
        }
    }
}

impl Path {
    fn new(wanted: Option<&PathMatch>) -> Path {
        match wanted {
            None => Path::Any,
            Some(PathMatch::Exact(path)) => Path::Exact(path.clone()),
            Some(PathMatch::Prefix(path)) => Path::Prefix(path.clone()),
            Some(PathMatch::Template(template)) => Path::Template(only(template)),
        }
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Path::Any => true,
            Path::Exact(exact) => path == exact,
            Path::Prefix(prefix) => has_prefix(path, prefix),
            Path::Template(table) => table.route_of(path) != table.other(),
        }
    }
}

/// A table of a single template, which has no duplicates.
fn only(template: &Template) -> RouteTable {
    RouteTable::new(std::slice::from_ref(template)).unwrap_or_default()
}

/// Whether a path begins with these segments.
pub(crate) fn has_prefix(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
}

impl Matcher {
    pub(crate) fn new(rule: &RuleConfig) -> Matcher {
        let methods: Vec<Method> = rule.methods.iter().filter_map(|method| method.parse().ok()).collect();
        Matcher {
            path: Path::new(rule.path.as_ref()),
            is_impossible: methods.len() < rule.methods.len(),
            methods,
            headers: rule.headers.iter().map(HeaderMatcher::new).collect(),
            query: rule
                .query
                .iter()
                .map(|wanted| (wanted.name.clone(), Text::new(wanted)))
                .collect(),
        }
    }

    /// Whether all conditions hold.
    pub(crate) fn matches(&self, head: &Parts) -> bool {
        !self.is_impossible
            && self.path.matches(head.uri.path())
            && (self.methods.is_empty() || self.methods.contains(&head.method))
            && self.headers.iter().all(|header| header.matches(&head.headers))
            && self.query.iter().all(|(name, text)| {
                let mut pairs = head.uri.query().unwrap_or_default().split('&');
                pairs.any(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    key == name && text.matches(value.as_bytes())
                })
            })
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    const NONE: RuleConfig = RuleConfig {
        path: None,
        methods: Vec::new(),
        headers: Vec::new(),
        query: Vec::new(),
        cluster: None,
        split: Vec::new(),
        cluster_header: None,
        timeouts: None,
        retries: None,
        filters: None,
    };

    fn value(name: &str, exact: Option<&str>, prefix: Option<&str>) -> ValueMatch {
        ValueMatch {
            name: name.to_owned(),
            exact: exact.map(str::to_owned),
            prefix: prefix.map(str::to_owned),
        }
    }

    fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
        let request = Request::builder().method(method).uri(target);
        let request = headers
            .iter()
            .fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn every_kind_of_condition_holds_for_what_it_says_and_for_nothing_else() {
        let path = |path| RuleConfig {
            path: Some(path),
            ..NONE
        };
        let template = |text| PathMatch::Template(Template::parse(text).unwrap());
        let headers = |headers| RuleConfig { headers, ..NONE };
        let query = |query| RuleConfig { query, ..NONE };
        let x = [("x-a", "one"), ("x-a", "two")];
        for (rule, method, target, sent, expected) in [
            (NONE, "GET", "/", &[][..], true),
            (path(PathMatch::Exact("/a".into())), "GET", "/a?b", &[], true),
            (path(PathMatch::Exact("/a".into())), "GET", "/a/", &[], false),
            (path(PathMatch::Prefix("/a".into())), "GET", "/a/b", &[], true),
            (path(PathMatch::Prefix("/a".into())), "GET", "/ab", &[], false),
            (path(PathMatch::Prefix("/a/".into())), "GET", "/a/b", &[], true),
            (path(PathMatch::Prefix("/".into())), "GET", "/ab", &[], true),
            (path(template("/a/{id}")), "GET", "/a/7", &[], true),
            (path(template("/a/{id}")), "GET", "/a/7/b", &[], false),
            (headers(vec![value("X-A", None, None)]), "GET", "/", &x, true),
            (headers(vec![value("x-a", Some("two"), None)]), "GET", "/", &x, true),
            (headers(vec![value("x-a", Some("tw"), None)]), "GET", "/", &x, false),
            (headers(vec![value("x-a", None, Some("tw"))]), "GET", "/", &x, true),
            (headers(vec![value("x-b", None, None)]), "GET", "/", &x, false),
            (headers(vec![value("not a name", None, None)]), "GET", "/", &x, false),
            (
                query(vec![value("v", Some("2"), None)]),
                "GET",
                "/?a&v=1&v=2",
                &[],
                true,
            ),
            (query(vec![value("v", None, None)]), "GET", "/?a&v", &[], true),
            (query(vec![value("v", None, None)]), "GET", "/?vv=1", &[], false),
        ] {
            assert_eq!(
                Matcher::new(&rule).matches(&head(method, target, sent)),
                expected,
                "{rule:?} {target}"
            );
        }
        let get_or_put = RuleConfig {
            methods: vec!["GET".into(), "PUT".into()],
            ..NONE
        };
        for (method, expected) in [("GET", true), ("PUT", true), ("POST", false)] {
            assert_eq!(Matcher::new(&get_or_put).matches(&head(method, "/", &[])), expected);
        }
    }

    proptest! {
        /// A prefix is a run of whole segments from the start, however it is found.
        #[test]
        fn a_prefix_is_the_first_segments(path in "(/[ab]{0,2}){1,4}", prefix in "(/[ab]{1,2}){1,3}") {
            let segments = |text: &str| text.split('/').skip(1).map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(has_prefix(&path, &prefix), segments(&path).starts_with(&segments(&prefix)));
        }
    }
}
