//! What is wrong among the entries of `outbound` that share a listener.

use std::{collections::HashMap, net::SocketAddr};

use super::super::{Outbound, Protocol};

/// The first entry of each entry's listener, by position.
pub(super) fn first_of_each(outbound: &[Outbound]) -> Vec<usize> {
    let mut seen: HashMap<SocketAddr, usize> = HashMap::new();
    let listens = outbound.iter().map(|entry| entry.listen).enumerate();
    listens
        .map(|(at, listen)| {
            if listen.port() == 0 {
                at
            } else {
                *seen.entry(listen).or_insert(at)
            }
        })
        .collect()
}

/// The entries that begin a listener.
pub(super) fn listeners(outbound: &[Outbound]) -> impl Iterator<Item = (usize, &Outbound)> {
    let firsts = first_of_each(outbound);
    outbound.iter().enumerate().filter(move |(at, _)| firsts[*at] == *at)
}

/// Looks through all entries; `say` takes a path.
pub(super) fn find(outbound: &[Outbound], mut say: impl FnMut(&str, String)) {
    let firsts = first_of_each(outbound);
    for (at, entry) in outbound.iter().enumerate() {
        let first = firsts[at];
        let before = || {
            outbound[..at]
                .iter()
                .enumerate()
                .filter(|(other, _)| firsts[*other] == first)
        };
        let (listen, service) = (entry.listen, &entry.service);
        if entry.protocol != outbound[first].protocol {
            let message =
                format!("`protocol` differs from that of outbound[{first}], which shares {listen}: use the same");
            say(&format!("outbound[{at}].protocol"), message);
        }
        if before().any(|(_, other)| other.service == *service) {
            let message = format!("{service} occurs twice on {listen}: use one entry with all its `hosts`");
            say(&format!("outbound[{at}].service"), message);
        }
        let Some(hosts) = &entry.hosts else {
            if let Some((other, _)) = before().find(|(_, other)| other.hosts.is_none()) {
                let message = format!(
                    "outbound[{other}] and outbound[{at}] both match every host of {listen}: add `hosts` to one of them, or \
                     give each its own port"
                );
                say(&format!("outbound[{at}].listen"), message);
            }
            continue;
        };
        if entry.protocol == Protocol::Tcp {
            let message = "`hosts` has no effect with `protocol: tcp`, which has no hosts: remove one of them";
            say(&format!("outbound[{at}].hosts"), message.to_owned());
        }
        for (index, host) in hosts.iter().enumerate() {
            let is_own = hosts[..index].contains(host);
            let of_other = before().find(|(_, other)| other.hosts.iter().flatten().any(|known| known == host));
            let who = match of_other {
                Some((_, other)) => format!("{} and {service}", other.service),
                None if is_own => service.clone(),
                None => continue,
            };
            let message = format!("the host `{host}` is listed twice on {listen}, for {who}: remove one");
            say(&format!("outbound[{at}].hosts[{index}]"), message);
        }
    }
}
