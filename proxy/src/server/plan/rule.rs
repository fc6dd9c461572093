//! A rule of a service: which requests it takes, and which cluster gets them.
//!
//! Guarantees: the first rule that takes a request decides, and the rules of the service that it leads to are not asked; shares are
//! exact over as many requests as the sum of the weights, in each worker; a header leads only to clusters that are configured.

use std::{collections::HashMap, sync::Arc};

use http::{HeaderName, request::Parts};

use super::Place;
use crate::{
    cluster::{Retries, RoundRobin},
    config::{RuleConfig, Timeouts},
    filter::{
        Refused,
        chain::Filter,
        list::{Made, filters},
    },
    route::matching::Matcher,
};

/// A rule.
#[derive(Debug)]
pub(crate) struct Rule {
    matcher: Matcher,
    target: Target,
    /// In place of the service's.
    pub(super) timeouts: Option<Timeouts>,
    /// Likewise.
    pub(super) retries: Option<Retries>,
    /// Likewise.
    pub(super) filters: Option<Arc<[Arc<dyn Filter>]>>,
}

/// Where it leads. There is no place for a name that nothing has.
#[derive(Debug)]
enum Target {
    One(Option<Place>),
    Split {
        turns: RoundRobin,
        places: Vec<Option<Place>>,
    },
    Header {
        name: HeaderName,
        places: HashMap<String, Place>,
    },
}

impl Rule {
    /// `places`: clusters by their names; `name`: what tells it from other rules of the process.
    pub(crate) fn new(rule: &RuleConfig, places: &HashMap<String, Place>, name: &str, made: &Made<'_>) -> Rule {
        let place_of = |name: &String| places.get(name).copied();
        let header = rule.cluster_header.as_ref().and_then(|name| name.parse().ok());
        let target = match header {
            Some(name) => Target::Header {
                name,
                places: places.clone(),
            },
            None if !rule.split.is_empty() => {
                let weights: Vec<u64> = rule.split.iter().map(|share| share.weight.into()).collect();
                Target::Split {
                    turns: RoundRobin::new(&weights),
                    places: rule.split.iter().map(|share| place_of(&share.cluster)).collect(),
                }
            }
            None => Target::One(rule.cluster.as_ref().and_then(place_of)),
        };
        Rule {
            matcher: Matcher::new(rule),
            target,
            timeouts: rule.timeouts,
            retries: rule.retries.clone().map(Retries::new),
            filters: rule.filters.as_deref().map(|list| filters(list, name, made)),
        }
    }

    /// Where a request goes; `None` where it is not for this rule.
    pub(super) fn place_of(&self, head: &Parts) -> Option<Result<Place, Refused>> {
        if !self.matcher.matches(head) {
            return None;
        }
        let place = match &self.target {
            Target::One(place) => *place,
            Target::Split { turns, places } => turns.pick(|_| true).and_then(|at| places[at]),
            Target::Header { name, places } => {
                let value = head.headers.get(name)?.to_str();
                value.ok().and_then(|value| places.get(value).copied())
            }
        };
        Some(place.ok_or(Refused::NO_CLUSTER))
    }
}
