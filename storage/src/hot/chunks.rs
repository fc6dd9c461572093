//! Splits rows into chunks that the engine can sort in memory: whole series, one after another.

/// Approximate number of rows sorted at a time; a series with more is sorted alone, on disk.
pub(super) const CHUNK_ROWS: u64 = 2 << 20;

/// Ranges of series, both ends included, that together contain every series once, in ascending order, and at most
/// `most` rows each unless a single series has more. `counts` are the series with their rows, ascending.
pub(super) fn series_ranges(counts: &[(u64, u64)], most: u64) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    let (mut first, mut rows) = (None, 0);
    for (at, &(series, count)) in counts.iter().enumerate() {
        let from = *first.get_or_insert(series);
        rows += count;
        let fits = counts.get(at + 1).is_some_and(|next| rows + next.1 <= most);
        if !fits {
            ranges.push((from, series));
            (first, rows) = (None, 0);
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_series_is_in_one_range_and_ranges_are_small(
            counts in prop::collection::btree_map(any::<u64>(), 1..CHUNK_ROWS * 2, 0..40),
        ) {
            let counts: Vec<(u64, u64)> = counts.into_iter().collect();
            let mut found = Vec::new();
            for (first, last) in series_ranges(&counts, CHUNK_ROWS) {
                let within: Vec<(u64, u64)> =
                    counts.iter().copied().filter(|c| (first..=last).contains(&c.0)).collect();
                let rows: u64 = within.iter().map(|c| c.1).sum();
                prop_assert!(rows <= CHUNK_ROWS || within.len() == 1);
                found.extend(within);
            }
            prop_assert_eq!(found, counts);
        }
    }
}
