//! The address of a target: `host:port`. Guarantee: a parsed address is a host and a port, and no other part of a URL.

/// The address of a target.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Address {
    /// A name, or an IP address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    /// As in a `Host` header.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Parses `host:port`; a missing port is the scheme's.
pub(super) fn address(text: &str, port_of_scheme: u16) -> Result<Address, String> {
    let wrong = || format!("`{text}` is not a target address: use, for example, `10.0.0.1:6060`");
    let authority: http::uri::Authority = text.parse().map_err(|_| wrong())?;
    let host = authority.host().trim_matches(['[', ']']);
    if host.is_empty() || text.contains('@') || authority.as_str() != text {
        return Err(wrong());
    }
    let port = match text.strip_prefix(authority.host()) {
        Some("") => port_of_scheme,
        _ => authority.port_u16().filter(|port| *port > 0).ok_or_else(wrong)?,
    };
    Ok(Address {
        host: host.to_owned(),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_a_host_and_a_port() {
        for (text, host, port) in [
            ("10.0.0.1:6060", "10.0.0.1", 6060),
            ("shop.prod", "shop.prod", 80),
            ("[::1]:6060", "::1", 6060),
            ("[::1]", "::1", 80),
        ] {
            let read = address(text, 80).unwrap();
            assert_eq!((read.host.as_str(), read.port), (host, port), "{text}");
        }
        assert_eq!(address("shop.prod", 443).unwrap().port, 443);
        assert_eq!(address("[::1]:7", 80).unwrap().authority(), "[::1]:7");
        for wrong in [
            "", ":80", "http://a", "a/b", "u:p@a:1", "a:0", "a:99999", "a:", "a b", "a:x",
        ] {
            assert!(address(wrong, 80).is_err(), "{wrong}");
        }
    }
}
