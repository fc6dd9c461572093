//! MOJO, the binary form of Austin's samples (also used by echion).
//!
//! Guarantees: those of [`super::austin`], which receives the samples; a reference to an undefined frame or string is
//! refused with its position. Stacks that repeat part of the previous one (version 4 and later) are reassembled.
//!
//! Wrong on purpose: what coroutines waited for outside the stack (task events) is ignored.

use std::collections::HashMap;

use super::{
    austin::{Metrics, Mode, Samples},
    read_error::{Outcome, ReadError},
    table::{How, MAX_DEPTH},
};

/// First bytes; the version follows.
pub(super) const MAGIC: &[u8] = b"MOJ";

struct Bytes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> Result<u8, ReadError> {
        let byte = self.bytes.get(self.at).copied();
        let byte = byte.ok_or_else(|| ReadError::byte(self.at, "the file ends in the middle of an event"))?;
        self.at += 1;
        Ok(byte)
    }

    /// Six bits and a sign, then seven bits per byte.
    fn int(&mut self) -> Result<i64, ReadError> {
        let start = self.at;
        let first = self.byte()?;
        let mut value = u64::from(first & 0x3f);
        let (mut more, mut shift) = (first & 0x80 != 0, 6);
        while more {
            let byte = self.byte()?;
            if shift > 62 {
                return Err(ReadError::byte(start, "a number has more than 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << shift;
            (more, shift) = (byte & 0x80 != 0, shift + 7);
        }
        let value = i64::try_from(value).map_err(|_| ReadError::byte(start, "a number has more than 63 bits"))?;
        Ok(if first & 0x40 == 0 { value } else { -value })
    }

    fn text(&mut self) -> Result<&'a str, ReadError> {
        let start = self.at;
        let rest = &self.bytes[start..];
        let length = rest.iter().position(|&byte| byte == 0);
        let length = length.ok_or_else(|| ReadError::byte(start, "a string is not terminated"))?;
        self.at += length + 1;
        Ok(std::str::from_utf8(&rest[..length]).unwrap_or("\u{fffd}"))
    }
}

/// The sample being read.
#[derive(Default)]
struct Open<'a> {
    process: i64,
    thread: &'a str,
    /// From the root.
    frames: Vec<u32>,
    metrics: Metrics,
    measured: bool,
    idle: bool,
    /// Frame references that belong to a task, not to the stack.
    of_task: i64,
}

/// Reads a file.
pub(super) fn read(file: &[u8], how: &How<'_>) -> Result<Outcome, ReadError> {
    let mut bytes = Bytes {
        bytes: file,
        at: MAGIC.len(),
    };
    let version = bytes.int()?;
    let mut samples = Samples::new(how);
    let mut strings: HashMap<(i64, i64), &str> = HashMap::new();
    let mut frames: HashMap<(i64, i64), (u32, bool)> = HashMap::new();
    let mut native: Vec<bool> = Vec::new();
    let mut last: HashMap<(i64, &str), Vec<u32>> = HashMap::new();
    let mut open: Option<Open<'_>> = None;
    while bytes.at < file.len() {
        let at = bytes.at;
        let event = bytes.byte()?;
        let outside = || ReadError::byte(at, "an event comes before the first stack");
        match event {
            0 => {}
            1 => {
                let (key, value) = (bytes.text()?, bytes.text()?);
                samples.header(key, value).map_err(|what| ReadError::byte(at, what))?;
            }
            2 => {
                let process = bytes.int()?;
                if version >= 3 {
                    bytes.int()?;
                }
                let thread = bytes.text()?;
                close(&mut samples, open.take(), &mut last)?;
                open = Some(Open {
                    process,
                    thread,
                    ..Open::default()
                });
            }
            3 => {
                let open = open.as_ref().ok_or_else(outside)?;
                let (key, file, scope, line) = (bytes.int()?, bytes.int()?, bytes.int()?, bytes.int()?);
                if version > 1 {
                    // The end line, and columns.
                    for _ in 0..3 {
                        bytes.int()?;
                    }
                }
                let text = |index: i64| match strings.get(&(open.process, index)) {
                    Some(&text) => Ok(text),
                    None if index == 1 => Ok("<unknown>"),
                    None => Err(ReadError::byte(at, format!("string {index} is not defined"))),
                };
                let (file, scope) = (text(file)?, text(scope)?);
                let line = u32::try_from(line).unwrap_or(0);
                let location = samples.table.frame(scope, file, line)?;
                let is_native = !(file.ends_with(".py") || file.starts_with('<') && file.ends_with('>'));
                samples.table.charge(64)?;
                native.resize(native.len().max(location as usize + 1), false);
                native[location as usize] = is_native;
                frames.insert((open.process, key), (location, is_native));
            }
            4 => push(
                open.as_mut().ok_or_else(outside)?,
                samples.table.frame("[invalid]", "", 0)?,
                at,
            )?,
            5 => {
                let key = bytes.int()?;
                let open = open.as_mut().ok_or_else(outside)?;
                let frame = frames.get(&(open.process, key));
                let &(location, _) = frame.ok_or_else(|| ReadError::byte(at, format!("frame {key} is not defined")))?;
                if open.of_task > 0 {
                    open.of_task -= 1;
                } else {
                    push(open, location, at)?;
                }
            }
            6 => {
                let name = bytes.text()?;
                push(
                    open.as_mut().ok_or_else(outside)?,
                    samples.table.frame(name, "[kernel]", 0)?,
                    at,
                )?;
            }
            7 => {}
            8 => open.as_mut().ok_or_else(outside)?.idle = true,
            9 | 10 => {
                let value = bytes.int()?;
                let open = open.as_mut().ok_or_else(outside)?;
                open.measured = true;
                if event == 9 {
                    open.metrics.time_us = value;
                } else {
                    open.metrics.bytes = value;
                }
            }
            11 => {
                let (key, text) = (bytes.int()?, bytes.text()?);
                let open = open.as_ref().ok_or_else(outside)?;
                samples.table.charge(64)?;
                strings.insert((open.process, key), text);
            }
            12 => drop(bytes.int()?),
            13 => {
                let open = open.as_mut().ok_or_else(outside)?;
                let before = last.get(&(open.process, open.thread));
                let mut whole = before.cloned().unwrap_or_default();
                // Native frames above the interpreter's belonged to another call.
                while whole.last().is_some_and(|&top| native[top as usize]) {
                    whole.pop();
                }
                whole.append(&mut open.frames);
                open.frames = whole;
                if open.frames.len() > MAX_DEPTH {
                    return Err(ReadError::byte(at, format!("a stack has more than {MAX_DEPTH} frames")));
                }
            }
            14 => {
                // The task and its name.
                bytes.int()?;
                bytes.int()?;
                open.as_mut().ok_or_else(outside)?.of_task = bytes.int()?.max(0);
            }
            15 => drop((bytes.int()?, bytes.int()?)),
            16 => drop(bytes.int()?),
            other => return Err(ReadError::byte(at, format!("unknown event kind {other}"))),
        }
    }
    close(&mut samples, open.take(), &mut last)?;
    samples.finish(0)
}

fn push(open: &mut Open<'_>, location: u32, at: usize) -> Result<(), ReadError> {
    if open.frames.len() >= MAX_DEPTH {
        return Err(ReadError::byte(at, format!("a stack has more than {MAX_DEPTH} frames")));
    }
    open.frames.push(location);
    Ok(())
}

/// Adds the sample that was read.
fn close<'a>(
    samples: &mut Samples,
    open: Option<Open<'a>>,
    last: &mut HashMap<(i64, &'a str), Vec<u32>>,
) -> Result<(), ReadError> {
    let Some(mut open) = open else { return Ok(()) };
    if !open.measured {
        return Ok(());
    }
    if samples.mode == Mode::Full {
        open.metrics.idle = Some(open.idle);
    }
    if !last.contains_key(&(open.process, open.thread)) {
        samples.table.charge(160)?;
    }
    let leaf_first = open.frames.iter().rev().copied().collect();
    samples.add(leaf_first, open.metrics)?;
    last.insert((open.process, open.thread), open.frames);
    Ok(())
}
