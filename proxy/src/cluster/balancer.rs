//! Which endpoint gets the next request.
//!
//! Guarantees: an unfit endpoint is skipped while another one is fit; if none is, all count as fit, because a request
//! that may fail is better than one that does. The addresses of a name share its weight equally, with every balancer. A
//! request without the configured hash key goes to any endpoint.
//!
//! Wrong on purpose: tables and rings are rebuilt by the worker that notices new addresses for a name, which takes it
//! some milliseconds for a hundred addresses.

mod maglev;
mod random;
mod ring;
mod round_robin;

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
    time::Duration,
};

use maglev::Maglev;
use random::Random;
use ring::Ring;
pub(crate) use round_robin::RoundRobin;

use super::endpoint::Endpoint;
use crate::config::{BalancerKind, BalancerOptions};

/// Weights are multiples of this, so that the addresses of a name can share one.
const UNIT: u64 = 1 << 20;

/// Endpoints with their weights, and the method of choosing.
#[derive(Debug)]
pub(super) struct Balancer {
    endpoints: Vec<Arc<Endpoint>>,
    /// For each endpoint, the mean weight divided by its own.
    lightness: Vec<f64>,
    choice: Choice,
}

#[derive(Debug)]
enum Choice {
    RoundRobin(RoundRobin),
    Random(Random),
    LeastRequest(Random),
    PeakEwma(Random, BalancerOptions),
    Ring(Ring, Random),
    Maglev(Maglev, Random),
}

impl Balancer {
    /// `groups` are endpoints that share a weight.
    pub(super) fn new(kind: BalancerKind, options: &BalancerOptions, groups: &[(Vec<Arc<Endpoint>>, u32)]) -> Balancer {
        let sizes = groups.iter().map(|(endpoints, _)| endpoints.len() as u64);
        let unit = common_multiple(sizes.filter(|&size| size > 0)).unwrap_or(UNIT);
        let (mut endpoints, mut weights) = (Vec::new(), Vec::new());
        for (members, weight) in groups {
            for member in members {
                endpoints.push(Arc::clone(member));
                weights.push((u64::from(*weight) * unit / members.len() as u64).max(1));
            }
        }
        let random = || Random::new(&weights, RandomState::new().build_hasher().finish());
        let names = || -> Vec<String> { endpoints.iter().map(|e| e.dial().at().to_string()).collect() };
        let choice = match kind {
            BalancerKind::RoundRobin => Choice::RoundRobin(RoundRobin::new(&weights)),
            BalancerKind::Random => Choice::Random(random()),
            BalancerKind::LeastRequest => Choice::LeastRequest(random()),
            BalancerKind::PeakEwma => Choice::PeakEwma(random(), *options),
            BalancerKind::RingHash => {
                let bounds = (options.ring_min_points, options.ring_max_points);
                Choice::Ring(Ring::new(&names(), &weights, bounds), random())
            }
            BalancerKind::Maglev => Choice::Maglev(Maglev::new(&names(), &weights, options.table_size), random()),
        };
        let mean = weights.iter().sum::<u64>() as f64 / weights.len() as f64;
        Balancer {
            lightness: weights.iter().map(|&weight| mean / weight as f64).collect(),
            endpoints,
            choice,
        }
    }

    pub(super) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// How fast the averages of latencies decay, if they are used.
    pub(super) fn decay(&self) -> Option<Duration> {
        match &self.choice {
            Choice::PeakEwma(_, options) => Some(options.decay()),
            _ => None,
        }
    }

    /// The endpoint for a request that has been `tried` elsewhere; `None` when none is left.
    pub(super) fn pick(&self, key: Option<u64>, tried: &[Arc<Endpoint>]) -> Option<Arc<Endpoint>> {
        let is_left = |at: usize| !tried.iter().any(|tried| Arc::ptr_eq(tried, &self.endpoints[at]));
        let is_fit = |at: usize| self.endpoints[at].health().is_fit() && is_left(at);
        let is_first = tried.is_empty();
        let picked = self.choose(key, is_first, is_fit);
        let picked = picked.or_else(|| self.choose(key, is_first, is_left));
        picked.map(|at| Arc::clone(&self.endpoints[at]))
    }

    fn choose(&self, key: Option<u64>, is_first: bool, is_candidate: impl Fn(usize) -> bool) -> Option<usize> {
        match (&self.choice, key) {
            (Choice::RoundRobin(turns), _) if is_first => turns.pick(is_candidate),
            (Choice::RoundRobin(turns), _) => turns.instead(is_candidate),
            (Choice::LeastRequest(random), _) => random.pick_of_two(is_candidate, |at| self.busyness(at)),
            (Choice::PeakEwma(random, options), _) => random.pick_of_two(is_candidate, |at| {
                let latency = self.endpoints[at]
                    .load()
                    .latency(options.decay(), options.unknown_latency());
                latency * (1.0 + self.busyness(at))
            }),
            (Choice::Ring(ring, _), Some(key)) => ring.pick(key, is_candidate),
            (Choice::Maglev(maglev, _), Some(key)) => maglev.pick(key, is_candidate),
            (Choice::Random(random) | Choice::Ring(_, random) | Choice::Maglev(_, random), _) => {
                random.pick(is_candidate)
            }
        }
    }

    /// Requests in flight, scaled down for heavier endpoints.
    fn busyness(&self, at: usize) -> f64 {
        f64::from(self.endpoints[at].load().in_flight()) * self.lightness[at]
    }
}

/// The least common multiple, unless it is so large that an approximate share is exact enough.
fn common_multiple(mut sizes: impl Iterator<Item = u64>) -> Option<u64> {
    sizes.try_fold(1_u64, |multiple, size| {
        let (mut a, mut b) = (multiple, size);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        Some(multiple / a * size).filter(|multiple| *multiple <= UNIT)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        budget::Budget,
        cluster::{Dial, Group, Http1Options, Watch, in_flight::InFlight},
    };

    /// Addresses that share weights.
    fn groups(sizes: &[(u8, u32)]) -> Vec<(Vec<Arc<Endpoint>>, u32)> {
        let budget = Budget::new(&crate::config::Limits::default(), &Arc::default());
        let watched = Group::new("shop", None, Watch::default(), &Arc::default());
        let endpoint = |group: usize, last: u8| {
            let dial = Dial::new(([127, 0, group as u8, last], 80).into(), None, Arc::clone(&budget));
            Endpoint::new(dial, Http1Options::default(), &watched)
        };
        let group =
            |(at, &(size, weight)): (usize, &(u8, u32))| ((0..size).map(|last| endpoint(at, last)).collect(), weight);
        sizes.iter().enumerate().map(group).collect()
    }

    fn balancer(kind: BalancerKind, sizes: &[(u8, u32)]) -> Balancer {
        Balancer::new(kind, &BalancerOptions::default(), &groups(sizes))
    }

    fn counts(balancer: &Balancer, n: usize) -> Vec<usize> {
        let mut counts = vec![0; balancer.endpoints.len()];
        for key in 0..n {
            let key = xxhash_rust::xxh3::xxh3_64(&key.to_le_bytes());
            let picked = balancer.pick(Some(key), &[]).unwrap();
            counts[balancer.endpoints.iter().position(|e| Arc::ptr_eq(e, &picked)).unwrap()] += 1;
        }
        counts
    }

    const ALL: [BalancerKind; 6] = [
        BalancerKind::RoundRobin,
        BalancerKind::Random,
        BalancerKind::LeastRequest,
        BalancerKind::PeakEwma,
        BalancerKind::RingHash,
        BalancerKind::Maglev,
    ];

    #[test]
    fn addresses_of_a_name_share_its_weight_with_every_balancer() {
        for kind in ALL {
            // A name of three addresses, one of two, and an address.
            let counts = counts(&balancer(kind, &[(3, 3), (2, 4), (1, 3)]), 20_000);
            let tolerance = match kind {
                BalancerKind::RoundRobin => 0,
                BalancerKind::RingHash => 600,
                _ => 300,
            };
            for (n, expected) in counts.iter().zip([2_000, 2_000, 2_000, 4_000, 4_000, 6_000]) {
                assert!(n.abs_diff(expected) <= tolerance, "{kind:?}: {counts:?}");
            }
        }
    }

    #[test]
    fn whoever_is_unfit_or_was_tried_is_passed_over_while_another_one_is_left() {
        for kind in ALL {
            let balancer = balancer(kind, &[(1, 1), (1, 1), (1, 1)]);
            balancer.endpoints[0].health().refused();
            assert_eq!(counts(&balancer, 100)[0], 0, "{kind:?}");
            let mut tried = Vec::new();
            while let Some(next) = balancer.pick(Some(1), &tried) {
                tried.push(next);
            }
            assert_eq!(tried.len(), 3, "{kind:?}");
            assert!(
                Arc::ptr_eq(&tried[2], &balancer.endpoints[0]),
                "{kind:?}: the unfit one comes last"
            );
            balancer
                .endpoints
                .iter()
                .for_each(|endpoint| endpoint.health().refused());
            assert!(
                counts(&balancer, 100).iter().all(|n| *n > 0),
                "{kind:?}: none is fit, so all are"
            );
        }
    }

    #[test]
    fn a_busy_endpoint_is_avoided_in_proportion_to_its_weight() {
        let balancer = balancer(BalancerKind::LeastRequest, &[(1, 3), (1, 1)]);
        let mut open = Vec::new();
        for _ in 0..400 {
            open.push(InFlight::begin(balancer.pick(None, &[]).unwrap(), None));
        }
        let busy = balancer.endpoints[0].load().in_flight();
        assert!((298..=302).contains(&busy), "{busy}");
        drop(open);
        assert_eq!(balancer.endpoints[0].load().in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_endpoint_is_avoided_and_tried_again_later() {
        let balancer = balancer(BalancerKind::PeakEwma, &[(1, 1), (1, 1), (1, 1)]);
        let slow = Arc::clone(&balancer.endpoints[0]);
        let mut to_slow = 0;
        for _ in 0..3_000 {
            let mut request = InFlight::begin(balancer.pick(None, &[]).unwrap(), balancer.decay());
            let is_slow = Arc::ptr_eq(request.endpoint(), &slow);
            to_slow += usize::from(is_slow);
            tokio::time::advance(Duration::from_millis(if is_slow { 1_000 } else { 10 })).await;
            request.answered();
        }
        // Unknown and measured latencies decay alike: it is tried once in a while.
        assert!((1..=20).contains(&to_slow), "{to_slow}");
    }
}
