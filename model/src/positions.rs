//! Positions of values in a list, found by content.
//!
//! Guarantees: equal values get the same position, and no value is stored twice: the index contains only positions, a
//! quarter of the size of a map with the values as keys. Hashing is keyed, so that nobody can choose values that
//! collide.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hash},
};

use hashbrown::HashTable;

/// The index of one list, which must only grow through [`Positions::place`].
#[derive(Debug, Default)]
pub(crate) struct Positions {
    table: HashTable<u32>,
    hasher: RandomState,
}

impl Positions {
    /// The position of a value; `None` if it is not in the list.
    pub(crate) fn find<T: Hash + Eq>(&self, list: &[T], value: &T) -> Option<u32> {
        let hash = self.hasher.hash_one(value);
        self.table.find(hash, |&at| list[at as usize] == *value).copied()
    }

    /// The position of a value; a new one is appended.
    pub(crate) fn place<T: Hash + Eq>(&mut self, list: &mut Vec<T>, value: T) -> u32 {
        let hasher = &self.hasher;
        let hash = hasher.hash_one(&value);
        if let Some(&at) = self.table.find(hash, |&at| list[at as usize] == value) {
            return at;
        }
        let at = list.len() as u32;
        list.push(value);
        let hash_of = |&at: &u32| hasher.hash_one(&list[at as usize]);
        self.table.insert_unique(hash, at, hash_of);
        at
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equal_values_share_a_position(values in prop::collection::vec(0u16..300, 0..2_000)) {
            let (mut list, mut positions) = (Vec::new(), Positions::default());
            for &value in &values {
                prop_assert_eq!(positions.find(&list, &value).is_some(), list.contains(&value));
                let at = positions.place(&mut list, value);
                prop_assert_eq!(list[at as usize], value);
            }
            let mut different = list.clone();
            different.sort_unstable();
            different.dedup();
            prop_assert_eq!(different.len(), list.len());
        }
    }
}
