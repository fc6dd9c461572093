//! The address of a peer, from a URL.
//!
//! Guarantees: a parsed address has a supported scheme, a host and a port; errors and logs show only its origin
//! (`https://host:port`), because webhooks' paths and queries are secrets as often as passwords are.

use std::fmt;

use http::Uri;

/// An invalid address. Only its origin is shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{shown}` cannot be used: {why}")]
pub struct InvalidAddress {
    shown: String,
    why: &'static str,
}

/// The address of a peer: `http://` or `https://`, a host, a port and a path.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address {
    https: bool,
    /// Without brackets.
    host: String,
    port: u16,
    /// Path and query, from the first `/`.
    path: String,
}

impl Address {
    /// Parses a URL.
    ///
    /// # Errors
    /// When it has another scheme, no host, or a user name.
    pub fn parse(text: &str) -> Result<Address, InvalidAddress> {
        let wrong = |why| InvalidAddress {
            shown: origin_of(text),
            why,
        };
        let uri: Uri = text.parse().map_err(|_| wrong("not a valid URL"))?;
        let https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("it must begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("the host is missing"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("a user name and password in the address are not supported"));
        }
        let host = authority.host().trim_matches(['[', ']']);
        if host.is_empty() {
            return Err(wrong("the host is missing"));
        }
        let given = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
        let port = match authority.port_u16() {
            Some(0) => return Err(wrong("port 0 cannot be used")),
            Some(port) => port,
            None if given.is_empty() => default_port(https),
            None => return Err(wrong("the port must be 1 to 65535")),
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Address {
            path: if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("/{path}")
            },
            ..Address::new(https, host, port)
        })
    }

    /// Assembles an address; `host` is a name or an IP address without brackets.
    pub fn new(https: bool, host: &str, port: u16) -> Address {
        Address {
            https,
            host: host.to_owned(),
            port,
            path: "/".to_owned(),
        }
    }

    /// The same host with another path and query.
    #[must_use]
    pub fn with_path(mut self, path: &str) -> Address {
        path.clone_into(&mut self.path);
        self
    }

    /// The same host with a path appended to this one, unless it already ends with it.
    #[must_use]
    pub fn below(mut self, path: &str) -> Address {
        let base = self.path.trim_end_matches('/');
        if !base.ends_with(path) {
            self.path = format!("{base}{path}");
        }
        self
    }

    /// Whether it uses TLS.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// A name, or an IP address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query; may contain a secret.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Host and port as in a `Host` header: the port only if it is not the scheme's default.
    pub fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match self.port == default_port(self.https) {
            true => host,
            false => format!("{host}:{}", self.port),
        }
    }
}

/// The default port of a scheme.
fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

/// The origin: all that may be shown.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// What may be shown of an invalid address: its beginning up to the path, without anything that may contain a password.
fn origin_of(text: &str) -> String {
    let (scheme, rest) = text
        .split_once("://")
        .map_or(("", text), |(scheme, rest)| (scheme, rest));
    let scheme = if text.contains("://") {
        format!("{scheme}://")
    } else {
        String::new()
    };
    if rest.contains('@') {
        return format!("{scheme}…");
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let hidden = if end < rest.len() { "/…" } else { "" };
    emberline_model::workload::clean_name(&format!("{scheme}{}{hidden}", &rest[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_scheme_a_host_and_a_port() {
        for (text, https, host, port, path, authority) in [
            ("http://a", false, "a", 80, "/", "a"),
            ("https://a", true, "a", 443, "/", "a"),
            ("https://a:80/x?y=1", true, "a", 80, "/x?y=1", "a:80"),
            ("http://[::1]:9093/am/", false, "::1", 9093, "/am/", "[::1]:9093"),
            ("https://[::1]", true, "::1", 443, "/", "[::1]"),
        ] {
            let read = Address::parse(text).unwrap();
            assert_eq!(
                (read.is_https(), read.host(), read.port(), read.path()),
                (https, host, port, path),
                "{text}"
            );
            assert_eq!(read.authority(), authority, "{text}");
        }
        let below = |text: &str| Address::parse(text).unwrap().below("/api/v2/alerts").path;
        assert_eq!(below("http://a"), "/api/v2/alerts");
        assert_eq!(below("http://a/am/"), "/am/api/v2/alerts");
        assert_eq!(below("http://a/am/api/v2/alerts"), "/am/api/v2/alerts");
    }

    #[test]
    fn an_error_about_an_address_shows_no_secret() {
        for text in [
            "",
            "a/SECRET",
            "ftp://a/SECRET",
            "http://",
            "http://u:SECRET@a/",
            "https://u:SECRET/SECRET@a/",
            "u:SECRET@a:80/x",
            "http://a:0/SECRET",
            "http://a:99999/SECRET",
            "http://a b/SECRET",
            "a?SECRET",
            "https:///SECRET",
            "http://:80/SECRET",
        ] {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(
                !error.contains("SECRET") && error.contains("cannot be used"),
                "{text}: {error}"
            );
        }
        let address = Address::parse("https://hooks.example/services/SECRET?key=SECRET").unwrap();
        assert_eq!(
            format!("{address} {address:?}"),
            "https://hooks.example Address(https://hooks.example)"
        );
    }
}
