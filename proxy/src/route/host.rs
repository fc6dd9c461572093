//! Hosts that listeners serve: from `Host` or `:authority` to the service.
//!
//! Guarantees: an exact host wins over a wildcard, a longer wildcard over a shorter one, a pattern with a port over the
//! same one without; case and a trailing dot make no difference; lookups allocate nothing.
//!
//! Wrong on purpose: a host without a port means port 80, whatever the listener's port; names are not decoded (no
//! punycode, no percent-encoding).

use std::{collections::HashMap, fmt, str::FromStr};

use http::{header::HOST, request::Parts};

/// Longest host with its port: a DNS name, a trailing dot, a colon and five digits.
const MAX_AUTHORITY: usize = 253 + 1 + 6;
/// The port of a host that has none.
const DEFAULT_PORT: u16 = 80;

/// A host such as `cart`, `cart.shop.svc:8080` or `*.cart.example`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPattern {
    /// In lower case; for a wildcard, what follows the asterisk.
    name: String,
    port: Option<u16>,
}

impl HostPattern {
    /// Whether it matches every host that ends with its name and has something before it.
    fn is_wildcard(&self) -> bool {
        self.name.starts_with('.')
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.is_wildcard() { "*" } else { "" };
        write!(f, "{star}{}", self.name)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<HostPattern, String> {
        let wrong = |problem: &str| {
            format!("`{text}` is not a host ({problem}): use, for example, `cart`, `cart:8080` or `*.cart.example`")
        };
        if text == "*" {
            return Err("`*` is not a host: omit `hosts` to match every host".to_owned());
        }
        let lower = text.to_ascii_lowercase();
        let (host, port) = split(&lower).ok_or_else(|| wrong("the port must be 0 to 65535"))?;
        let name = match host.strip_prefix('*') {
            Some(suffix) if suffix.starts_with('.') && suffix.len() > 1 => suffix,
            Some(_) => return Err(wrong("a wildcard is `*.` and a name")),
            None if host.starts_with('.') => return Err(wrong("it begins with a dot")),
            None => host,
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let is_address = name.starts_with('[') && name.ends_with(']');
        if name.is_empty() || text.len() > MAX_AUTHORITY || !(is_address || name.chars().all(is_name)) {
            return Err(wrong("the name is invalid"));
        }
        Ok(HostPattern {
            name: name.to_owned(),
            port,
        })
    }
}

/// Host and port, without the host's trailing dot; `None` if what follows the colon is not a port.
fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.rsplit_once(':') {
        // The colons of an IPv6 address.
        Some(_) if authority.ends_with(']') => (authority, None),
        Some((host, "")) => (host, None),
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, Some(port.parse().ok()?)),
        Some(_) => return None,
        None => (authority, None),
    };
    Some((host.strip_suffix('.').unwrap_or(host), port))
}

/// The host that a request asks for, as written.
pub(crate) fn authority_of(head: &Parts) -> Option<&str> {
    match head.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => head.headers.get(HOST).and_then(|host| host.to_str().ok()),
    }
}

/// Positions by host.
#[derive(Debug, Default)]
pub(crate) struct HostTable {
    by_name: HashMap<String, Ports>,
    /// For hosts that nothing else matches.
    default: Option<usize>,
}

/// Positions of one name.
#[derive(Debug, Default)]
struct Ports {
    every: Option<usize>,
    some: Vec<(u16, usize)>,
}

impl Ports {
    fn find(&self, port: u16) -> Option<usize> {
        let written = self.some.iter().find(|(written, _)| *written == port);
        written.map(|(_, place)| *place).or(self.every)
    }
}

impl HostTable {
    /// The first of two equal patterns counts. `None` matches every host.
    pub(crate) fn new<'a>(places: impl IntoIterator<Item = Option<&'a [HostPattern]>>) -> HostTable {
        let mut table = HostTable::default();
        for (place, hosts) in places.into_iter().enumerate() {
            let Some(hosts) = hosts else {
                table.default.get_or_insert(place);
                continue;
            };
            for host in hosts {
                let ports = table.by_name.entry(host.name.clone()).or_default();
                match host.port {
                    None => {
                        ports.every.get_or_insert(place);
                    }
                    Some(port) if ports.some.iter().all(|(known, _)| *known != port) => ports.some.push((port, place)),
                    Some(_) => {}
                }
            }
        }
        table
    }

    /// The position of what matches every host.
    pub(crate) fn of_any_host(&self) -> Option<usize> {
        self.default
    }

    /// The position of a request's host.
    pub(crate) fn find(&self, head: &Parts) -> Option<usize> {
        if self.by_name.is_empty() {
            return self.default;
        }
        authority_of(head)
            .and_then(|authority| self.find_listed(authority))
            .or(self.default)
    }

    fn find_listed(&self, authority: &str) -> Option<usize> {
        let mut lower = [0; MAX_AUTHORITY];
        let lower = lower.get_mut(..authority.len())?;
        lower.copy_from_slice(authority.as_bytes());
        lower.make_ascii_lowercase();
        let (host, port) = split(std::str::from_utf8(lower).ok()?)?;
        let port = port.unwrap_or(DEFAULT_PORT);
        let place_of = |name: &str| self.by_name.get(name)?.find(port);
        // A host that begins with a dot is invalid, and could be mistaken for a wildcard.
        let exact = (!host.starts_with('.')).then(|| place_of(host)).flatten();
        let dots = || host.match_indices('.').map(|(at, _)| at).filter(|at| *at > 0);
        exact.or_else(|| dots().find_map(|at| place_of(&host[at..])))
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    fn patterns(texts: &[&str]) -> Vec<HostPattern> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn find(table: &HostTable, host: &str) -> Option<usize> {
        let request = Request::builder().header(HOST, host).body(()).unwrap();
        table.find(&request.into_parts().0)
    }

    #[test]
    fn exact_hosts_win_over_wildcards_and_longer_wildcards_over_shorter_ones() {
        let services = [
            patterns(&["cart", "*.example", "[::1]"]),
            patterns(&["*.cart.example", "cart:8080"]),
            patterns(&["eu.cart.example", "*.example:8443"]),
        ];
        let listed = services.iter().map(|hosts| Some(hosts.as_slice()));
        let table = HostTable::new(listed.clone().chain([None]));
        let without_default = HostTable::new(listed);
        for (host, place) in [
            ("cart", Some(0)),
            ("CART.", Some(0)),
            ("cart:80", Some(0)),
            ("cart:8080", Some(1)),
            ("cart:8081", Some(0)),
            ("a.example", Some(0)),
            ("a.example:8443", Some(2)),
            ("a.b.example", Some(0)),
            ("us.cart.example", Some(1)),
            ("eu.cart.example:99", Some(2)),
            ("x.eu.cart.example", Some(1)),
            ("[::1]:80", Some(0)),
            ("[::1]", Some(0)),
            ("example", None),
            (".example", None),
            ("cart:x", None),
            ("cart:99999", None),
            ("checkout", None),
        ] {
            assert_eq!(find(&table, host), place.or(Some(3)), "{host}");
            assert_eq!(find(&without_default, host), place, "{host}");
        }
        assert_eq!(find(&without_default, &"a".repeat(1000)), None);
    }

    #[test]
    fn what_is_no_host_is_refused_with_an_example() {
        for text in [
            "",
            "*",
            "*.",
            "*cart",
            ".cart",
            "a*",
            "a b",
            "cart:x",
            "cart:99999",
            "a/b",
        ] {
            let error = text.parse::<HostPattern>().unwrap_err();
            assert!(error.contains("is not a host"), "{error}");
        }
        assert_eq!(
            "*.Cart.Example.:81".parse::<HostPattern>().unwrap().to_string(),
            "*.cart.example:81"
        );
    }

    /// Tries all patterns and takes the best one.
    fn naive(services: &[Vec<HostPattern>], host: &str, port: u16) -> Option<usize> {
        let all = services
            .iter()
            .enumerate()
            .flat_map(|(place, hosts)| hosts.iter().map(move |host| (place, host)));
        let fitting = all.filter(|(_, pattern)| {
            let has_name = if pattern.is_wildcard() {
                host.len() > pattern.name.len() && host.ends_with(&pattern.name)
            } else {
                host == pattern.name
            };
            has_name && pattern.port.is_none_or(|written| written == port)
        });
        let rank = |pattern: &HostPattern| (!pattern.is_wildcard(), pattern.name.len(), pattern.port.is_some());
        // Of equals the first, which `max_by_key` would not return.
        let mut best: Option<(usize, &HostPattern)> = None;
        for (place, pattern) in fitting {
            if best.is_none_or(|(_, known)| rank(pattern) > rank(known)) {
                best = Some((place, pattern));
            }
        }
        best.map(|(place, _)| place)
    }

    proptest! {
        #[test]
        fn the_table_finds_what_a_walk_over_all_patterns_finds(
            services in prop::collection::vec(
                prop::collection::vec("(\\*\\.)?[ab](\\.[ab]){0,2}(:8[01])?", 0..4), 1..5),
            host in "[ab](\\.[ab]){0,4}",
            port in prop::option::of(80u16..83),
        ) {
            let services: Vec<Vec<HostPattern>> = services
                .iter()
                .map(|hosts| hosts.iter().map(|host| host.parse().unwrap()).collect())
                .collect();
            let table = HostTable::new(services.iter().map(|hosts| Some(hosts.as_slice())));
            let authority = port.map_or(host.clone(), |port| format!("{host}:{port}"));
            prop_assert_eq!(find(&table, &authority), naive(&services, &host, port.unwrap_or(80)));
        }
    }
}
