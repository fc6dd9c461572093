//! Files from Python's `cProfile` and `profile` (`pstats`, written with `marshal`): seconds per function and caller.
//!
//! Guarantees: the sum is that of the functions' self times, as `pstats` prints it ("in N seconds"); a function's time
//! under one caller is what the file says about that pair, and only the remainder has no caller.
//!
//! Wrong on purpose: time is taken as wall time, which it is unless the program gave the profiler another clock
//! (`kind=cpu`). There are no stacks, see [`super::edges`].

use std::collections::HashMap;

use super::{
    edges::ONE_LEVEL,
    marshal::{Reader, Value},
    read_error::{Outcome, ReadError},
    table::{Column, How, Table, wall},
};
use crate::profile::ProfileType;

/// True for a marshalled dictionary whose first key is a tuple of three.
pub(super) fn begins(file: &[u8]) -> bool {
    let plain = |byte: Option<&u8>| byte.map(|byte| byte & 0x7f);
    plain(file.first()) == Some(b'{')
        && match plain(file.get(1)) {
            Some(b')') => file.get(2) == Some(&3),
            Some(b'(') => file.get(2..6) == Some(&[3, 0, 0, 0]),
            _ => false,
        }
}

/// File, line and name. Files refer to repeated tuples by reference: the same address in memory is the same function.
fn function(
    value: &Value<'_>,
    at: usize,
    known: &mut HashMap<usize, u32>,
    table: &mut Table,
) -> Result<u32, ReadError> {
    let wrong = || ReadError::byte(at, "a function key is not (file, line, name)");
    let Value::Tuple(parts) = value else {
        return Err(wrong());
    };
    let place = parts.as_ptr() as usize;
    if let Some(&known) = known.get(&place) {
        return Ok(known);
    }
    let [Value::Text(file), Value::Int(line), Value::Text(name)] = &parts[..] else {
        return Err(wrong());
    };
    // Interpreter functions have the file `~`.
    let file = if file == "~" { "" } else { file };
    let location = table.frame(name, file, u32::try_from(*line).unwrap_or(0))?;
    table.charge(32)?;
    known.insert(place, location);
    Ok(location)
}

fn nanoseconds(value: Option<&Value<'_>>) -> Option<i64> {
    let seconds = match value? {
        Value::Float(seconds) => *seconds,
        Value::Int(seconds) => *seconds as f64,
        _ => return None,
    };
    (seconds.abs() < 9e9).then(|| (seconds * 1e9).round() as i64)
}

/// Reads a file.
pub(super) fn read(file: &[u8], how: &How<'_>) -> Result<Outcome, ReadError> {
    let profile_type = if how.says_cpu() { ProfileType::cpu() } else { wall() };
    let mut table = Table::new(vec![Column::new(profile_type, 0)], how.memory);
    let mut reader = Reader::new(file, how.memory);
    let Value::Dict(functions) = reader.value()? else {
        return Err(ReadError::byte(0, "the dictionary of functions is missing"));
    };
    let at = reader.at();
    let root = table.frame(ONE_LEVEL, "", 0)?;
    let mut known = HashMap::new();
    for (key, value) in functions.iter() {
        let called = function(key, at, &mut known, &mut table)?;
        let wrong = || {
            ReadError::byte(
                at,
                "a function's value is not (calls, calls, own seconds, total seconds, callers)",
            )
        };
        let Value::Tuple(numbers) = value else {
            return Err(wrong());
        };
        let own = nanoseconds(numbers.get(2)).ok_or_else(wrong)?.max(0);
        let Some(Value::Dict(callers)) = numbers.get(4) else {
            return Err(wrong());
        };
        let mut left = own;
        let calls = |value: &Value<'_>| match value {
            Value::Int(calls) => Some(*calls),
            _ => None,
        };
        // The slower profiler (`profile`) writes how often a caller called, without times.
        let all_calls: i64 = callers.iter().filter_map(|(_, value)| calls(value)).sum::<i64>().max(1);
        for (key, value) in callers.iter() {
            let caller = function(key, at, &mut known, &mut table)?;
            let spent = match value {
                Value::Tuple(numbers) => nanoseconds(numbers.get(2)).ok_or_else(wrong)?,
                Value::Int(calls) => (own as f64 * (*calls as f64 / all_calls as f64)) as i64,
                _ => return Err(wrong()),
            };
            let spent = spent.clamp(0, left);
            left -= spent;
            let row = table.row(vec![called, caller, root])?;
            table.add(row, 0, spent, u64::from(spent > 0))?;
        }
        if left > 0 {
            let row = table.row(vec![called, root])?;
            table.add(row, 0, left, 1)?;
        }
    }
    table.finish(0, 0)
}
