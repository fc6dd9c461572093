//! The layouts of OTLP profiles: three generations share one package name and one address.
//!
//! Guarantees: a request is read in the layout it was written in, recognised by the wire types of its fields and never
//! by trial; one whose fields contradict each other, or whose version has no dictionary, is refused by name. Old
//! requests are converted to the current layout, so that no other code has to know them. No step needs more memory than
//! a constant factor of the request, and no nesting is followed beyond the levels of the layout.
//!
//! Wrong on purpose: 1.8 and 1.9 with timestamps, if every value is also a valid attribute index, cannot be
//! distinguished from 1.10; such a request is read as the newer one. Packed numbers are assumed, as written by every
//! proto3 writer.
//!
//! Source: the profiles messages of opentelemetry-proto 1.5, 1.7, 1.8, 1.9, 1.10 and 1.11.
//!
//! | | Sample 2 | Sample 3 | Sample 4 | Profile 3 |
//! |---|---|---|---|---|
//! | up to 1.7 | varint | values | attribute indices | tables or indices |
//! | 1.8, 1.9 | values | attribute indices | varint | fixed64 |
//! | from 1.10 | attribute indices | varint | values | fixed64 |

use std::ops::Range;

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use prost::Message;

use super::{DecodeError, first_generation};

/// Reads a profiles request of any generation.
///
/// # Errors
/// When it is not such a request, or of an unknown version.
pub fn read_profiles(bytes: &[u8]) -> Result<ExportProfilesServiceRequest, DecodeError> {
    read_profiles_counting(bytes).map(|(request, _)| request)
}

/// Like [`read_profiles`]; also returns in how many strings of the dictionary invalid UTF-8 was replaced.
///
/// # Errors
/// As [`read_profiles`].
pub fn read_profiles_counting(bytes: &[u8]) -> Result<(ExportProfilesServiceRequest, u64), DecodeError> {
    /// `dictionary.string_table`, in every version that has one.
    const STRINGS: [u64; 2] = [2, 5];
    match read_text(bytes) {
        Ok(request) => Ok((request, 0)),
        Err(error) => {
            let (written, replaced) = crate::lossy::repaired(bytes, &STRINGS).ok_or(error)?;
            Ok((read_text(&written)?, replaced))
        }
    }
}

fn read_text(bytes: &[u8]) -> Result<ExportProfilesServiceRequest, DecodeError> {
    match generation_of(bytes)? {
        Generation::First => first_generation::read(bytes),
        Generation::Second { numbers_of_1_8 } => {
            let renumbered = renumber(bytes, numbers_of_1_8)?;
            Ok(ExportProfilesServiceRequest::decode(renumbered.as_slice())?)
        }
        Generation::Third => Ok(ExportProfilesServiceRequest::decode(bytes)?),
    }
}

/// Layouts of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Generation {
    /// Up to 1.7.
    First,
    /// 1.8 and 1.9.
    Second {
        /// The profile's own fields are those of 1.8, numbered one higher.
        numbers_of_1_8: bool,
    },
    /// From 1.10.
    Third,
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

/// One field as encoded.
struct Field {
    tag_at: usize,
    tag_length: usize,
    number: u64,
    wire: u8,
    content: Range<usize>,
}

fn torn(what: &'static str) -> DecodeError {
    DecodeError::Wire(what)
}

fn varint(bytes: &[u8], at: &mut usize, end: usize) -> Result<u64, DecodeError> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let byte = *bytes[..end].get(*at).ok_or_else(|| torn("a number is truncated"))?;
        *at += 1;
        if shift < 64 {
            value |= u64::from(byte & 0x7f) << shift;
        }
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(torn("a number is longer than ten bytes"))
}

/// Calls `each` for all fields of a message.
fn for_fields(
    bytes: &[u8],
    message: Range<usize>,
    each: &mut dyn FnMut(Field) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let (mut at, end) = (message.start, message.end);
    while at < end {
        let tag_at = at;
        let tag = varint(bytes, &mut at, end)?;
        let tag_length = at - tag_at;
        let wire = (tag & 7) as u8;
        let length = match wire {
            VARINT => {
                let start = at;
                varint(bytes, &mut at, end)?;
                let length = at - start;
                at = start;
                length
            }
            FIXED64 => 8,
            FIXED32 => 4,
            BYTES => usize::try_from(varint(bytes, &mut at, end)?).map_err(|_| torn("a length is out of range"))?,
            _ => return Err(torn("a group field, which no version of the format uses")),
        };
        if length > end - at {
            return Err(torn("a field is longer than its message"));
        }
        let content = at..at + length;
        at = content.end;
        each(Field {
            tag_at,
            tag_length,
            number: tag >> 3,
            wire,
            content,
        })?;
    }
    Ok(())
}

/// Calls `each` for all profiles of a request.
fn for_profiles(
    bytes: &[u8],
    each: &mut dyn FnMut(Range<usize>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    for_messages(bytes, 0..bytes.len(), 1, &mut |resource| {
        for_messages(bytes, resource, 2, &mut |scope| for_messages(bytes, scope, 2, each))
    })
}

pub(super) fn for_messages(
    bytes: &[u8],
    message: Range<usize>,
    number: u64,
    each: &mut dyn FnMut(Range<usize>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    for_fields(
        bytes,
        message,
        &mut |field| match (field.number == number, field.wire) {
            (true, BYTES) => each(field.content),
            _ => Ok(()),
        },
    )
}

/// Evidence from the fields of all samples.
#[derive(Default)]
struct Evidence {
    /// The profile that contains the samples has the first layout, which settles it.
    first_profile: bool,
    first: bool,
    second: bool,
    third: bool,
    /// Field 2 as numbers if nothing else decides: without timestamps it must be values.
    undecided: Vec<Undecided>,
    numbers_of_1_8: bool,
}

struct Undecided {
    numbers: usize,
    largest: u64,
    timestamps: usize,
}

/// The most undecided samples examined: they all come from one writer.
const MAX_UNDECIDED: usize = 10_000;

fn generation_of(bytes: &[u8]) -> Result<Generation, DecodeError> {
    let mut evidence = Evidence::default();
    for_profiles(bytes, &mut |profile| {
        for_fields(bytes, profile, &mut |field| {
            match (field.number, field.wire) {
                (2, BYTES) => judge_sample(bytes, field.content, &mut evidence)?,
                // The start of a profile is a fixed64 since 1.8.
                (3, BYTES) | (4, BYTES) | (11, VARINT) => evidence.first_profile = true,
                (12, BYTES) => evidence.numbers_of_1_8 = true,
                _ => {}
            }
            Ok(())
        })
    })?;
    if evidence.first_profile {
        return Ok(Generation::First);
    }
    let attributes = attribute_count(bytes)?;
    for sample in std::mem::take(&mut evidence.undecided) {
        if sample.timestamps == 0 || sample.largest >= attributes as u64 {
            evidence.second = true;
        } else if sample.numbers != sample.timestamps {
            evidence.third = true;
        }
    }
    match (evidence.first, evidence.second, evidence.third) {
        (true, _, false) => Ok(Generation::First),
        (false, true, false) => Ok(Generation::Second {
            numbers_of_1_8: evidence.numbers_of_1_8,
        }),
        (false, false, _) => Ok(Generation::Third),
        _ => Err(DecodeError::MixedLayouts),
    }
}

fn judge_sample(bytes: &[u8], sample: Range<usize>, evidence: &mut Evidence) -> Result<(), DecodeError> {
    // Wire types of fields 2 to 4, and what decides an undecided one.
    let mut wires = [None; 3];
    let (mut second, mut timestamps) = (0..0, 0..0);
    for_fields(bytes, sample, &mut |field| {
        match (field.number, field.wire) {
            (number @ 2..=4, wire) => {
                wires[number as usize - 2] = Some(wire);
                if number == 2 {
                    second = field.content;
                }
            }
            (5, BYTES) => timestamps = field.content,
            _ => {}
        }
        Ok(())
    })?;
    match wires {
        [Some(VARINT), _, _] | [_, Some(BYTES), Some(BYTES)] => evidence.first = true,
        [_, Some(VARINT), _] | [_, _, Some(BYTES)] => evidence.third = true,
        [_, Some(BYTES), _] | [_, _, Some(VARINT)] => evidence.second = true,
        [Some(BYTES), None, None] if evidence.undecided.len() < MAX_UNDECIDED => {
            let (mut at, mut numbers, mut largest) = (second.start, 0, 0);
            while at < second.end {
                largest = largest.max(varint(bytes, &mut at, second.end)?);
                numbers += 1;
            }
            evidence.undecided.push(Undecided {
                numbers,
                largest,
                timestamps: timestamps.len() / 8,
            });
        }
        _ => {}
    }
    Ok(())
}

/// Entries of the attribute table.
fn attribute_count(bytes: &[u8]) -> Result<usize, DecodeError> {
    let mut count = 0;
    for_messages(bytes, 0..bytes.len(), 2, &mut |dictionary| {
        for_messages(bytes, dictionary, 6, &mut |_| {
            count += 1;
            Ok(())
        })
    })?;
    Ok(count)
}

/// Renumbers the fields of layouts 1.8 and 1.9 to those of 1.10, in place: all numbers are one byte long.
fn renumber(bytes: &[u8], numbers_of_1_8: bool) -> Result<Vec<u8>, DecodeError> {
    let mut renumbered = bytes.to_vec();
    for_profiles(bytes, &mut |profile| {
        for_fields(bytes, profile, &mut |field| {
            if field.number == 2 && field.wire == BYTES {
                return for_fields(bytes, field.content, &mut |field| {
                    let number = match field.number {
                        2 => 4,
                        3 => 2,
                        4 => 3,
                        _ => return Ok(()),
                    };
                    set_number(&mut renumbered, &field, number)
                });
            }
            match field.number {
                // The comments of 1.8; 15 has no meaning.
                7 if numbers_of_1_8 => set_number(&mut renumbered, &field, 15),
                number @ 8..=12 if numbers_of_1_8 => set_number(&mut renumbered, &field, number as u8 - 1),
                _ => Ok(()),
            }
        })
    })?;
    Ok(renumbered)
}

fn set_number(bytes: &mut [u8], field: &Field, number: u8) -> Result<(), DecodeError> {
    if field.tag_length != 1 {
        return Err(torn("a field number is written with more bytes than it needs"));
    }
    bytes[field.tag_at] = number << 3 | field.wire;
    Ok(())
}
