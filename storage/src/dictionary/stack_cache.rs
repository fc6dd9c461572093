//! Stacks in memory, with their names: a tree of all known paths of locations, and the tree of functions derived from
//! it.
//!
//! Guarantees: an answer gets every requested stack that is cached, whatever is evicted meanwhile, with the names that
//! the symbols give at that moment. The functions of a location are looked up once, and again when new symbols have
//! arrived. Memory stays below the limit, except for what a single answer needs while it is put together: stacks are
//! kept in two generations, of which the less used one is dropped, and above [`KEPT_PART`] of the limit also what
//! nobody asked for in two ages.

use std::sync::Arc;

use emberline_model::{
    path_tree::{PathTree, Translation},
    resolve::{ResolvedStacks, StackTree},
};

use super::{
    Place, Stack,
    naming::{FunctionTable, FunctionsOfLocations, Located, name_locations},
};
use crate::{
    ids::{IdMap, IdSet},
    symbols::Symbols,
};

/// Memory of a node in both trees, allowing for growth of vectors and maps, and of a stack besides its node, in bytes.
const NODE_BYTES: usize = 72;
const STACK_BYTES: usize = 32;
/// Memory of a location besides its place: its number, and the indices of its functions.
const LOCATION_BYTES: usize = 64;

/// One part in this many of the limit is kept even if nobody asks for it.
const KEPT_PART: usize = 32;

/// A tree with an index from parent and step to child.
#[derive(Default)]
struct IndexedTree {
    paths: PathTree,
    /// Parent and step → child, by [`step_key`].
    children: IdMap<u32>,
}

impl IndexedTree {
    fn child(&mut self, parent: u32, step: u32) -> u32 {
        let paths = &mut self.paths;
        let child = self.children.entry(step_key(parent, step));
        *child.or_insert_with(|| paths.push(parent, step))
    }
}

/// A distinct key for each pair, mixed as [`IdMap`] needs it: both operations are invertible.
fn step_key(parent: u32, step: u32) -> u64 {
    let mixed = (u64::from(parent) << 32 | u64::from(step)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 32)
}

/// Stacks of one generation.
#[derive(Default)]
struct Generation {
    /// Paths from the outermost location to the leaf. Steps are numbers of locations.
    stacks: IndexedTree,
    /// Where each stack ends.
    leaves: IdMap<u32>,
    locations: Vec<Located>,
    /// Number of each location.
    numbers: IdMap<u32>,
    place_bytes: usize,
    named: Named,
}

/// The same paths by function, as far as they are named.
#[derive(Default)]
struct Named {
    /// Version of the symbols that gave the names.
    version: u64,
    /// Keyed by description.
    table: FunctionTable,
    of_locations: FunctionsOfLocations,
    /// Steps are indices of functions.
    paths: IndexedTree,
    /// Node by locations → node by functions; a location may have several of these.
    nodes: Vec<u32>,
}

impl Generation {
    fn location(&mut self, id: u64, place: impl FnOnce() -> Option<Arc<Place>>) -> u32 {
        let next = self.locations.len() as u32;
        let number = *self.numbers.entry(id).or_insert(next);
        if number == next {
            let place = place();
            self.place_bytes += place.as_ref().map_or(0, |place| place.bytes());
            self.locations.push(Located { id, place });
        }
        number
    }

    fn place(&self, location: u64) -> Option<&Arc<Place>> {
        let number = *self.numbers.get(&location)?;
        self.locations[number as usize].place.as_ref()
    }

    fn bytes(&self) -> usize {
        self.stacks.paths.len() * NODE_BYTES
            + self.leaves.len() * STACK_BYTES
            + self.locations.len() * LOCATION_BYTES
            + self.place_bytes
            + self.named.table.own_bytes()
    }

    /// Names what has no names yet; everything, if symbols have changed.
    fn name(&mut self, symbols: &Symbols) {
        // Read before the names are looked up: symbols that arrive in between are noticed the next time.
        let version = symbols.version();
        let named = &mut self.named;
        if named.version != version || named.nodes.is_empty() {
            *named = Named {
                version,
                nodes: vec![PathTree::ROOT],
                ..Named::default()
            };
        }
        let unnamed = &self.locations[named.of_locations.len()..];
        name_locations(symbols, unnamed, &mut named.table, &mut named.of_locations);
        // Parents come before their children.
        for (parent, location) in self.stacks.paths.below_root().skip(named.nodes.len() - 1) {
            let outermost_first = named.of_locations.of(location).iter().rev();
            let above = named.nodes[parent as usize];
            let node = outermost_first.fold(above, |node, &function| named.paths.child(node, function));
            named.nodes.push(node);
        }
    }

    /// Adds stacks of this generation to an answer.
    fn give(&mut self, symbols: &Symbols, mut leaves: Vec<(u64, u32)>, answer: &mut Answer) {
        if leaves.is_empty() {
            return;
        }
        self.name(symbols);
        // In memory order, which the paths of the answer get as well.
        leaves.sort_unstable_by_key(|&(_, leaf)| leaf);
        let theirs = &self.named.paths.paths;
        let mut translation = Translation::from(theirs);
        let mut functions: Vec<Option<u32>> = vec![None; self.named.table.functions.len()];
        answer.has_twins = !answer.leaves.is_empty();
        answer.leaves.reserve(leaves.len());
        // Roughly the number of nodes that only one stack has.
        answer.paths.reserve(theirs.len().min(leaves.len() * 16));
        for (id, leaf) in leaves {
            let node = translation.node(theirs, self.named.nodes[leaf as usize], |parent, f| {
                let function = match functions[f as usize] {
                    Some(function) => function,
                    None => {
                        let info = &self.named.table.functions[f as usize];
                        let next = answer.table.functions.len();
                        let function = answer.table.identified(info);
                        // A function with several descriptions may appear several times below the same node.
                        answer.has_twins |= function as usize != next;
                        *functions[f as usize].insert(function)
                    }
                };
                answer.paths.push(parent, function)
            });
            answer.leaves.push((id, node));
        }
    }
}

/// The stacks of one answer.
#[derive(Default)]
pub(super) struct Answer {
    /// Keyed by identifier.
    table: FunctionTable,
    paths: PathTree,
    /// Some function may appear several times below the same node.
    has_twins: bool,
    leaves: Vec<(u64, u32)>,
}

impl Answer {
    /// Approximate memory in bytes; of a function only its table slots, since its names are shared.
    pub(super) fn bytes(&self) -> usize {
        self.paths.len() * 12 + self.table.functions.len() * 48
    }

    pub(super) fn into_resolved(self) -> ResolvedStacks {
        ResolvedStacks {
            functions: self.table.functions,
            stacks: StackTree::new(self.paths, self.has_twins, self.leaves),
        }
    }
}

/// What stacks that were read still lack before they can be inserted.
#[derive(Debug)]
pub(super) enum Missing {
    /// What these locations stand for.
    Places(Vec<u64>),
    /// Memory beyond the limit.
    Room,
}

/// Everything that is cached.
pub(super) struct StackCache {
    young: Generation,
    old: Generation,
    limit: usize,
}

impl StackCache {
    /// `limit` in bytes.
    pub(super) fn new(limit: usize) -> StackCache {
        StackCache {
            young: Generation::default(),
            old: Generation::default(),
            limit,
        }
    }

    /// Adds the cached stacks to an answer; returns the others, each once.
    pub(super) fn give(&mut self, symbols: &Symbols, ids: &[u64], answer: &mut Answer) -> IdSet {
        let mut leaves = Vec::with_capacity(ids.len());
        let (mut in_old, mut missing) = (Vec::new(), IdSet::default());
        for &id in ids {
            if let Some(&leaf) = self.young.leaves.get(&id) {
                leaves.push((id, leaf));
            } else if let Some(&leaf) = self.old.leaves.get(&id) {
                in_old.push((id, leaf));
            } else {
                missing.insert(id);
            }
        }
        // Requested stacks stay young. If they are most of the old generation, swapping is cheaper than copying.
        if in_old.len() > self.old.leaves.len() / 2 {
            std::mem::swap(&mut self.young, &mut self.old);
            std::mem::swap(&mut leaves, &mut in_old);
        }
        self.renew(&in_old, &mut leaves);
        self.young.give(symbols, leaves, answer);
        self.forget();
        missing
    }

    /// Copies stacks of the old generation into the young one.
    fn renew(&mut self, in_old: &[(u64, u32)], leaves: &mut Vec<(u64, u32)>) {
        if in_old.is_empty() {
            return;
        }
        let (young, old) = (&mut self.young, &self.old);
        let mut translation = Translation::from(&old.stacks.paths);
        for &(id, leaf) in in_old {
            let leaf = translation.node(&old.stacks.paths, leaf, |parent, number| {
                let located = &old.locations[number as usize];
                let number = young.location(located.id, || located.place.clone());
                young.stacks.child(parent, number)
            });
            young.leaves.insert(id, leaf);
            leaves.push((id, leaf));
        }
    }

    /// Inserts stacks that were read, each with its locations, leaf first, and adds them to an answer. `places` are
    /// those of the locations looked up, `beyond` the bytes that the answer may use above the limit. If something is
    /// missing, it is returned and the answer has none of these stacks yet; repeating the call is safe.
    pub(super) fn insert(
        &mut self,
        symbols: &Symbols,
        read: &[(u64, Stack)],
        places: &IdMap<Option<Arc<Place>>>,
        answer: &mut Answer,
        beyond: usize,
    ) -> Result<(), Missing> {
        let mut unknown = IdSet::default();
        for &location in read.iter().flat_map(|(_, leaf_first)| leaf_first) {
            if !places.contains_key(&location) && self.place(location).is_none() {
                unknown.insert(location);
            }
        }
        if !unknown.is_empty() {
            return Err(Missing::Places(unknown.into_iter().collect()));
        }
        let mut leaves = Vec::with_capacity(read.len());
        for (id, leaf_first) in read {
            if self.young.bytes() + self.old.bytes() > self.limit.saturating_add(beyond) {
                if self.old.locations.is_empty() {
                    return Err(Missing::Room);
                }
                // The less used generation is dropped first, and with it the places of some locations.
                self.old = Generation::default();
                return self.insert(symbols, read, places, answer, beyond);
            }
            let (mut leaf, mut is_whole) = (PathTree::ROOT, true);
            for &location in leaf_first.iter().rev() {
                let old = &self.old;
                let number = self.young.location(location, || match places.get(&location) {
                    Some(place) => place.clone(),
                    None => old.place(location).cloned(),
                });
                is_whole &= self.young.locations[number as usize].place.is_some();
                leaf = self.young.stacks.child(leaf, number);
            }
            leaves.push((*id, leaf));
            // Only a damaged file lacks what was written together with the stack: looked for again next time.
            if is_whole {
                self.young.leaves.insert(*id, leaf);
            }
        }
        self.young.give(symbols, leaves, answer);
        self.forget();
        Ok(())
    }

    fn place(&self, location: u64) -> Option<&Arc<Place>> {
        self.young.place(location).or_else(|| self.old.place(location))
    }

    /// Ends an age: if there is much, what was not asked for since the last one is dropped. Returns what to drop
    /// outside any lock.
    pub(super) fn age(&mut self) -> impl Sized + use<> {
        let is_much = self.young.bytes() + self.old.bytes() > self.limit / KEPT_PART;
        is_much.then(|| std::mem::replace(&mut self.old, std::mem::take(&mut self.young)))
    }

    fn forget(&mut self) {
        if self.young.bytes() > self.limit / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        if self.young.bytes() + self.old.bytes() > self.limit {
            self.old = Generation::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use emberline_model::{Frame, Mapping};
    use proptest::prelude::*;

    use super::*;
    use crate::disk::MemoryDisk;

    const BUILD: &str = "0123456789abcdef";

    fn symbols() -> Symbols {
        Symbols::new(Path::new("/data"), Arc::new(MemoryDisk::new()), Arc::default())
    }

    fn frame(function: &str) -> Frame {
        Frame {
            function: function.to_owned(),
            ..Frame::default()
        }
    }

    /// Leaf first. Some share their outer half, one has no locations at all; one location has no place.
    fn stack(id: u64) -> Stack {
        (0..id % 7)
            .map(|depth| if depth < 3 { id * 100 + depth } else { depth })
            .collect()
    }

    const WITHOUT_PLACE: u64 = 3_302;

    fn place(location: u64) -> Option<Arc<Place>> {
        let mapping = Mapping {
            build_id: BUILD.to_owned(),
            path: format!("/opt/{}", location % 2),
        };
        let place = Place::Native {
            mapping: Arc::new(mapping),
            offset: location,
        };
        (location != WITHOUT_PLACE).then(|| Arc::new(place))
    }

    /// Names of the frames of each stack.
    type Names = BTreeMap<u64, Vec<String>>;

    fn expected(id: u64) -> Vec<String> {
        let name = |&location: &u64| match location {
            WITHOUT_PLACE => "[unknown location]".to_owned(),
            _ => format!("0x{location:x}"),
        };
        stack(id).iter().map(name).collect()
    }

    /// Asks for stacks as a store does; returns the ones it had to read, and the names of each.
    fn ask(cache: &mut StackCache, symbols: &Symbols, ids: &[u64]) -> (Vec<u64>, Names) {
        let mut answer = Answer::default();
        let missing = Vec::from_iter(cache.give(symbols, ids, &mut answer));
        let read: Vec<(u64, Stack)> = missing.iter().map(|&id| (id, stack(id))).collect();
        let mut places = IdMap::default();
        let mut beyond = 0;
        while let Err(missing) = cache.insert(symbols, &read, &places, &mut answer, beyond) {
            match missing {
                Missing::Places(unknown) => {
                    assert!(unknown.iter().all(|id| !places.contains_key(id)), "asked for twice");
                    places.extend(unknown.into_iter().map(|id| (id, place(id))));
                }
                Missing::Room => beyond += 1_000,
            }
        }
        let resolved = answer.into_resolved();
        let name = |f: u32| resolved.functions[f as usize].name.clone();
        let names = ids.iter().filter(|&&id| resolved.stacks.node(id).is_some());
        let names = names.map(|&id| (id, resolved.frames(id).map(name).collect()));
        (missing, names.collect())
    }

    proptest! {
        /// With a limit that a few answers exhaust.
        #[test]
        fn every_stack_is_whole_whatever_is_forgotten(
            questions in prop::collection::vec(prop::collection::btree_set(1u64..60, 0..30), 1..20),
            limit in 0usize..40_000,
        ) {
            let (symbols, mut cache) = (symbols(), StackCache::new(limit));
            for ids in questions {
                let ids: Vec<u64> = ids.into_iter().collect();
                let (_, names) = ask(&mut cache, &symbols, &ids);
                prop_assert_eq!(names, ids.iter().map(|&id| (id, expected(id))).collect());
                prop_assert!(cache.young.bytes() + cache.old.bytes() <= limit.max(2 * NODE_BYTES));
            }
        }
    }

    #[test]
    fn what_is_asked_for_again_is_not_read_again_and_the_rest_is_forgotten() {
        let (symbols, mut cache) = (symbols(), StackCache::new(40_000));
        let mut read_again = 0;
        for id in 10..1000 {
            let (missing, _) = ask(&mut cache, &symbols, &[5, id]);
            read_again += usize::from(missing.contains(&5));
        }
        assert_eq!(read_again, 1, "used all the time");
        assert_eq!(ask(&mut cache, &symbols, &[10]).0, [10], "not used for long");
        let (missing, _) = ask(&mut cache, &symbols, &[998, 999]);
        assert!(missing.is_empty(), "used just now");
    }

    #[test]
    fn what_is_not_asked_for_during_two_ages_goes_if_there_is_much() {
        let all: Vec<u64> = (1..60).collect();
        let mut cache = StackCache::new(1 << 20);
        ask(&mut cache, &symbols(), &all);
        let held = cache.young.bytes();
        for (limit, goes) in [(33 * held, false), (3 * held, true)] {
            let (symbols, mut cache) = (symbols(), StackCache::new(limit));
            ask(&mut cache, &symbols, &all);
            for _ in 0..2 {
                drop(cache.age());
                assert!(ask(&mut cache, &symbols, &[5, 6]).0.is_empty(), "in use");
            }
            assert_eq!(
                cache.young.bytes() + cache.old.bytes() < held / 2,
                goes,
                "limit {limit}"
            );
            assert_eq!(ask(&mut cache, &symbols, &[20]).0.contains(&20), goes, "limit {limit}");
        }
    }

    #[test]
    fn a_stack_with_an_unknown_location_is_read_again() {
        let (symbols, mut cache) = (symbols(), StackCache::new(1 << 20));
        for _ in 0..2 {
            let (missing, names) = ask(&mut cache, &symbols, &[33, 5]);
            assert!(missing.contains(&33));
            assert_eq!(names[&33], expected(33));
        }
        assert!(ask(&mut cache, &symbols, &[5]).0.is_empty());
    }

    #[test]
    fn names_that_arrive_later_are_told_and_a_function_is_one_whatever_file_it_lies_in() {
        let (symbols, mut cache) = (symbols(), StackCache::new(1 << 20));
        let (_, before) = ask(&mut cache, &symbols, &[3, 4]);
        assert_eq!(before[&3], ["0x12c", "0x12d", "0x12e"]);
        let inlined = vec![frame("inner"), frame("outer")];
        // Two locations in files of different names.
        let located = [(300, inlined), (301, vec![frame("main")]), (302, vec![frame("main")])];
        symbols.put(BUILD, &located).unwrap();
        let (missing, after) = ask(&mut cache, &symbols, &[3, 4]);
        assert!(missing.is_empty());
        assert_eq!(after[&3], ["inner", "outer", "main", "main"]);
        assert_eq!(after[&4], before[&4]);
        let mut answer = Answer::default();
        cache.give(&symbols, &[3], &mut answer);
        let resolved = answer.into_resolved();
        assert_eq!(resolved.functions.len(), 3, "{:?}", resolved.functions);
    }
}
