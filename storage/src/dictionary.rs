//! Stacks with names. Guarantee: every frame of every requested stack is there, inlined ones included, leaf first; a
//! location without a symbol appears as its address. Stacks and locations never change, so they stay in memory while
//! they are in use; names do arrive later, and are looked up again when some did. The memory is bounded; what an answer
//! needs beyond it is charged to the answer ([`crate::answers`]).

mod naming;
pub(crate) mod sealed;
mod stack_cache;

use std::{collections::HashMap, sync::Arc};

use emberline_model::{
    Frame, Mapping,
    resolve::{FunctionInfo, ResolvedStacks},
};
use parking_lot::Mutex;
use stack_cache::{Answer, Missing, StackCache};

use crate::{
    answers::Holding,
    error::QueryError,
    hot::Shared,
    ids::{IdMap, IdSet},
    questions::{columns::Columns, sql::Sql},
    readers::{Failure, Reader},
    symbols::Symbols,
};

/// Ids looked up per query.
const IDS_PER_QUERY: usize = 8192;

/// Memory for a requested stack during the lookup, not counting its path, in bytes.
const ID_BYTES: usize = 64;
/// How much memory an answer reserves at a time beyond the cache.
const STEP_BYTES: usize = 4 << 20;
/// Memory for a stack read from a file, and for a location likewise, not counting the stack's locations, in bytes.
const READ_BYTES: usize = 48;

/// What a location stands for.
#[derive(Debug)]
enum Place {
    Native { mapping: Arc<Mapping>, offset: u64 },
    Named { functions: Box<[Arc<FunctionInfo>]> },
}

impl Place {
    /// Approximate memory use, in bytes.
    fn bytes(&self) -> usize {
        match self {
            Place::Native { .. } => 64,
            Place::Named { functions } => 64 + functions.iter().map(|f| naming::bytes_of(f)).sum::<usize>(),
        }
    }
}

/// Locations, leaf first.
type Stack = Box<[u64]>;

fn bytes_of_stack(stack: &Stack) -> usize {
    READ_BYTES + 8 * stack.len()
}

/// The cache in front of the dictionary tables and parts.
pub(crate) struct Dictionary {
    cache: Mutex<StackCache>,
    symbols: Arc<Symbols>,
}

impl Dictionary {
    pub(crate) fn new(cache_bytes: usize, symbols: Arc<Symbols>) -> Dictionary {
        Dictionary {
            cache: Mutex::new(StackCache::new(cache_bytes)),
            symbols,
        }
    }

    /// Ages the cache by one step: call it at even intervals.
    pub(crate) fn age(&self) {
        let gone = self.cache.lock().age();
        drop(gone);
    }

    /// Names the frames of stacks. Unknown stacks are left out.
    pub(crate) async fn resolve(&self, shared: &Arc<Shared>, ids: &[u64]) -> Result<Arc<ResolvedStacks>, QueryError> {
        let holding = Holding::current();
        holding.add((ids.len() * ID_BYTES) as u64).await?;
        let mut answer = Answer::default();
        let missing = self.cache.lock().give(&self.symbols, ids, &mut answer);
        if !missing.is_empty() {
            let read = look_for(shared, missing.into_iter().collect(), read_stacks, sealed::find_stacks).await?;
            let mut places: IdMap<Option<Arc<Place>>> = IdMap::default();
            let mut beyond = 0;
            loop {
                let inserted = self
                    .cache
                    .lock()
                    .insert(&self.symbols, &read, &places, &mut answer, beyond);
                match inserted {
                    Ok(()) => break,
                    Err(Missing::Places(unknown)) => {
                        places.extend(unknown.iter().map(|&id| (id, None)));
                        let found = look_for(shared, unknown, read_places, sealed::find_places).await?;
                        places.extend(found.into_iter().map(|(id, place)| (id, Some(place))));
                    }
                    Err(Missing::Room) => {
                        // Each attempt starts over.
                        let more = STEP_BYTES.max(beyond);
                        holding.add(more as u64).await?;
                        beyond += more;
                    }
                }
            }
            let stacks = read.iter().map(|(_, stack)| bytes_of_stack(stack));
            let places = places.values().flatten().map(|place| READ_BYTES + place.bytes());
            holding.give_back((beyond + stacks.sum::<usize>() + places.sum::<usize>()) as u64);
        }
        holding.add(answer.bytes() as u64).await?;
        Ok(Arc::new(answer.into_resolved()))
    }
}

/// Rows found, by identifier.
type Found<T> = Vec<(u64, T)>;

/// Looks entries of the dictionary up in the tables, then in parts.
async fn look_for<T: Send + 'static>(
    shared: &Arc<Shared>,
    ids: Vec<u64>,
    in_tables: fn(&Reader<'_>, &[u64]) -> Result<Found<T>, Failure>,
    in_parts: fn(&Shared, &Reader<'_>, &mut IdSet, &mut Found<T>) -> Result<(), Failure>,
) -> Result<Found<T>, QueryError> {
    let question = {
        let shared = shared.clone();
        move |reader: &Reader<'_>| {
            let mut found = in_tables(reader, &ids)?;
            let mut wanted: IdSet = ids.iter().copied().collect();
            for (id, _) in &found {
                wanted.remove(id);
            }
            in_parts(&shared, reader, &mut wanted, &mut found)?;
            Ok(found)
        }
    };
    shared.readers.ask(question).await
}

/// Looks rows up by id, some thousands at a time. The ids are passed as one text parameter, because the engine cannot
/// bind lists; they are joined by hash, not compared one by one.
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

fn read_stacks(reader: &Reader<'_>, ids: &[u64]) -> Result<Vec<(u64, Stack)>, Failure> {
    let (mut stacks, mut bytes) = (Vec::with_capacity(ids.len()), 0);
    by_ids(
        reader,
        "SELECT stack_id, locations FROM stacks",
        "stack_id",
        ids,
        |columns| {
            let locations = columns.list(1)?;
            for (row, &id) in columns.u64(0)?.iter().enumerate() {
                let stack: Stack = locations.u64(row)?.into();
                bytes += bytes_of_stack(&stack);
                stacks.push((id, stack));
            }
            reader.hold(std::mem::take(&mut bytes))
        },
    )?;
    Ok(stacks)
}

fn read_places(reader: &Reader<'_>, ids: &[u64]) -> Result<Vec<(u64, Arc<Place>)>, Failure> {
    let mut mappings: HashMap<(String, String), Arc<Mapping>> = HashMap::new();
    let (mut places, mut bytes) = (Vec::with_capacity(ids.len()), 0);
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
                        functions: frames.map(|(name, file)| Arc::new(named(name, file))).collect(),
                    }
                }
            };
            bytes += READ_BYTES + place.bytes();
            places.push((id[row], Arc::new(place)));
        }
        reader.hold(std::mem::take(&mut bytes))
    })?;
    Ok(places)
}

fn named(function: String, file: String) -> FunctionInfo {
    // What a sender calls an address is still one, but there is no file to look it up in.
    FunctionInfo {
        unresolved: false,
        ..FunctionInfo::named(Frame {
            function,
            file,
            line: 0,
        })
    }
}
