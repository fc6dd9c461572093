//! Stacks with names. Guarantee: every frame of every stack asked for is there, inlined ones included, leaf first; a
//! location without a symbol appears as its address. Stacks and locations never change, so they are cached by id;
//! names do arrive later, so they are looked up anew each time, once per location. The cache is bounded; an answer larger
//! than it is still whole.

mod sealed;

use std::{collections::HashMap, sync::Arc};

use emberline_model::{
    Frame, Mapping, function,
    resolve::{FunctionInfo, ResolvedStacks, StackFrames},
};
use parking_lot::{Mutex, RwLock};

use crate::{
    error::QueryError,
    hot::Shared,
    ids::{IdMap, IdSet},
    questions::{columns::Columns, sql::Sql},
    readers::{Failure, Reader},
    symbols::{BuildSymbols, Symbols},
};

/// Ids asked for per query.
const IDS_PER_QUERY: usize = 8192;

/// Where a location leads.
#[derive(Debug)]
enum Place {
    Native { mapping: Arc<Mapping>, offset: u64 },
    Named { functions: Vec<FunctionInfo> },
}

/// Maps that forget what was not used lately: what is not asked for while one generation fills is gone with the next.
struct Generations<V> {
    young: IdMap<V>,
    old: IdMap<V>,
    bytes: usize,
    limit: usize,
}

impl<V: Clone> Generations<V> {
    fn new(limit: usize) -> Self {
        Generations {
            young: IdMap::default(),
            old: IdMap::default(),
            bytes: 0,
            limit: limit / 2,
        }
    }

    fn get(&mut self, id: u64, size: impl Fn(&V) -> usize) -> Option<V> {
        if let Some(value) = self.young.get(&id) {
            return Some(value.clone());
        }
        let value = self.old.remove(&id)?;
        self.insert(id, value.clone(), size(&value));
        Some(value)
    }

    fn insert(&mut self, id: u64, value: V, size: usize) {
        if self.bytes + size > self.limit {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += size;
        self.young.insert(id, value);
    }
}

type Stack = Arc<[u64]>;

fn stack_bytes(stack: &Stack) -> usize {
    64 + stack.len() * 8
}

fn place_bytes(place: &Arc<Place>) -> usize {
    match &**place {
        Place::Native { .. } => 96,
        Place::Named { functions } => {
            64 + functions
                .iter()
                .map(|f| 160 + f.name.len() + f.file.len())
                .sum::<usize>()
        }
    }
}

/// The cache in front of the dictionary tables and parts.
pub(crate) struct Dictionary {
    stacks: Mutex<Generations<Stack>>,
    places: Mutex<Generations<Arc<Place>>>,
    symbols: Arc<Symbols>,
}

impl Dictionary {
    pub(crate) fn new(cache_bytes: usize, symbols: Arc<Symbols>) -> Dictionary {
        Dictionary {
            stacks: Mutex::new(Generations::new(cache_bytes / 2)),
            places: Mutex::new(Generations::new(cache_bytes / 2)),
            symbols,
        }
    }

    /// Names the frames of stacks. A stack that is not known is left out.
    pub(crate) async fn resolve(&self, shared: &Arc<Shared>, ids: &[u64]) -> Result<Arc<ResolvedStacks>, QueryError> {
        let mut asked = IdSet::with_capacity_and_hasher(ids.len(), Default::default());
        let once = ids.iter().copied().filter(|&id| asked.insert(id));
        let (mut stacks, missing) = Self::cached(&self.stacks, once, stack_bytes);
        if !missing.is_empty() {
            let found = shared
                .readers
                .ask({
                    let shared = shared.clone();
                    move |reader| {
                        let mut found = read_stacks(reader, &missing)?;
                        let mut wanted = left(&missing, &found);
                        sealed::find_stacks(&shared, reader, &mut wanted, &mut found)?;
                        Ok(found)
                    }
                })
                .await?;
            let mut cache = self.stacks.lock();
            for (id, stack) in found {
                cache.insert(id, stack.clone(), stack_bytes(&stack));
                stacks.push((id, stack));
            }
        }
        let locations = Locations::of(&stacks);
        let (mut places, missing) = Self::cached(&self.places, locations.ids.iter().copied(), place_bytes);
        if !missing.is_empty() {
            let found = shared
                .readers
                .ask({
                    let shared = shared.clone();
                    move |reader| {
                        let mut found = read_places(reader, &missing)?;
                        let mut wanted = left(&missing, &found);
                        sealed::find_places(&shared, reader, &mut wanted, &mut found)?;
                        Ok(found)
                    }
                })
                .await?;
            let mut cache = self.places.lock();
            for (id, place) in found {
                cache.insert(id, place.clone(), place_bytes(&place));
                places.push((id, place));
            }
        }
        Ok(Arc::new(self.assemble(&stacks, &locations, &places)))
    }

    /// What the cache knows of ids, each given once, and the ids it does not know.
    fn cached<V: Clone>(
        cache: &Mutex<Generations<V>>,
        ids: impl Iterator<Item = u64>,
        size: impl Fn(&V) -> usize,
    ) -> (Vec<(u64, V)>, Vec<u64>) {
        let (mut found, mut missing) = (Vec::with_capacity(ids.size_hint().0), Vec::new());
        let mut cache = cache.lock();
        for id in ids {
            match cache.get(id, &size) {
                Some(value) => found.push((id, value)),
                None => missing.push(id),
            }
        }
        (found, missing)
    }

    fn assemble(&self, stacks: &[(u64, Stack)], locations: &Locations, places: &[(u64, Arc<Place>)]) -> ResolvedStacks {
        let mut table = Functions::default();
        let functions = self.functions(locations, places, &mut table);
        let mut frames = StackFrames::with_capacity(stacks.len(), locations.numbers.len());
        let mut begin = 0;
        for (id, stack) in stacks {
            let end = begin + stack.len();
            let numbers = &locations.numbers[begin..end];
            frames.insert(*id, numbers.iter().flat_map(|&number| functions.of(number)).copied());
            begin = end;
        }
        ResolvedStacks {
            functions: table.functions,
            stacks: frames,
        }
    }

    /// Names every location.
    fn functions(
        &self,
        locations: &Locations,
        places: &[(u64, Arc<Place>)],
        table: &mut Functions,
    ) -> FunctionsOfLocations {
        let mut builds: HashMap<&str, Arc<RwLock<BuildSymbols>>> = HashMap::new();
        let mut known: Vec<Option<&Place>> = vec![None; locations.ids.len()];
        for (id, place) in places {
            if let Some(&number) = locations.by_id.get(id) {
                known[number as usize] = Some(place);
            }
        }
        let mut named = FunctionsOfLocations::default();
        for (&id, place) in locations.ids.iter().zip(known) {
            match place {
                Some(Place::Named { functions }) => {
                    let indices = functions.iter().map(|f| table.index(f.id, || f.clone()));
                    named.indices.extend(indices);
                }
                Some(Place::Native { mapping, offset }) => {
                    let symbols = builds
                        .entry(mapping.key())
                        .or_insert_with(|| self.symbols.build(mapping.key()))
                        .read();
                    let before = named.indices.len();
                    match symbols.functions(*offset) {
                        Some(functions) => {
                            named.indices.extend(functions.map(|f| {
                                table.index(f.id, || FunctionInfo {
                                    id: f.id,
                                    name: f.name.clone(),
                                    module: module_of(mapping),
                                    file: f.file.clone(),
                                    unresolved: false,
                                })
                            }));
                            if named.indices.len() == before {
                                let info = FunctionInfo::without_symbol(module_of(mapping));
                                named.indices.push(table.index(info.id, || info));
                            }
                        }
                        None => named.indices.push(table.index(id, || FunctionInfo {
                            id,
                            name: format!("0x{offset:x}"),
                            module: module_of(mapping),
                            file: String::new(),
                            unresolved: true,
                        })),
                    }
                }
                // Written in the same transaction as the stack: only a damaged file can lack it.
                None => named.indices.push(table.index(id, || FunctionInfo {
                    id,
                    name: "[unknown location]".to_owned(),
                    module: String::new(),
                    file: String::new(),
                    unresolved: true,
                })),
            }
            named.ends.push(named.indices.len());
        }
        named
    }
}

/// Locations of an answer by small numbers: hundreds of thousands of frames name a few thousand of them, so each frame
/// is looked up once, and everything else is done once per location.
struct Locations {
    /// Each once, in the order of their numbers.
    ids: Vec<u64>,
    by_id: IdMap<u32>,
    /// One for each frame of one stack after the other.
    numbers: Vec<u32>,
}

impl Locations {
    fn of(stacks: &[(u64, Stack)]) -> Locations {
        let frames = stacks.iter().map(|(_, stack)| stack.len()).sum();
        let mut all = Locations {
            ids: Vec::new(),
            by_id: IdMap::default(),
            numbers: Vec::with_capacity(frames),
        };
        for (_, stack) in stacks {
            for &id in stack.iter() {
                let next = all.ids.len() as u32;
                let number = *all.by_id.entry(id).or_insert(next);
                if number == next {
                    all.ids.push(id);
                }
                all.numbers.push(number);
            }
        }
        all
    }
}

/// Number of a location → indices of its functions, leaf first.
#[derive(Default)]
struct FunctionsOfLocations {
    indices: Vec<u32>,
    /// Where those of each location end.
    ends: Vec<usize>,
}

impl FunctionsOfLocations {
    fn of(&self, number: u32) -> &[u32] {
        let number = number as usize;
        let begin = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.indices[begin..self.ends[number]]
    }
}

/// Functions of an answer, each once.
#[derive(Default)]
struct Functions {
    functions: Vec<FunctionInfo>,
    by_id: IdMap<u32>,
}

impl Functions {
    fn index(&mut self, id: u64, info: impl FnOnce() -> FunctionInfo) -> u32 {
        *self.by_id.entry(id).or_insert_with(|| {
            self.functions.push(info());
            (self.functions.len() - 1) as u32
        })
    }
}

fn module_of(mapping: &Mapping) -> String {
    mapping.path.rsplit('/').next().unwrap_or_default().to_owned()
}

/// Asks for rows by id, some thousands at a time. The ids travel as one text parameter, because the engine binds no
/// lists; they are joined by hash, not compared one by one.
fn by_ids(
    reader: &Reader<'_>,
    select: &str,
    column: &str,
    ids: &[u64],
    mut each: impl FnMut(Columns<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for part in ids.chunks(IDS_PER_QUERY) {
        let list: Vec<String> = part.iter().map(u64::to_string).collect();
        let mut sql = Sql::new(&format!("{select} WHERE {column} IN (SELECT unnest(CAST(string_split("));
        sql.bind(list.join(",")).push(", ',') AS UBIGINT[])))");
        sql.run(reader, &mut each)?;
    }
    Ok(())
}

/// What was asked for and not found.
fn left<V>(asked: &[u64], found: &[(u64, V)]) -> IdSet {
    let mut left: IdSet = asked.iter().copied().collect();
    for (id, _) in found {
        left.remove(id);
    }
    left
}

fn read_stacks(reader: &Reader<'_>, ids: &[u64]) -> Result<Vec<(u64, Stack)>, Failure> {
    let mut stacks = Vec::with_capacity(ids.len());
    by_ids(
        reader,
        "SELECT stack_id, locations FROM stacks",
        "stack_id",
        ids,
        |columns| {
            let locations = columns.list(1)?;
            for (row, &id) in columns.u64(0)?.iter().enumerate() {
                stacks.push((id, locations.u64(row)?.into()));
            }
            Ok(())
        },
    )?;
    Ok(stacks)
}

fn read_places(reader: &Reader<'_>, ids: &[u64]) -> Result<Vec<(u64, Arc<Place>)>, Failure> {
    let mut mappings: HashMap<(String, String), Arc<Mapping>> = HashMap::new();
    let mut places = Vec::with_capacity(ids.len());
    let select = "SELECT location_id, file_offset, m.build_id, m.path, functions, files
        FROM locations LEFT JOIN mappings m USING (mapping_id)";
    by_ids(reader, select, "location_id", ids, |columns| {
        let (id, offset) = (columns.u64(0)?, columns.u64(1)?);
        let (build_id, path) = (columns.text(2)?, columns.text(3)?);
        let (functions, files) = (columns.list(4)?, columns.list(5)?);
        for row in 0..columns.rows() {
            let place = match (build_id.get(row), path.get(row)) {
                (Some(build_id), Some(path)) => {
                    let key = (build_id.to_owned(), path.to_owned());
                    let mapping = mappings.entry(key).or_insert_with_key(|(build_id, path)| {
                        Arc::new(Mapping {
                            build_id: build_id.clone(),
                            path: path.clone(),
                        })
                    });
                    Place::Native {
                        mapping: mapping.clone(),
                        offset: offset[row],
                    }
                }
                _ => {
                    let frames = functions.texts(row)?.into_iter().zip(files.texts(row)?);
                    Place::Named {
                        functions: frames.map(|(name, file)| named(name, file)).collect(),
                    }
                }
            };
            places.push((id[row], Arc::new(place)));
        }
        Ok(())
    })?;
    Ok(places)
}

fn named(name: String, file: String) -> FunctionInfo {
    let frame = Frame {
        function: name,
        file,
        line: 0,
    };
    FunctionInfo {
        id: function::function_id(&frame),
        name: frame.function,
        module: String::new(),
        file: frame.file,
        unresolved: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let mut cache: Generations<u64> = Generations::new(20);
        for id in 0..1000u64 {
            cache.insert(id, id, 1);
            assert_eq!(cache.get(0, |_| 1).unwrap_or_default(), 0);
            assert!(cache.young.len() + cache.old.len() <= 21);
        }
        assert!(cache.get(0, |_| 1).is_some(), "used all the time");
        assert!(cache.get(500, |_| 1).is_none(), "not used for long");
    }
}
