//! Whose word counts: which callers of a listener may introduce themselves.
//!
//! Guarantees: a caller with a public address is trusted only where somebody wrote that it is; what a listener does
//! when nothing is written follows from its own address and the caller's alone.
//!
//! Wrong on purpose: the caller is who is at the other end of the connection. Where a load balancer or a container
//! runtime connects in the place of strangers, they come from its private address: write `identity: ignore` there.
//!
//! Sources: RFC 1918 (private IPv4), RFC 6598 (shared, which clouds give to pods), RFC 3927 and RFC 4291 (link-local),
//! RFC 4193 (unique local IPv6), RFC 4632 (networks written as `address/length`).

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

/// What is written about a listener's callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IdentityRule {
    /// Nobody may introduce itself: requests are counted without a peer, and nothing is said about this workload.
    Ignore,
    /// Those in `trusted_callers` may; without that list everybody.
    Trusted,
    /// Those with a verified client certificate may, whatever their address.
    Certificate,
}

/// A range of addresses, written as `10.0.0.0/8`; without a length, one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    length: u8,
}

impl Network {
    /// True for an address inside. Of IPv4 addresses that are written as IPv6 ones the IPv4 address counts.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(of), IpAddr::V4(address)) => {
                let bits = u32::from(of) ^ u32::from(address);
                bits.checked_shr(32 - u32::from(self.length)).unwrap_or(0) == 0
            }
            (IpAddr::V6(of), IpAddr::V6(address)) => {
                let bits = u128::from(of) ^ u128::from(address);
                bits.checked_shr(128 - u32::from(self.length)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let wrong = || format!("`{text}` is not an address range: use, for example, `10.0.0.0/8` or `fd00::/8`");
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u8>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = length.unwrap_or(longest);
        if length > longest {
            return Err(wrong());
        }
        Ok(Network { address, length })
    }
}

/// Which callers of one listener are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    /// None.
    Nobody,
    /// All.
    Everybody,
    /// Those of this machine and of private networks.
    Private,
    /// Those in the list.
    Listed(Vec<Network>),
    /// Those with a verified certificate.
    Certified,
}

impl Trust {
    /// Of what is written about a listener, and its address.
    pub(crate) fn of(listen: IpAddr, rule: Option<IdentityRule>, callers: &[Network]) -> Trust {
        match rule {
            Some(IdentityRule::Ignore) => Trust::Nobody,
            Some(IdentityRule::Certificate) => Trust::Certified,
            _ if !callers.is_empty() => Trust::Listed(callers.to_vec()),
            Some(IdentityRule::Trusted) => Trust::Everybody,
            // An unspecified address is also that of the private network that pods are in.
            None if is_private(listen) || listen.to_canonical().is_unspecified() => Trust::Private,
            None => Trust::Nobody,
        }
    }

    /// Whether a caller is believed. What one with a certificate says has to fit that as well ([`crate::tls::Certificate`]).
    pub(crate) fn trusts(&self, caller: IpAddr, has_certificate: bool) -> bool {
        match self {
            Trust::Nobody => false,
            Trust::Everybody => true,
            Trust::Certified => has_certificate,
            Trust::Private => is_private(caller),
            Trust::Listed(networks) => networks.iter().any(|network| network.contains(caller)),
        }
    }
}

/// Of this machine or of a network that the internet does not route.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let is_shared = first == 100 && second & 0xc0 == 64;
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || is_shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn strangers_are_never_trusted_unless_it_is_written() {
        let public = ["8.8.8.8", "100.128.0.1", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8"];
        let private = [
            "127.0.0.1",
            "10.1.2.3",
            "100.64.0.1",
            "172.31.0.1",
            "fd00::1",
            "fe80::1",
            "::1",
            "::ffff:10.0.0.1",
        ];
        for (listen, privates_are_trusted) in [
            ("127.0.0.1", true),
            ("10.0.0.7", true),
            ("0.0.0.0", true),
            ("::", true),
            ("203.0.113.7", false),
        ] {
            let trust = Trust::of(ip(listen), None, &[]);
            for caller in public {
                assert!(!trust.trusts(ip(caller), false), "{caller} at {listen}");
            }
            for caller in private {
                assert_eq!(
                    trust.trusts(ip(caller), false),
                    privates_are_trusted,
                    "{caller} at {listen}"
                );
            }
        }
    }

    #[test]
    fn what_is_written_wins() {
        let listed: Vec<Network> = ["192.0.2.0/25", "2001:db8::/32", "198.51.100.7"]
            .map(|n| n.parse().unwrap())
            .into();
        for (rule, callers, caller, trusted) in [
            (Some(IdentityRule::Ignore), vec![], "127.0.0.1", false),
            (Some(IdentityRule::Trusted), vec![], "8.8.8.8", true),
            (Some(IdentityRule::Trusted), listed.clone(), "8.8.8.8", false),
            (None, listed.clone(), "192.0.2.127", true),
            (None, listed.clone(), "192.0.2.128", false),
            (None, listed.clone(), "127.0.0.1", false),
            (None, listed.clone(), "2001:db8:ffff::1", true),
            (None, listed.clone(), "198.51.100.7", true),
            (None, listed, "198.51.100.6", false),
            (None, vec!["0.0.0.0/0".parse().unwrap()], "8.8.8.8", true),
        ] {
            assert_eq!(
                Trust::of(ip("0.0.0.0"), rule, &callers).trusts(ip(caller), false),
                trusted,
                "{rule:?} {callers:?} {caller}"
            );
        }
        let certified = Trust::of(ip("127.0.0.1"), Some(IdentityRule::Certificate), &[]);
        assert!(certified.trusts(ip("8.8.8.8"), true) && !certified.trusts(ip("127.0.0.1"), false));
        for wrong in ["10.0.0.0/33", "10.0.0/8", "::/129", "x", "10.0.0.0/"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
