//! How many distinct names senders have used: keeps a broken path template, or anyone who makes up names, from filling
//! the store and locking others out.
//!
//! Guarantees: those of [`super::shares`], for reporting processes, for each service's routes, peers and profile types,
//! and for the names of all services together. A name that was admitted stays admitted as long as it is used and its
//! sender is within its share, so existing series keep working when new ones overflow. Names that lasted are known
//! again after a restart ([`Cardinality::records`]). Who was refused, and how often, is kept for the status page.

use std::collections::{BTreeMap, HashMap};

use emberline_model::{Component, Release, Workload, id};
use prost::Message;
use serde_json::{Value, json};

use super::{
    limits::config::IngestLimits,
    sender::SenderKey,
    shares::{Holder, Shares},
};

/// Names of all services together.
const MAX_NAMES: usize = 100_000;
/// Profile types that one service may report: five for each of the twenty languages in which its processes may be
/// written.
const MAX_PROFILE_TYPES: usize = 100;
/// Refused senders shown by name; further ones are counted together.
const MOST_REFUSED: usize = 100;
/// Senders shown by name for each table.
const MOST_SHOWN: usize = 5;
/// Entries per record, so that damage to the file costs no more.
const RECORD_ENTRIES: usize = 1_000;

/// What a name refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Workload,
    Route,
    Peer,
    ProfileType,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Workload, Kind::Route, Kind::Peer, Kind::ProfileType];

    fn word(self) -> &'static str {
        match self {
            Kind::Workload => "workloads",
            Kind::Route => "routes",
            Kind::Peer => "peers",
            Kind::ProfileType => "profile_types",
        }
    }

    fn code(self) -> u32 {
        self as u32
    }
}

/// A name used by a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Name {
    service: u64,
    kind: Kind,
    name: u64,
}

/// Names that were not admitted.
#[derive(Debug, Clone, Copy, Default)]
struct Refusals {
    count: u64,
    last_s: i64,
}

/// The names that senders have used so far.
#[derive(Debug)]
pub(crate) struct Cardinality {
    workloads: Shares<u64>,
    /// Per service and kind.
    services: HashMap<(u64, Kind), Shares<u64>>,
    names: Shares<Name>,
    refused: BTreeMap<(Kind, SenderKey), Refusals>,
    limits: IngestLimits,
}

impl Cardinality {
    pub(crate) fn new(limits: &IngestLimits) -> Cardinality {
        Cardinality {
            workloads: Shares::new(limits.max_workloads),
            services: HashMap::new(),
            names: Shares::new(MAX_NAMES),
            refused: BTreeMap::new(),
            limits: limits.clone(),
        }
    }

    /// True if the reporting process is known or admitted.
    pub(crate) fn admit_workload(
        &mut self,
        sender: SenderKey,
        workload: &Workload,
        component: Component,
        now_s: i64,
    ) -> bool {
        let key = id::series_id(workload, component, "");
        let group = service_of(workload);
        let admitted = self.workloads.admit(&key, Holder { sender, group }, now_s).admitted;
        self.told(admitted, Kind::Workload, sender, now_s)
    }

    /// True if the route of a service may be used; otherwise it folds into `other`.
    pub(crate) fn admit_route(&mut self, sender: SenderKey, workload: &Workload, route: &str, now_s: i64) -> bool {
        self.admit(sender, workload, Kind::Route, id::key("route", &[route]), now_s)
    }

    /// True if the peer of a service may be used; otherwise it becomes unknown.
    pub(crate) fn admit_peer(&mut self, sender: SenderKey, workload: &Workload, peer: &Release, now_s: i64) -> bool {
        self.admit(sender, workload, Kind::Peer, id::release_id(peer), now_s)
    }

    /// True if the profile type may be used; otherwise the profile is dropped.
    pub(crate) fn admit_profile_type(
        &mut self,
        sender: SenderKey,
        workload: &Workload,
        profile_type: &str,
        now_s: i64,
    ) -> bool {
        let name = id::key("profile type", &[profile_type]);
        self.admit(sender, workload, Kind::ProfileType, name, now_s)
    }

    fn admit(&mut self, sender: SenderKey, workload: &Workload, kind: Kind, name: u64, now_s: i64) -> bool {
        let service = service_of(workload);
        let name = Name { service, kind, name };
        let release = id::key("version", &[&workload.version]);
        let limit = self.limit_of(kind);
        let table = self
            .services
            .entry((service, kind))
            .or_insert_with(|| Shares::new(limit));
        let in_service = table.admit(&name.name, Holder { sender, group: release }, now_s);
        for gone in in_service.gone {
            self.names.remove(&Name { name: gone, ..name });
        }
        let mut admitted = in_service.admitted;
        if admitted {
            let holder = Holder { sender, group: service };
            let in_all = self.names.admit(&name, holder, now_s);
            for gone in in_all.gone {
                self.forget(gone);
            }
            admitted = in_all.admitted;
            if !admitted {
                self.forget(name);
            }
        }
        self.told(admitted, kind, sender, now_s)
    }

    fn limit_of(&self, kind: Kind) -> usize {
        match kind {
            Kind::Workload => self.limits.max_workloads,
            Kind::Route => self.limits.max_routes_per_service,
            Kind::Peer => self.limits.max_peers_per_service,
            Kind::ProfileType => MAX_PROFILE_TYPES,
        }
    }

    fn forget(&mut self, name: Name) {
        let at = (name.service, name.kind);
        if let Some(table) = self.services.get_mut(&at) {
            table.remove(&name.name);
            if table.is_empty() {
                self.services.remove(&at);
            }
        }
    }

    fn told(&mut self, admitted: bool, kind: Kind, sender: SenderKey, now_s: i64) -> bool {
        if !admitted {
            let is_named = self.refused.contains_key(&(kind, sender)) || self.refused.len() < MOST_REFUSED;
            let sender = if is_named { sender } else { SenderKey::Unknown };
            let refusals = self.refused.entry((kind, sender)).or_default();
            if refusals.count == 0 {
                let table = kind.word();
                tracing::warn!(
                    table,
                    %sender,
                    "name table full and this sender is at its share: its new names are refused or folded; see `ingest.shares` in /api/v1/status"
                );
            }
            refusals.count += 1;
            refusals.last_s = now_s;
        }
        admitted
    }

    /// How full the tables are, who fills them, and who was refused.
    pub(crate) fn json(&self) -> Value {
        let largest = |senders: Vec<(SenderKey, usize)>| -> Value {
            let rows = senders.into_iter();
            rows.map(|(sender, entries)| json!({ "sender": sender.to_string(), "entries": entries }))
                .collect()
        };
        let refused = self.refused.iter().map(|((kind, sender), refusals)| {
            json!({
                "table": kind.word(), "sender": sender.to_string(), "count": refusals.count,
                "last_ms": refusals.last_s.saturating_mul(1_000),
            })
        });
        let refused: Vec<Value> = refused.collect();
        json!({
            "workloads": {
                "used": self.workloads.len(), "limit": self.workloads.limit(),
                "is_full": self.workloads.len() >= self.workloads.limit(),
                "largest_senders": largest(self.workloads.largest(MOST_SHOWN)),
            },
            "names": {
                "used": self.names.len(), "limit": self.names.limit(),
                "is_full": self.names.len() >= self.names.limit(),
                "largest_senders": largest(self.names.largest(MOST_SHOWN)),
                "full_services": self.services.values().filter(|table| table.len() >= table.limit()).count(),
            },
            "refused": refused,
        })
    }

    /// Entries and size of the table of processes, and of that of names.
    pub(crate) fn sizes(&self) -> [(&'static str, usize, usize); 2] {
        [
            ("workloads", self.workloads.len(), self.workloads.limit()),
            ("names", self.names.len(), self.names.limit()),
        ]
    }

    /// Entries that lasted, to be kept across a restart; `None` if unchanged since the last call.
    pub(crate) fn records(&mut self) -> Option<Vec<Vec<u8>>> {
        if !(self.workloads.take_changed() | self.names.take_changed()) {
            return None;
        }
        let workloads = self.workloads.lasting().map(|lasting| Known {
            kind: Kind::Workload.code(),
            service: lasting.holder.group,
            group: lasting.holder.group,
            name: *lasting.key,
            sender: lasting.holder.sender.to_string(),
        });
        let names = self.names.lasting().map(|lasting| Known {
            kind: lasting.key.kind.code(),
            service: lasting.key.service,
            group: lasting.holder.group,
            name: lasting.key.name,
            sender: lasting.holder.sender.to_string(),
        });
        let mut known: Vec<Known> = workloads.chain(names).collect();
        known.sort_by_key(|known| (known.kind, known.service, known.name));
        let records = known.chunks(RECORD_ENTRIES).map(|chunk| {
            let record = Record { known: chunk.to_vec() };
            record.encode_to_vec()
        });
        Some(records.collect())
    }

    /// Loads the result of [`Cardinality::records`] after a restart; everything counts as just used.
    pub(crate) fn restore(&mut self, records: &[Vec<u8>], now_s: i64) {
        for record in records {
            // Damage was counted where the file was read; a record of another version is ignored.
            let Ok(record) = Record::decode(record.as_slice()) else {
                continue;
            };
            for known in record.known {
                let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.code() == known.kind) else {
                    continue;
                };
                let holder = Holder {
                    sender: SenderKey::parse(&known.sender),
                    group: known.group,
                };
                if kind == Kind::Workload {
                    self.workloads.restore(known.name, holder, now_s);
                    continue;
                }
                let limit = self.limit_of(kind);
                let table = self.services.entry((known.service, kind));
                let table = table.or_insert_with(|| Shares::new(limit));
                let name = Name {
                    service: known.service,
                    kind,
                    name: known.name,
                };
                if table.restore(known.name, holder, now_s) && !self.names.restore(name, holder, now_s) {
                    self.forget(name);
                }
            }
        }
    }
}

fn service_of(workload: &Workload) -> u64 {
    id::key("service", &[&workload.namespace, &workload.service])
}

/// Entries that lasted, as stored.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(message, repeated, tag = "1")]
    known: Vec<Known>,
}

#[derive(Clone, PartialEq, Message)]
struct Known {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(fixed64, tag = "2")]
    service: u64,
    #[prost(fixed64, tag = "3")]
    group: u64,
    #[prost(fixed64, tag = "4")]
    name: u64,
    #[prost(string, tag = "5")]
    sender: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: SenderKey = SenderKey::Unknown;

    fn limits(workloads: usize, routes: usize) -> IngestLimits {
        IngestLimits {
            max_workloads: workloads,
            max_routes_per_service: routes,
            max_peers_per_service: routes,
            ..IngestLimits::default()
        }
    }

    #[test]
    fn known_routes_keep_working_and_idle_ones_make_room() {
        let (cart, shop) = (workload("cart"), workload("shop"));
        let mut names = Cardinality::new(&limits(10, 2));
        for now_s in [100_000, 100_010] {
            assert!(names.admit_route(NOBODY, &cart, "/a", now_s));
            assert!(names.admit_route(NOBODY, &cart, "/b", now_s));
        }
        assert!(!names.admit_route(NOBODY, &cart, "/c", 100_011));
        assert!(names.admit_route(NOBODY, &cart, "/a", 103_000));
        assert!(
            names.admit_route(NOBODY, &shop, "/c", 103_000),
            "limits are per service"
        );
        // `/b` has now been idle for an hour, `/a` has not.
        assert!(names.admit_route(NOBODY, &cart, "/c", 103_700));
        assert!(!names.admit_route(NOBODY, &cart, "/b", 103_700));
        assert!(names.admit_route(NOBODY, &cart, "/a", 103_700));
        let refused = &names.json()["refused"];
        assert_eq!(
            (&refused[0]["table"], &refused[0]["count"]),
            (&"routes".into(), &2.into())
        );
    }

    #[test]
    fn workloads_and_peers_are_bounded() {
        let mut names = Cardinality::new(&limits(1, 1));
        assert!(names.admit_workload(NOBODY, &workload("a"), Component::Proxy, 0));
        assert!(names.admit_workload(NOBODY, &workload("a"), Component::Proxy, 1));
        assert!(!names.admit_workload(NOBODY, &workload("a"), Component::Application, 1));
        let peer = |version: &str| Release {
            version: version.into(),
            ..Release::default()
        };
        assert!(names.admit_peer(NOBODY, &workload("a"), &peer("1"), 0));
        assert!(!names.admit_peer(NOBODY, &workload("a"), &peer("2"), 0));
        assert_eq!(names.json()["workloads"]["is_full"], true);
    }

    #[test]
    fn types_of_profiles_are_bounded_for_each_service() {
        let mut names = Cardinality::new(&limits(10, 10));
        let admitted = (0..200).filter(|n| names.admit_profile_type(NOBODY, &workload("a"), &format!("t{n}"), 0));
        assert_eq!(admitted.count(), MAX_PROFILE_TYPES);
        assert!(names.admit_profile_type(NOBODY, &workload("b"), "t0", 0));
    }

    #[test]
    fn a_route_that_a_service_forgets_is_forgotten_among_all() {
        let mut names = Cardinality::new(&limits(10, 4));
        let [a, b] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(|ip| SenderKey::of_address(std::net::IpAddr::from(ip)));
        for n in 0..9 {
            names.admit_route(a, &workload("x"), &format!("/{n}"), 0);
        }
        for n in 20..29 {
            names.admit_route(b, &workload("x"), &format!("/{n}"), 0);
        }
        assert_eq!((names.names.len(), names.services.len()), (4, 1));
        assert_eq!(names.names.largest(9), [(a, 2), (b, 2)]);
    }

    #[test]
    fn what_lasted_is_known_after_a_restart_before_anybody_who_comes_first() {
        let limits = limits(2, 2);
        let mut names = Cardinality::new(&limits);
        for now_s in [0, 10] {
            names.admit_workload(NOBODY, &workload("a"), Component::Proxy, now_s);
            names.admit_route(NOBODY, &workload("a"), "/a", now_s);
        }
        names.admit_workload(NOBODY, &workload("b"), Component::Proxy, 10);
        let records = names.records().unwrap();
        assert_eq!(names.records(), None, "nothing new");
        let mut anew = Cardinality::new(&limits);
        anew.restore(&records, 100);
        for n in 0..9 {
            anew.admit_workload(NOBODY, &workload(&format!("made up {n}")), Component::Proxy, 100);
            anew.admit_route(NOBODY, &workload("a"), &format!("/{n}"), 100);
        }
        assert!(anew.admit_workload(NOBODY, &workload("a"), Component::Proxy, 101));
        assert!(anew.admit_route(NOBODY, &workload("a"), "/a", 101));
        assert_eq!(
            anew.restore(&[b"\xff".to_vec()], 0),
            (),
            "a record that cannot be read is none"
        );
    }

    fn workload(service: &str) -> Workload {
        Workload {
            service: service.into(),
            ..Workload::default()
        }
    }
}
