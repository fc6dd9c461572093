//! How many different names senders have used: what keeps a broken path template from filling the store.
//!
//! Guarantees: memory is bounded by the limits; a name that was admitted stays admitted as long as it is used, so
//! existing series keep working when new ones overflow. A name unused for an hour makes room.
//!
//! Wrong on purpose: what was admitted is forgotten at a restart; afterwards, at the limit, other routes may be the
//! ones that fold.

use std::collections::HashMap;

use emberline_model::{Component, Release, Workload, id};

use super::limits::IngestLimits;

/// A name that was not used for so long makes room for others, in seconds.
const IDLE_S: i64 = 3600;
/// Full tables are swept at most this often, in seconds: sweeping looks at every entry.
const SWEEP_EVERY_S: i64 = 30;
/// Routes and peers of all services together.
const MAX_NAMES: usize = 300_000;

/// Entries with the time of their last use, up to a limit.
#[derive(Debug, Default)]
struct Names {
    last_used: HashMap<u64, i64>,
    swept_at: i64,
}

impl Names {
    /// True when the name is known or there is room for it. `room` says whether another table allows one more.
    fn admit(&mut self, name: u64, now_s: i64, limit: usize, room: bool) -> bool {
        if let Some(last) = self.last_used.get_mut(&name) {
            *last = now_s;
            return true;
        }
        if self.last_used.len() >= limit && now_s - self.swept_at >= SWEEP_EVERY_S {
            self.swept_at = now_s;
            self.last_used.retain(|_, last| now_s - *last < IDLE_S);
        }
        let admitted = room && self.last_used.len() < limit;
        if admitted {
            self.last_used.insert(name, now_s);
        }
        admitted
    }
}

#[derive(Debug, Default)]
struct ServiceNames {
    routes: Names,
    peers: Names,
}

/// What senders have named so far.
#[derive(Debug, Default)]
pub(crate) struct Cardinality {
    workloads: Names,
    services: HashMap<u64, ServiceNames>,
    names: usize,
    swept_at: i64,
}

impl Cardinality {
    /// True when the reporting process is known or there is room for one more.
    pub(crate) fn admit_workload(
        &mut self,
        workload: &Workload,
        component: Component,
        limits: &IngestLimits,
        now_s: i64,
    ) -> bool {
        let key = id::series_id(workload, component, "");
        self.workloads.admit(key, now_s, limits.max_workloads, true)
    }

    /// True when the route of a service may be used; otherwise it folds into `other`.
    pub(crate) fn admit_route(&mut self, workload: &Workload, route: &str, limits: &IngestLimits, now_s: i64) -> bool {
        let name = id::key("route", &[route]);
        self.admit(workload, now_s, |names, room| {
            names.routes.admit(name, now_s, limits.max_routes_per_service, room)
        })
    }

    /// True when the peer of a service may be used; otherwise it becomes unknown.
    pub(crate) fn admit_peer(
        &mut self,
        workload: &Workload,
        peer: &Release,
        limits: &IngestLimits,
        now_s: i64,
    ) -> bool {
        let name = id::release_id(peer);
        self.admit(workload, now_s, |names, room| {
            names.peers.admit(name, now_s, limits.max_peers_per_service, room)
        })
    }

    fn admit(&mut self, workload: &Workload, now_s: i64, admit: impl FnOnce(&mut ServiceNames, bool) -> bool) -> bool {
        self.sweep(now_s);
        let service = id::key("service", &[&workload.namespace, &workload.service]);
        let names = self.services.entry(service).or_default();
        let size = |names: &ServiceNames| names.routes.last_used.len() + names.peers.last_used.len();
        let before = size(names);
        let admitted = admit(names, self.names < MAX_NAMES);
        self.names = self.names + size(names) - before;
        admitted
    }

    /// Forgets what is idle in services that nobody asks about any more.
    fn sweep(&mut self, now_s: i64) {
        if now_s - self.swept_at < IDLE_S {
            return;
        }
        self.swept_at = now_s;
        for names in self.services.values_mut() {
            names.routes.last_used.retain(|_, last| now_s - *last < IDLE_S);
            names.peers.last_used.retain(|_, last| now_s - *last < IDLE_S);
        }
        self.services
            .retain(|_, names| !names.routes.last_used.is_empty() || !names.peers.last_used.is_empty());
        self.names = self
            .services
            .values()
            .map(|n| n.routes.last_used.len() + n.peers.last_used.len())
            .sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_routes_keep_working_and_idle_ones_make_room() {
        let limits = IngestLimits {
            max_routes_per_service: 2,
            ..IngestLimits::default()
        };
        let (cart, shop) = (workload("cart"), workload("shop"));
        let mut names = Cardinality::default();
        assert!(names.admit_route(&cart, "/a", &limits, 100_000));
        assert!(names.admit_route(&cart, "/b", &limits, 100_000));
        assert!(!names.admit_route(&cart, "/c", &limits, 100_001));
        assert!(names.admit_route(&cart, "/a", &limits, 103_000));
        assert!(
            names.admit_route(&shop, "/c", &limits, 103_000),
            "limits are per service"
        );
        // `/b` is idle for an hour now, `/a` is not.
        assert!(names.admit_route(&cart, "/c", &limits, 103_700));
        assert!(!names.admit_route(&cart, "/b", &limits, 103_700));
        assert!(names.admit_route(&cart, "/a", &limits, 103_700));
    }

    #[test]
    fn workloads_and_peers_are_bounded() {
        let limits = IngestLimits {
            max_workloads: 1,
            max_peers_per_service: 1,
            ..IngestLimits::default()
        };
        let mut names = Cardinality::default();
        assert!(names.admit_workload(&workload("a"), Component::Proxy, &limits, 0));
        assert!(names.admit_workload(&workload("a"), Component::Proxy, &limits, 1));
        assert!(!names.admit_workload(&workload("a"), Component::Application, &limits, 1));
        let peer = |version: &str| Release {
            version: version.into(),
            ..Release::default()
        };
        assert!(names.admit_peer(&workload("a"), &peer("1"), &limits, 0));
        assert!(!names.admit_peer(&workload("a"), &peer("2"), &limits, 0));
    }

    fn workload(service: &str) -> Workload {
        Workload {
            service: service.into(),
            ..Workload::default()
        }
    }
}
