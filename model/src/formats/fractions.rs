//! Stacks with fractional weights.
//!
//! Guarantees: weights of one stack are added up before rounding, and what rounding takes from one stack goes to the
//! next, so that the total is right to half a unit, however many samples there are. Memory grows with the number of
//! distinct stacks that have such weights.

use crate::{positions::Positions, profile_builder::ProfileBuilder, weight::TooHeavy, workload::LabelSet};

/// Sums by stack, in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Fractions {
    /// Leaf first.
    stacks: Vec<Vec<u32>>,
    positions: Positions,
    /// One per stack.
    rows: Vec<Row>,
}

#[derive(Debug, Default)]
struct Row {
    /// Whole units, whose last digits a float would lose.
    whole: i64,
    fraction: f64,
    samples: u64,
}

impl Fractions {
    /// Adds a weight, which must be neither negative nor too large for 63 bits. A whole one is added to the profile at
    /// once.
    ///
    /// # Errors
    /// When there are more stacks than the builder's memory allows.
    pub(super) fn add(
        &mut self,
        builder: &mut ProfileBuilder,
        leaf_first: Vec<u32>,
        weight: f64,
        samples: u64,
    ) -> Result<(), TooHeavy> {
        if weight.fract() == 0.0 {
            builder.add(leaf_first, &LabelSet::none(), weight as i64, samples);
            return Ok(());
        }
        let frames = leaf_first.len();
        let at = self.positions.place(&mut self.stacks, leaf_first) as usize;
        if at == self.rows.len() {
            self.rows.push(Row::default());
            builder.charge(|allowance| allowance.stack(frames))?;
        }
        let row = &mut self.rows[at];
        let whole = weight.floor();
        row.whole = row.whole.saturating_add(whole as i64);
        row.fraction += weight - whole;
        row.samples = row.samples.saturating_add(samples);
        Ok(())
    }

    /// Adds the rounded sums to a profile.
    pub(super) fn finish(self, builder: &mut ProfileBuilder) {
        let mut carried = 0.0;
        for (leaf_first, row) in self.stacks.into_iter().zip(self.rows) {
            let fraction = row.fraction + carried;
            let rounded = fraction.round().max(0.0);
            carried = fraction - rounded;
            let value = row.whole.saturating_add(rounded as i64);
            builder.add(leaf_first, &LabelSet::none(), value, row.samples);
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
                fractions.add(&mut builder, vec![leaf; depth as usize + 1], weight, 1).unwrap();
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
