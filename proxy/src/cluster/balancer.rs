//! Which endpoint gets the next request.
//!
//! Guarantees: an endpoint that is not fit for requests is passed over while another one is; where none is fit, all are
//! taken for fit, because a request that may fail is better than one that does. The addresses of a name share its weight
//! equally.

mod round_robin;

use std::sync::Arc;

use round_robin::RoundRobin;

use super::endpoint::Endpoint;

/// Weights are kept as multiples of this, so that the addresses of a name can share one.
const UNIT: u64 = 1 << 20;

/// Endpoints with their weights, and whose turn it is.
#[derive(Debug)]
pub(super) struct Balancer {
    endpoints: Vec<Arc<Endpoint>>,
    turns: RoundRobin,
}

impl Balancer {
    /// `groups`: endpoints that share a weight.
    pub(super) fn new(groups: &[(Vec<Arc<Endpoint>>, u32)]) -> Balancer {
        let sizes = groups.iter().map(|(endpoints, _)| endpoints.len() as u64);
        let unit = common_multiple(sizes.filter(|&size| size > 0)).unwrap_or(UNIT);
        let (mut endpoints, mut weights) = (Vec::new(), Vec::new());
        for (members, weight) in groups {
            for member in members {
                endpoints.push(Arc::clone(member));
                weights.push((u64::from(*weight) * unit / members.len() as u64).max(1));
            }
        }
        Balancer {
            turns: RoundRobin::new(&weights),
            endpoints,
        }
    }

    pub(super) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Who gets a request that has been `tried` elsewhere; `None` when nobody is left.
    pub(super) fn pick(&self, tried: &[Arc<Endpoint>]) -> Option<Arc<Endpoint>> {
        let is_left = |at: usize| !tried.iter().any(|tried| Arc::ptr_eq(tried, &self.endpoints[at]));
        let is_fit = |at: usize| self.endpoints[at].health().is_fit() && is_left(at);
        let picked = if tried.is_empty() {
            self.turns.pick(is_fit).or_else(|| self.turns.pick(is_left))
        } else {
            self.turns.instead(is_fit).or_else(|| self.turns.instead(is_left))
        };
        picked.map(|at| Arc::clone(&self.endpoints[at]))
    }
}

/// The least common multiple, unless it is so large that a share of it is exact enough.
fn common_multiple(mut sizes: impl Iterator<Item = u64>) -> Option<u64> {
    sizes.try_fold(1_u64, |multiple, size| {
        let (mut a, mut b) = (multiple, size);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        Some(multiple / a * size).filter(|multiple| *multiple <= UNIT)
    })
}
