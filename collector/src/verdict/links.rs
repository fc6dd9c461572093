//! Addresses of the pages that an alert leads to: the one place in Rust that writes them.
//!
//! Guarantee, held by a test against `web/ui/src/url.ts`, which reads them: every parameter is one of its page's, and every value is
//! one that is not dropped there.

use std::fmt::Display;

use emberline_model::{Component, time::WINDOW_S};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Windows before failures began that their page shows, for comparison.
const WINDOWS_BEFORE: i64 = 30;

/// An address that is being put together. A value cannot add parameters.
struct Link(String);

impl Link {
    fn to(page: &str) -> Link {
        Link(format!("/{page}"))
    }

    /// Adds a parameter; an empty text is none.
    fn with(mut self, key: &str, value: impl Display) -> Link {
        // RFC 3986: what is not reserved.
        const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
        let value = value.to_string();
        if !value.is_empty() {
            self.0.push(if self.0.contains('?') { '&' } else { '?' });
            self.0.push_str(key);
            self.0.push('=');
            self.0.extend(utf8_percent_encode(&value, RESERVED));
        }
        self
    }
}

/// The page of a service, with the windows from the first to the last second and some before them.
pub(super) fn service(namespace: &str, service: &str, (from, to): (i64, i64)) -> String {
    Link::to("service")
        .with("namespace", namespace)
        .with("service", service)
        .with("from", from - WINDOWS_BEFORE * WINDOW_S)
        .with("to", to)
        .0
}

/// What a comparison is of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Compared<'a> {
    pub(super) namespace: &'a str,
    pub(super) service: &'a str,
    /// Versions: the baseline's and the candidate's.
    pub(super) versions: [&'a str; 2],
    pub(super) route: &'a str,
    pub(super) component: Component,
    /// There are stacks of both.
    pub(super) has_cpu: bool,
    /// First and last second: the baseline's and the candidate's.
    pub(super) ranges: [(i64, i64); 2],
}

/// The comparison of two releases.
pub(super) fn compare(compared: &Compared<'_>) -> String {
    let [baseline, candidate] = compared.versions;
    let link = Link::to("compare")
        .with("namespace", compared.namespace)
        .with("service", compared.service)
        .with("baseline", baseline)
        .with("candidate", candidate)
        .with("route", compared.route)
        .with("component", compared.component.as_str())
        // Without profiles the page shows latency, and CPU by what it can be divided by.
        .with("per", if compared.has_cpu { "request" } else { "" });
    let [before, after] = compared.ranges;
    let link = match before == after {
        true => link.with("from", after.0).with("to", after.1),
        false => link
            .with("baseline_from", before.0)
            .with("baseline_to", before.1)
            .with("candidate_from", after.0)
            .with("candidate_to", after.1),
    };
    link.0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn values_survive_whatever_they_are() {
        let link = Link::to("x")
            .with("route", "/quote/{id}?a=b&c#d é%")
            .with("empty", "")
            .with("n", 5)
            .0;
        assert_eq!(link, "/x?route=%2Fquote%2F%7Bid%7D%3Fa%3Db%26c%23d%20%C3%A9%25&n=5");
    }

    /// Parameters of a page in `url.ts`, with the values that they may have where these are few.
    fn parameters(page: &str) -> BTreeMap<String, Vec<String>> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../web/ui/src/url.ts");
        let text = std::fs::read_to_string(path).unwrap();
        let fields = text
            .split("const FIELDS = {")
            .nth(1)
            .unwrap()
            .split("} as const;")
            .next()
            .unwrap();
        let quoted = |text: &str| -> Vec<String> { text.split('"').skip(1).step_by(2).map(str::to_owned).collect() };
        let mut found = BTreeMap::new();
        for field in fields.lines().filter(|line| line.contains("(\"")) {
            // Those without pages are the comparison's.
            let pages = field.rsplit_once('[').filter(|_| field.trim_end().ends_with("]),"));
            let is_here = match pages {
                Some((_, pages)) => quoted(pages).iter().any(|name| name == page),
                None => field.contains("EVERY") || page == "compare",
            };
            let name = quoted(field).swap_remove(0);
            // Values that stand in a list of their own are read as any.
            let few = field
                .contains("choice(")
                .then(|| field.split_once('[')?.1.split_once(']'));
            let values = few.flatten().map_or(Vec::new(), |(few, _)| quoted(few));
            if is_here {
                found.insert(name, values);
            }
        }
        found
    }

    /// Holds an address against what the pages read.
    fn assert_is_read(link: &str) {
        let (page, query) = link[1..].split_once('?').unwrap();
        let known = parameters(page);
        assert!(known.len() > 4, "{known:?}");
        for (name, value) in query.split('&').map(|pair| pair.split_once('=').unwrap()) {
            let values = known
                .get(name)
                .unwrap_or_else(|| panic!("{page} reads no `{name}`: {link}"));
            assert!(
                values.is_empty() || values.iter().any(|known| known == value),
                "{name}={value}"
            );
            if name.ends_with("from") || name.ends_with("to") {
                assert!(
                    value.len() <= 12 && value.bytes().all(|byte| byte.is_ascii_digit()),
                    "{name}={value}"
                );
            }
        }
    }

    #[test]
    fn the_pages_read_what_is_written() {
        assert_is_read(&service("shop", "cart", (1_700_000_000, 1_700_000_300)));
        for (has_cpu, component, before) in [
            (true, Component::Application, (100, 200)),
            (false, Component::Proxy, (50, 90)),
        ] {
            assert_is_read(&compare(&Compared {
                namespace: "shop",
                service: "cart & co",
                versions: ["v1", "v2"],
                route: "/quote/{id}",
                component,
                has_cpu,
                ranges: [before, (100, 200)],
            }));
        }
    }
}
