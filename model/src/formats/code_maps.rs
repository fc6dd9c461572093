//! Addresses in a process that has ended, resolved by its memory map (`/proc/PID/maps`), which allocators and profilers
//! in C and C++ append to their files.
//!
//! Guarantees: an address is identified by its file and its offset in it, never by where the process happened to load
//! it; an address outside every file is `[unknown]`. Callers are identified by the call (one byte before the return
//! address).

use std::collections::HashMap;

use super::{read_error::ReadError, table::Table};

/// The line before the list.
pub(super) const HEADING: &str = "MAPPED_LIBRARIES:";

struct Piece<'t> {
    start: u64,
    end: u64,
    offset: u64,
    path: &'t str,
}

/// What is mapped at which addresses.
pub(super) struct CodeMaps<'t> {
    /// By start; mappings do not overlap.
    pieces: Vec<Piece<'t>>,
    known: HashMap<u64, u32>,
}

impl<'t> CodeMaps<'t> {
    /// Reads the lines of the list; other lines, and mappings that are not code of a file, are skipped.
    pub(super) fn read(text: &'t str) -> CodeMaps<'t> {
        let mut pieces: Vec<Piece<'t>> = text.lines().filter_map(piece).collect();
        pieces.sort_by_key(|piece| piece.start);
        CodeMaps {
            pieces,
            known: HashMap::new(),
        }
    }

    /// The locations of a stack of addresses, leaf first.
    pub(super) fn stack(&mut self, addresses: &[u64], table: &mut Table) -> Result<Vec<u32>, ReadError> {
        let mut stack = Vec::with_capacity(addresses.len().min(super::table::MAX_DEPTH));
        for (at, &address) in addresses.iter().enumerate() {
            // For the leaf, the address itself was sampled.
            let address = if at == 0 { address } else { address.saturating_sub(1) };
            stack.push(self.location(address, table)?);
        }
        Ok(stack)
    }

    fn location(&mut self, address: u64, table: &mut Table) -> Result<u32, ReadError> {
        if let Some(&known) = self.known.get(&address) {
            return Ok(known);
        }
        let after = self.pieces.partition_point(|piece| piece.start <= address);
        let piece = self.pieces[..after].last().filter(|piece| address < piece.end);
        let location = match piece {
            Some(piece) => {
                let offset = (address - piece.start).saturating_add(piece.offset);
                table.frame(&format!("{offset:#x}"), piece.path, 0)?
            }
            None => table.frame("[unknown]", "", 0)?,
        };
        table.charge(32)?;
        self.known.insert(address, location);
        Ok(location)
    }
}

/// A number after `0x`, or of sixteen digits.
pub(super) fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// `start-end rights offset device inode path`.
fn piece(line: &str) -> Option<Piece<'_>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let rights = words.next()?;
    let offset = number(words.next()?)?;
    let path = words.nth(2)?;
    let path = &line[line.find(path)?..];
    let piece = Piece {
        start: number(start)?,
        end: number(end)?,
        offset,
        path: path.trim_end(),
    };
    (rights.as_bytes().get(2) == Some(&b'x') && piece.start < piece.end).then_some(piece)
}
