//! Which addresses report which builds: distinguishes the sender of a file from a stranger ([`super::claims`]).
//!
//! Guarantees: bounded, and divided among the addresses ([`crate::ingest::shares`]), so that nobody fills the table for
//! others.
//!
//! Wrong on purpose: senders behind one gateway are one. The table is not on disk: claims are.

use std::{collections::HashMap, net::IpAddr};

use parking_lot::Mutex;

use crate::ingest::{
    sender::SenderKey,
    shares::{Holder, Shares},
};

/// Pairs of build and address.
const MAX_ALL: usize = 100_000;

#[derive(Debug)]
struct Table {
    shares: Shares<(String, IpAddr)>,
    /// Since when, milliseconds since the Unix epoch.
    since: HashMap<(String, IpAddr), i64>,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Reporters(Mutex<Table>);

impl Default for Reporters {
    fn default() -> Reporters {
        Reporters::of_size(MAX_ALL)
    }
}

impl Reporters {
    fn of_size(limit: usize) -> Reporters {
        Reporters(Mutex::new(Table {
            shares: Shares::new(limit),
            since: HashMap::new(),
        }))
    }

    /// Records that profiles with code of these builds came from an address.
    pub(crate) fn note<'a>(&self, address: IpAddr, builds: impl Iterator<Item = &'a str>, now_unix_ms: i64) {
        let table = &mut *self.0.lock();
        let holder = Holder {
            sender: SenderKey::of_address(address),
            group: 0,
        };
        for build in builds {
            let key = (build.to_owned(), address);
            let admission = table.shares.admit(&key, holder, now_unix_ms.div_euclid(1_000));
            for gone in admission.gone {
                table.since.remove(&gone);
            }
            if admission.admitted {
                table.since.entry(key).or_insert(now_unix_ms);
            }
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
        let reporters = Reporters::of_size(100);
        reporters.note(a, ["abcd"].into_iter(), 5);
        reporters.note(a, ["abcd"].into_iter(), 9);
        assert_eq!(
            (reporters.since("abcd", a), reporters.since("abcd", b)),
            (Some(5), None)
        );
        let many: Vec<String> = (0..5_000).map(|n| format!("{n:08x}")).collect();
        reporters.note(b, many.iter().map(String::as_str), 7);
        assert_eq!(reporters.0.lock().since.len(), 100);
        assert_eq!(
            reporters.since("abcd", a),
            Some(5),
            "what others name pushes nothing of its own out"
        );
        reporters.note(a, ["0123"].into_iter(), 8);
        assert_eq!(reporters.since("0123", a), Some(8));
    }
}
