//! One alert per cause: a caller that is slower because of its callee is folded into the callee.
//!
//! A callee explains `its mean growth × calls per request of the caller`. A caller whose slower callees explain at
//! least 80 % of its own growth is folded into the one that explains most, and from there into that one's root. Means
//! are used because only means add up along a call.
//!
//! Guarantees: pure; every unit gets exactly one root, which is folded into nothing; the result does not depend on the
//! order of the input; call cycles end at the unit in the cycle that grew most.
//!
//! Wrong on purpose: parallel calls are added up as if they were sequential, which folds too much rather than too
//! little; the folded alert stays listed below its root.

use std::collections::BTreeMap;

/// Share of a caller's growth that its callees must explain.
pub const EXPLAINS: f64 = 0.8;

/// A slower unit: a route of a release, seen from its server side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowUnit {
    /// Any identifier that is unique among units.
    pub id: u64,
    /// Growth of its mean duration in seconds.
    pub mean_shift_seconds: f64,
}

/// A call from one unit to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Call {
    /// Identifier of the caller.
    pub caller: u64,
    /// Identifier of the callee.
    pub callee: u64,
    /// Calls per request of the caller.
    pub calls_per_request: f64,
}

/// Where a unit's slowdown comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Folded {
    /// The unit.
    pub id: u64,
    /// The unit whose alert represents it; itself if it is a cause.
    pub root: u64,
    /// The callee it is folded into directly.
    pub into: Option<u64>,
    /// Share of its growth that slower callees explain.
    pub explained: f64,
}

/// Folds slow units along calls; sorted by identifier.
pub fn fold_slowdowns(units: &[SlowUnit], calls: &[Call]) -> Vec<Folded> {
    let shifts: BTreeMap<u64, f64> = units.iter().map(|u| (u.id, u.mean_shift_seconds)).collect();
    let mut explained: BTreeMap<u64, BTreeMap<u64, f64>> = BTreeMap::new();
    for call in calls.iter().filter(|c| c.caller != c.callee) {
        let (Some(&own), Some(&callee)) = (shifts.get(&call.caller), shifts.get(&call.callee)) else {
            continue;
        };
        if own > 0.0 && callee > 0.0 && call.calls_per_request > 0.0 {
            let share = callee * call.calls_per_request / own;
            *explained
                .entry(call.caller)
                .or_default()
                .entry(call.callee)
                .or_default() += share;
        }
    }
    let into = |id: u64| -> Option<u64> {
        let callees = explained.get(&id)?;
        let enough = callees.values().sum::<f64>() >= EXPLAINS;
        let most = callees.iter().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(a.0)))?;
        enough.then_some(*most.0)
    };
    shifts
        .keys()
        .map(|&id| {
            let root = root_of(id, &shifts, into);
            Folded {
                id,
                root,
                into: if root == id { None } else { into(id) },
                explained: explained.get(&id).map_or(0.0, |callees| callees.values().sum()),
            }
        })
        .collect()
}

/// Follows the folding to its end, or to the unit in its cycle that grew most.
fn root_of(id: u64, shifts: &BTreeMap<u64, f64>, into: impl Fn(u64) -> Option<u64>) -> u64 {
    let mut path = vec![id];
    let mut at = id;
    while let Some(next) = into(at) {
        if let Some(entry) = path.iter().position(|&seen| seen == next) {
            let grew_most = path[entry..]
                .iter()
                .max_by(|a, b| shifts[a].total_cmp(&shifts[b]).then(b.cmp(a)));
            return grew_most.copied().unwrap_or(at);
        }
        path.push(next);
        at = next;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unit(id: u64, milliseconds: f64) -> SlowUnit {
        SlowUnit {
            id,
            mean_shift_seconds: milliseconds / 1e3,
        }
    }

    fn call(caller: u64, callee: u64, calls_per_request: f64) -> Call {
        Call {
            caller,
            callee,
            calls_per_request,
        }
    }

    fn roots(units: &[SlowUnit], calls: &[Call]) -> Vec<(u64, u64)> {
        fold_slowdowns(units, calls).iter().map(|f| (f.id, f.root)).collect()
    }

    #[test]
    fn a_chain_folds_into_its_end() {
        let units = [unit(1, 4.2), unit(2, 4.1), unit(3, 4.0)];
        assert_eq!(
            roots(&units, &[call(1, 2, 1.0), call(2, 3, 1.0)]),
            [(1, 3), (2, 3), (3, 3)]
        );
    }

    #[test]
    fn calls_per_request_count_and_a_growth_of_its_own_stays() {
        // Half a call per request explains 2 of 4 ms; two calls of 2 ms explain 4.
        assert_eq!(
            roots(&[unit(1, 4.0), unit(2, 4.0)], &[call(1, 2, 0.5)]),
            [(1, 1), (2, 2)]
        );
        assert_eq!(
            roots(&[unit(1, 4.0), unit(2, 2.0)], &[call(1, 2, 2.0)]),
            [(1, 2), (2, 2)]
        );
        // A callee that is not slow explains nothing.
        assert_eq!(roots(&[unit(1, 4.0)], &[call(1, 2, 1.0)]), [(1, 1)]);
        // Two callees explain it together; the larger one is named.
        let folded = fold_slowdowns(
            &[unit(1, 4.0), unit(2, 2.4), unit(3, 1.5)],
            &[call(1, 2, 1.0), call(1, 3, 1.0)],
        );
        assert_eq!((folded[0].root, folded[0].into), (2, Some(2)));
        assert!((folded[0].explained - 3.9 / 4.0).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn each_unit_has_one_root_in_any_order(
            shifts in prop::collection::vec(0.1f64..10.0, 1..8),
            calls in prop::collection::vec((0u64..8, 0u64..8, 0.1f64..3.0), 0..20),
        ) {
            let units: Vec<_> = shifts.iter().enumerate().map(|(id, &ms)| unit(id as u64, ms)).collect();
            let calls: Vec<_> = calls.iter().map(|&(a, b, n)| call(a, b, n)).collect();
            let folded = fold_slowdowns(&units, &calls);
            let root = |id: u64| folded.iter().find(|f| f.id == id).unwrap().root;
            for f in &folded {
                prop_assert_eq!(root(f.root), f.root);
                prop_assert_eq!(f.into.is_none(), f.root == f.id);
            }
            let (mut units, mut calls) = (units, calls);
            units.reverse();
            calls.reverse();
            let again: Vec<_> = fold_slowdowns(&units, &calls).iter().map(|f| (f.id, f.root)).collect();
            prop_assert_eq!(again, folded.iter().map(|f| (f.id, f.root)).collect::<Vec<_>>());
        }
    }
}
