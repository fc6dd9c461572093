//! Who sends: the address at the other end of a connection, and nothing that a request says about itself.
//!
//! Guarantees: nothing that a client writes into a request can choose its sender. For IPv6 the /64 network counts,
//! because one machine owns all addresses in it. If no address is known, all senders are one.
//!
//! Wrong on purpose: senders behind a gateway share the gateway's slot; within it, services are counted separately.

use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use emberline_model::host::host_of;
use http::Extensions;
use tonic::transport::server::TcpConnectInfo;

/// A sender, as counted for shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum SenderKey {
    /// Unknown origin.
    Unknown,
    /// This server's own scrapes.
    Scraper,
    /// An IPv4 address or an IPv6 network.
    Address(IpAddr),
}

impl SenderKey {
    /// The sender of a request.
    pub(crate) fn of(extensions: &Extensions) -> SenderKey {
        let http = || extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let grpc = || Some(extensions.get::<TcpConnectInfo>()?.remote_addr()?.ip());
        match http().or_else(grpc) {
            Some(address) => SenderKey::of_address(address),
            None => SenderKey::Unknown,
        }
    }

    pub(crate) fn of_address(address: IpAddr) -> SenderKey {
        SenderKey::Address(host_of(address))
    }

    /// The machine, or the IPv6 network; none if unknown, and for this server itself.
    pub(crate) fn address(self) -> Option<IpAddr> {
        match self {
            SenderKey::Address(address) => Some(address),
            SenderKey::Unknown | SenderKey::Scraper => None,
        }
    }

    /// Parses the output of [`std::fmt::Display`].
    pub(crate) fn parse(text: &str) -> SenderKey {
        match text {
            "scraper" => SenderKey::Scraper,
            text => {
                let address = text.strip_suffix("/64").unwrap_or(text).parse();
                address.map_or(SenderKey::Unknown, SenderKey::of_address)
            }
        }
    }
}

impl std::fmt::Display for SenderKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SenderKey::Unknown => f.write_str("unknown"),
            SenderKey::Scraper => f.write_str("scraper"),
            SenderKey::Address(IpAddr::V6(network)) => write!(f, "{network}/64"),
            SenderKey::Address(address) => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_machine_are_one_sender() {
        let key = |text: &str| SenderKey::of_address(text.parse().unwrap());
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
        assert_eq!(key("2001:db8:1:2:3:4:5:6"), key("2001:db8:1:2::7"));
        assert_ne!(key("2001:db8:1:2::7"), key("2001:db8:1:3::7"));
        for sender in [
            key("10.0.0.1"),
            key("2001:db8::1"),
            SenderKey::Scraper,
            SenderKey::Unknown,
        ] {
            assert_eq!(SenderKey::parse(&sender.to_string()), sender);
        }
    }

    #[test]
    fn what_the_connection_says_is_found_whoever_accepted_it() {
        let mut extensions = Extensions::new();
        assert_eq!(SenderKey::of(&extensions), SenderKey::Unknown);
        extensions.insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 2], 9))));
        assert_eq!(SenderKey::of(&extensions).to_string(), "127.0.0.2");
    }
}
