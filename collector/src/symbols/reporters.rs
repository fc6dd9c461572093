//! Which addresses report which builds: what makes a sender of a file more than a stranger ([`super::claims`]).
//!
//! Guarantees: bounded, in all and per address, so that nobody fills the table for others. A network of IPv6 counts as one
//! address: whoever has one of its addresses has all.
//!
//! Wrong on purpose: senders behind one gateway are one. The table is not on disk: claims are.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use axum::extract::ConnectInfo;
use parking_lot::Mutex;
use tonic::transport::server::TcpConnectInfo;

/// Builds that one address may name.
const MAX_OF_ADDRESS: usize = 2_000;
/// Pairs of build and address in all.
const MAX_ALL: usize = 100_000;

/// Where a connection comes from; nothing when the server that accepted it does not say.
pub(crate) fn address(extensions: &http::Extensions) -> Option<IpAddr> {
    let of_tonic = || extensions.get::<TcpConnectInfo>()?.remote_addr();
    let of_axum = || extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    of_tonic().or_else(of_axum).map(|address| network(address.ip()))
}

/// An address, or the network of one of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    }
}

#[derive(Debug, Default)]
struct Table {
    /// Build id and address → since when, milliseconds since the Unix epoch.
    since: HashMap<(String, IpAddr), i64>,
    of_address: HashMap<IpAddr, usize>,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Reporters(Mutex<Table>);

impl Reporters {
    /// Notes that profiles with code of these builds came from an address.
    pub(crate) fn note<'a>(&self, address: IpAddr, builds: impl Iterator<Item = &'a str>, now_unix_ms: i64) {
        let mut table = self.0.lock();
        for build in builds {
            let key = (build.to_owned(), address);
            if table.since.contains_key(&key) {
                continue;
            }
            let named = table.of_address.get(&address).copied().unwrap_or(0);
            if named >= MAX_OF_ADDRESS || table.since.len() >= MAX_ALL {
                return;
            }
            table.of_address.insert(address, named + 1);
            table.since.insert(key, now_unix_ms);
        }
    }

    /// Since when an address has reported a build.
    pub(crate) fn since(&self, build: &str, address: IpAddr) -> Option<i64> {
        self.0.lock().since.get(&(build.to_owned(), address)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_report_counts_and_nobody_fills_the_table() {
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let reporters = Reporters::default();
        reporters.note(a, ["abcd"].into_iter(), 5);
        reporters.note(a, ["abcd"].into_iter(), 9);
        assert_eq!(
            (reporters.since("abcd", a), reporters.since("abcd", b)),
            (Some(5), None)
        );
        let many: Vec<String> = (0..5_000).map(|n| format!("{n:08x}")).collect();
        reporters.note(b, many.iter().map(String::as_str), 7);
        assert_eq!(reporters.since(&many[0], b), Some(7));
        assert_eq!(reporters.since(&many[4_999], b), None);
        reporters.note(a, ["0123"].into_iter(), 8);
        assert_eq!(reporters.since("0123", a), Some(8));
    }

    #[test]
    fn addresses_of_one_network_are_one() {
        let of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("::ffff:10.0.0.1"), "10.0.0.1");
    }
}
