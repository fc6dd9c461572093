//! Stacks and locations of sealed hours, from dictionary parts, newest first. A damaged part is set aside, and what
//! only it knew stays unknown.

use std::{io, sync::Arc};

use emberline_model::Location;

use super::{Place, READ_BYTES, Stack, bytes_of_stack, named};
use crate::{
    checks::Salted,
    error::QueryError,
    hot::Shared,
    ids::IdSet,
    parts::{
        Kind, Part, PartSet,
        dictionary::{self, Names},
    },
    readers::{Failure, Reader},
};

/// Reads the parts of a kind until nothing is wanted any more; `each` returns how many bytes it took out.
fn each_part(
    shared: &Shared,
    reader: &Reader<'_>,
    kind: Kind,
    wanted: &mut IdSet,
    mut each: impl FnMut(&PartSet, &Part, &[u8], &mut IdSet) -> io::Result<usize>,
) -> Result<(), Failure> {
    // One snapshot for all: a part must not be replaced between its stacks and its names.
    let parts = shared.parts();
    for part in parts.iter().rev().filter(|part| part.name.kind == kind) {
        if wanted.is_empty() {
            break;
        }
        reader.check()?;
        let intact = match part.read() {
            Ok(Some(bytes)) => match each(&parts, part, &bytes, wanted) {
                Ok(taken) => {
                    reader.hold(taken)?;
                    true
                }
                Err(_) => false,
            },
            Ok(None) => false,
            Err(error) => {
                return Err(QueryError::Unavailable {
                    message: format!("{}: {error}", part.path.display()),
                }
                .into());
            }
        };
        if !intact {
            shared.set_aside(std::slice::from_ref(part));
        }
    }
    Ok(())
}

/// Finds stacks, and removes them from `wanted`.
pub(super) fn find_stacks(
    shared: &Shared,
    reader: &Reader<'_>,
    wanted: &mut IdSet,
    found: &mut Vec<(u64, Stack)>,
) -> Result<(), Failure> {
    each_part(shared, reader, Kind::Stacks, wanted, |parts, part, bytes, wanted| {
        let Some((locations, salted)) = dictionary::location_ids(&shared.checks, parts, part) else {
            // Stacks without their names are useless, but this file is not damaged.
            return Ok(0);
        };
        let mut taken = 0;
        dictionary::find_stacks(bytes, &locations, &salted, wanted, |id, stack| {
            let stack: Stack = stack.into();
            taken += bytes_of_stack(&stack);
            found.push((id, stack));
        })?;
        Ok(taken)
    })
}

/// Finds locations, and removes them from `wanted`.
pub(super) fn find_places(
    shared: &Shared,
    reader: &Reader<'_>,
    wanted: &mut IdSet,
    found: &mut Vec<(u64, Arc<Place>)>,
) -> Result<(), Failure> {
    each_part(shared, reader, Kind::Names, wanted, |_, _, bytes, wanted| {
        let names: Names = dictionary::read_names(bytes)?;
        let salted = Salted::new(&shared.checks, &names.salted);
        let mut taken = 0;
        dictionary::each_location(bytes, &names, &salted, |entry| {
            if !wanted.remove(&entry.id) {
                return;
            }
            let place = match (entry.location, entry.mapping) {
                (Location::Native { offset, .. }, Some(mapping)) => Place::Native {
                    mapping: mapping.clone(),
                    offset: *offset,
                },
                (Location::Native { .. }, None) => return,
                (Location::Named { frames }, _) => Place::Named {
                    functions: frames
                        .iter()
                        .map(|f| Arc::new(named(f.function.clone(), f.file.clone())))
                        .collect(),
                },
            };
            taken += READ_BYTES + place.bytes();
            found.push((entry.id, Arc::new(place)));
        })?;
        Ok(taken)
    })
}
