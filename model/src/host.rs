//! The other end of a connection, as far as an address identifies it: shares are counted by it.

use std::net::{IpAddr, Ipv6Addr};

/// The machine behind an address: for IPv6 its /64 network, because one machine owns all addresses in it; an IPv4
/// address mapped into IPv6 is the IPv4 address.
///
/// Wrong on purpose: everyone behind one gateway counts as one.
pub fn host_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_machine_has_one_host() {
        let host = |text: &str| host_of(text.parse().unwrap()).to_string();
        assert_eq!(host("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(host("2001:db8:1:2::"), host("2001:db8:1:2:ffff::1"));
        assert_ne!(host("2001:db8:1:2::"), host("2001:db8:1:3::"));
        assert_eq!(host("::ffff:10.1.2.3"), "10.1.2.3");
        assert_eq!(host("10.1.2.3"), "10.1.2.3");
    }
}
