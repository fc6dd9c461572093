//! A target: an address with labels that identify the profiled workload.
//!
//! Guarantees: an address changed by relabelling is checked before it is contacted; labels whose names begin with `__`
//! end here; two targets are equal exactly if they scrape the same address for the same labels.

use emberline_model::formats::Sender;

use super::{
    address::{Address, address},
    config::{Group, Scheme},
    relabel::{Labels, Rule, relabel},
};

/// The origin of a target's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Trust {
    /// Configured by the operator.
    Written,
    /// From a name server or a file that others can write; such an address must not lead to this machine.
    Looked,
}

/// A target to scrape.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) address: Address,
    pub(super) labels: Labels,
    pub(super) trust: Trust,
}

/// The label of a target's address during relabelling.
const ADDRESS: &str = "__address__";

impl Target {
    /// The targets of a group after relabelling, and the problems of the others.
    pub(super) fn of_group(
        job: &str,
        group: &Group,
        trust: Trust,
        rules: &[Rule],
        scheme: Scheme,
    ) -> impl Iterator<Item = Result<Target, String>> {
        group.targets.iter().filter_map(move |target| {
            let mut labels = group.labels.clone();
            labels.entry("job".to_owned()).or_insert_with(|| job.to_owned());
            labels.insert(ADDRESS.to_owned(), target.clone());
            let mut labels = relabel(labels, rules)?;
            let Some(at) = labels.remove(ADDRESS) else {
                return Some(Err(format!("relabelling removed `__address__` of `{target}`")));
            };
            labels.retain(|name, _| !name.starts_with("__"));
            labels.entry("instance".to_owned()).or_insert_with(|| at.clone());
            Some(address(&at, scheme.port()).map(|address| Target { address, labels, trust }))
        })
    }

    /// The profiled workload.
    pub(super) fn sender(&self) -> Sender {
        let labels: Vec<(&str, &str)> = self
            .labels
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        Sender::from_labels(&labels).unwrap_or_else(|| Sender::of_service(&self.address.host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_name_the_workload_and_those_of_discovery_end_here() {
        let group: Group = emberline_yaml::from_str(
            "{targets: ['a:1', 'b:2'], labels: {version: v2, namespace: prod, __meta_x: y, instance: one}}",
        )
        .unwrap();
        let rules: Vec<Rule> =
            emberline_yaml::from_str("[{source_labels: [__address__], regex: 'b:.*', action: drop}]").unwrap();
        let targets: Vec<_> = Target::of_group("shop", &group, Trust::Written, &rules, Scheme::Http).collect();
        let [Ok(target)] = targets.as_slice() else {
            panic!("{targets:?}");
        };
        assert!(!target.labels.contains_key("__meta_x"));
        let workload = target.sender().workload;
        assert_eq!(
            [
                workload.service,
                workload.version,
                workload.namespace,
                workload.instance
            ],
            ["shop", "v2", "prod", "one"]
        );
    }

    #[test]
    fn relabelling_may_not_lead_anywhere_but_to_an_address() {
        let group: Group = emberline_yaml::from_str("{targets: ['a:1']}").unwrap();
        let rules: Vec<Rule> =
            emberline_yaml::from_str("[{target_label: __address__, replacement: 'http://x/'}]").unwrap();
        let target = Target::of_group("shop", &group, Trust::Written, &rules, Scheme::Http).next();
        assert!(target.unwrap().unwrap_err().contains("`http://x/`"));
    }
}
