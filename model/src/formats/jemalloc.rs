//! jemalloc's heap profiles (`heap_v2/524288`): text, each stack with what every thread holds of it.
//!
//! Guarantees: every stack counts once (the line `t*`, not those of its threads), scaled up from the samples as
//! jemalloc's own tool does. Allocations since the start are included only if `prof_accum` was on.
//!
//! Wrong on purpose: since 5.3, jemalloc adjusts the numbers it writes so that this scaling is right on average
//! (`prof_unbias`): bytes divided by objects is not the mean size of anything.

use super::{
    code_maps::{CodeMaps, HEADING},
    gperftools::{add_heap, addresses, counts, heap_table, unsampled},
    read_error::{Outcome, ReadError, shown},
    table::How,
};

/// Beginning of the file.
pub(super) const BEGINNING: &str = "heap_v2/";

/// Reads a file.
pub(super) fn read(text: &str, how: &How<'_>) -> Result<Outcome, ReadError> {
    let (head, maps) = text.split_once(HEADING).unwrap_or((text, ""));
    let mut lines = head.lines().enumerate();
    let first = lines.next().map(|(_, line)| line).unwrap_or_default();
    let period = first
        .strip_prefix(BEGINNING)
        .and_then(|period| period.trim().parse::<u64>().ok());
    let period =
        period.ok_or_else(|| ReadError::line(0, format!("`{}` is not `heap_v2/period`", shown(first))))? as f64;
    let mut table = heap_table(how);
    let mut maps = CodeMaps::read(maps);
    let mut open: Option<Vec<u64>> = None;
    for (at, line) in lines {
        let line = line.trim();
        if line.starts_with('@') {
            let stack = addresses(line);
            open = Some(stack.ok_or_else(|| ReadError::line(at, format!("`{}` is not a stack", shown(line))))?);
        } else if let Some(numbers) = line.strip_prefix("t*:") {
            let (in_use, allocated, _) = counts(numbers).ok_or_else(|| {
                ReadError::line(
                    at,
                    format!("`{}` is not `t*: objects: bytes [objects: bytes]`", shown(line)),
                )
            })?;
            // The first line is the sum of all stacks.
            let Some(addresses) = open.take() else { continue };
            let stack = maps.stack(&addresses, &mut table)?;
            add_heap(
                &mut table,
                stack,
                unsampled(in_use, period),
                unsampled(allocated, period),
            )?;
        } else if !line.is_empty() && !line.starts_with('t') {
            return Err(ReadError::line(
                at,
                format!("`{}` is neither a stack nor a count", shown(line)),
            ));
        }
    }
    table.finish(0, 0)
}
