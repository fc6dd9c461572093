//! Profiles that contain functions and their callers, but no stacks: callgrind, Python's `pstats`.
//!
//! They become a tree of two levels, each function below its direct callers, under a frame that says so. Guarantees:
//! the self values of functions are exact, and so is their sum. A function's self value is divided among its callers in
//! proportion to the inclusive cost of their calls, as in `gprof`, which is a guess.

use std::collections::HashMap;

use super::{read_error::ReadError, table::Table};

/// The outermost frame.
pub(super) const ONE_LEVEL: &str = "[direct callers only]";

/// Functions with their self value, and calls with their weight.
#[derive(Debug, Default)]
pub(super) struct Edges {
    own: HashMap<u32, i64>,
    /// Weight of calls by (callee, caller).
    calls: HashMap<(u32, u32), u64>,
}

impl Edges {
    /// Adds to a function's self value.
    pub(super) fn spend(&mut self, function: u32, value: i64) {
        let own = self.own.entry(function).or_default();
        *own = own.saturating_add(value);
    }

    /// Adds to the weight of a function's calls from another.
    pub(super) fn call(&mut self, called: u32, caller: u32, weight: u64) {
        let sum = self.calls.entry((called, caller)).or_default();
        *sum = sum.saturating_add(weight);
    }

    /// Writes the tree into a column.
    pub(super) fn write(self, table: &mut Table, column: usize) -> Result<(), ReadError> {
        let root = table.frame(ONE_LEVEL, "", 0)?;
        let mut calls: Vec<((u32, u32), u64)> = self.calls.into_iter().collect();
        calls.sort_unstable();
        let mut own: Vec<(u32, i64)> = self.own.into_iter().collect();
        own.sort_unstable();
        for (function, value) in own {
            if value <= 0 {
                continue;
            }
            let first = calls.partition_point(|((called, _), _)| *called < function);
            let callers = calls[first..].iter().take_while(|((called, _), _)| *called == function);
            let callers: Vec<(u32, u64)> = callers
                .filter(|(_, weight)| *weight > 0)
                .map(|((_, caller), weight)| (*caller, *weight))
                .collect();
            let all: u128 = callers.iter().map(|(_, weight)| u128::from(*weight)).sum();
            // Rounded on the running sum, so that the pieces add up.
            let (mut weight_so_far, mut value_so_far) = (0u128, 0i64);
            for &(caller, weight) in &callers {
                weight_so_far += u128::from(weight);
                let until = (u128::from(value.unsigned_abs()) * weight_so_far / all) as i64;
                let row = table.row(vec![function, caller, root])?;
                table.add(row, column, until - value_so_far, u64::from(until > value_so_far))?;
                value_so_far = until;
            }
            if callers.is_empty() {
                let row = table.row(vec![function, root])?;
                table.add(row, column, value, 1)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::formats::table::{Column, wall};

    proptest! {
        #[test]
        fn own_values_are_exact_however_they_are_divided(
            own in prop::collection::vec(0i64..i64::MAX / 8, 4),
            calls in prop::collection::vec((0u32..4, 0u32..4, 0u64..u64::MAX / 8), 0..12),
        ) {
            let mut table = Table::new(vec![Column::new(wall(), 0)], 1 << 20);
            let frames: Vec<u32> = (0..4).map(|n| table.frame(&format!("f{n}"), "", 0).unwrap()).collect();
            let mut edges = Edges::default();
            own.iter().zip(&frames).for_each(|(value, frame)| edges.spend(*frame, *value));
            calls.iter().for_each(|(called, caller, weight)| edges.call(frames[*called as usize], frames[*caller as usize], *weight));
            edges.write(&mut table, 0).unwrap();
            let profile = table.finish(0, 0).unwrap().profiles.remove(0);
            for (frame, value) in frames.iter().zip(&own) {
                let name = format!("f{frame}");
                let is_leaf = |stack: u32| match &profile.locations[profile.stacks[stack as usize][0] as usize] {
                    crate::Location::Named { frames } => frames[0].function == name,
                    crate::Location::Native { .. } => false,
                };
                let sum: i64 = profile.samples.iter().filter(|sample| is_leaf(sample.stack)).map(|sample| sample.value).sum();
                prop_assert_eq!(sum, *value);
            }
        }
    }
}
