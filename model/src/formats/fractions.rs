//! Stacks with weights that are no whole numbers.
//!
//! Guarantees: weights of one stack are added up before they are rounded, and what rounding takes from one stack goes to
//! the next, so that the total is right to half a unit however many samples there are. Memory grows with the different
//! stacks that have such weights.

use std::collections::HashMap;

use crate::{profile_builder::ProfileBuilder, workload::LabelSet};

/// Sums by stack, in the order in which the stacks came.
#[derive(Debug, Default)]
pub(super) struct Fractions {
    rows: Vec<Row>,
    index: HashMap<Vec<u32>, usize>,
}

#[derive(Debug)]
struct Row {
    leaf_first: Vec<u32>,
    /// Whole units, which would lose their last digits as a float.
    whole: i64,
    fraction: f64,
    samples: u64,
}

impl Fractions {
    /// Adds a weight, which must be neither negative nor above what fits into 63 bits. A whole one goes to the profile at
    /// once.
    pub(super) fn add(&mut self, builder: &mut ProfileBuilder, leaf_first: Vec<u32>, weight: f64, samples: u64) {
        if weight.fract() == 0.0 {
            builder.add(leaf_first, &LabelSet::none(), weight as i64, samples);
            return;
        }
        let rows = &mut self.rows;
        let at = *self.index.entry(leaf_first).or_insert_with_key(|leaf_first| {
            rows.push(Row {
                leaf_first: leaf_first.clone(),
                whole: 0,
                fraction: 0.0,
                samples: 0,
            });
            rows.len() - 1
        });
        let row = &mut rows[at];
        let whole = weight.floor();
        row.whole = row.whole.saturating_add(whole as i64);
        row.fraction += weight - whole;
        row.samples = row.samples.saturating_add(samples);
    }

    /// Adds the rounded sums to a profile.
    pub(super) fn finish(self, builder: &mut ProfileBuilder) {
        let mut carried = 0.0;
        for row in self.rows {
            let fraction = row.fraction + carried;
            let rounded = fraction.round().max(0.0);
            carried = fraction - rounded;
            let value = row.whole.saturating_add(rounded as i64);
            builder.add(row.leaf_first, &LabelSet::none(), value, row.samples);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::profile::ProfileType;

    proptest! {
        #[test]
        fn the_total_is_right_to_half_a_unit(weights in prop::collection::vec((0u32..20, 0.0f64..3.0), 0..300)) {
            let mut builder = ProfileBuilder::new(ProfileType::cpu(), 0);
            let mut fractions = Fractions::default();
            let leaf = builder.frame("leaf", "", 0);
            for &(depth, weight) in &weights {
                fractions.add(&mut builder, vec![leaf; depth as usize + 1], weight, 1);
            }
            fractions.finish(&mut builder);
            let profile = builder.finish();
            let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
            prop_assert!((profile.total() as f64 - sum).abs() <= 0.500001, "{} {}", profile.total(), sum);
            prop_assert_eq!(profile.samples.iter().map(|s| s.count).sum::<u64>(), weights.len() as u64);
            prop_assert!(profile.validate().is_ok());
        }
    }
}
