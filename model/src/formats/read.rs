//! Detects the format of bytes, and reads them.
//!
//! Guarantees: decompression never exceeds the limit; if a format is named, only that one is tried, and an error says
//! which format was tried and, for text, which line. What is recognised ([`recognise`]) is reported by name.

use super::{
    DEFAULT_RATE_HZ, Units, austin, bpftrace, callgrind, chrome_trace,
    folded::{self, FoldedError},
    format::Format,
    gperftools, jemalloc, jfr, mojo,
    perf_script::{self, PerfScriptError},
    pstats,
    read_error::{Outcome, ReadError},
    recognise::{Recognised, recognise},
    speedscope::{self, SpeedscopeError},
    table::How,
    v8_cpu, v8_heap,
};
use crate::{
    otlp::Rejected,
    pprof::{self, Addresses, PprofError},
    profile::Profile,
    unpack::{UnpackError, unpack},
    weight::{TooHeavy, memory_of, weigh_json, weigh_text},
};

/// How to interpret unitless numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading<'a> {
    /// The format; detected by default.
    pub format: Option<Format>,
    /// A kind for [`Units::of_kind`]; default: CPU samples.
    pub kind: Option<&'a str>,
    /// Samples per second; default 100.
    pub rate_hz: Option<u32>,
    /// What the addresses of a pprof file are.
    pub addresses: Addresses,
    /// Maximum size after decompression, in bytes.
    pub limit: usize,
}

/// What was read.
#[derive(Debug, Clone)]
pub struct ReadProfiles {
    /// The format it was in.
    pub format: Format,
    /// One per type.
    pub profiles: Vec<Profile>,
    /// The file's default profile; the first one for formats that do not say.
    pub default_profile: usize,
    /// What was dropped, in samples.
    pub left_out: Vec<Rejected>,
    /// What was changed.
    pub changed: Vec<Rejected>,
    /// Size after decompression.
    pub unpacked_bytes: usize,
}

/// Why bytes could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Larger than the limit, or damaged compression.
    #[error("{0}")]
    Packed(#[from] UnpackError),
    /// It expands to too much data.
    #[error("{0}")]
    TooHeavy(#[from] TooHeavy),
    /// An unknown kind of measurement.
    #[error(
        "unknown kind `{0}`: use cpu, wall, cpu_nanoseconds, wall_nanoseconds, inuse_space, inuse_objects, \
         alloc_space, alloc_objects, goroutines, mutex_count, mutex_duration, block_count or block_duration"
    )]
    Kind(String),
    /// A recognised but unsupported format.
    #[error("this is {what}, which is not supported: {instead}")]
    NotRead {
        /// What it is.
        what: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// A format was named, but the bytes are in another.
    #[error("{error}; the bytes look like {what}: {instead}")]
    Misnamed {
        /// The error from reading them as the named format.
        error: Box<FormatError>,
        /// What they look like.
        what: &'static str,
        /// What to do.
        instead: String,
    },
    /// Not the text it should be.
    #[error("{0} must be UTF-8 text: {1}")]
    NotText(&'static str, std::str::Utf8Error),
    /// Not pprof.
    #[error("invalid pprof: {0}")]
    Pprof(#[from] PprofError),
    /// Not collapsed stacks.
    #[error("invalid folded stacks: {0}")]
    Folded(#[from] FoldedError),
    /// Not output of `perf script`.
    #[error("invalid perf script output: {0}")]
    PerfScript(#[from] PerfScriptError),
    /// Not a speedscope file.
    #[error("invalid speedscope file: {0}")]
    Speedscope(#[from] SpeedscopeError),
    /// Recognised, but invalid.
    #[error("invalid as {0}: {1}")]
    Broken(&'static str, ReadError),
}

/// Reads bytes, optionally gzip- or zstd-compressed.
pub fn read(bytes: &[u8], how: &Reading<'_>) -> Result<ReadProfiles, FormatError> {
    let unpacked = unpack(bytes, how.limit)?;
    let bytes = unpacked.as_deref().unwrap_or(bytes);
    if bytes.len() > how.limit {
        return Err(UnpackError::TooLarge { limit: how.limit }.into());
    }
    let Some(named) = how.format else {
        return read_in(detect(bytes)?, bytes, how);
    };
    read_in(named, bytes, how).map_err(|error| match recognise(bytes) {
        _ if matches!(
            error,
            FormatError::TooHeavy(_) | FormatError::Packed(_) | FormatError::Kind(_)
        ) =>
        {
            error
        }
        Some(Recognised::Read(format)) if format != named => FormatError::Misnamed {
            error: Box::new(error),
            what: format.described(),
            instead: format!("set `format={}`", format.name()),
        },
        Some(Recognised::NotRead(known)) => FormatError::Misnamed {
            error: Box::new(error),
            what: known.what,
            instead: known.instead.to_owned(),
        },
        _ => error,
    })
}

/// Detects the format by the first bytes and lines of decompressed data.
fn detect(unpacked: &[u8]) -> Result<Format, FormatError> {
    match recognise(unpacked) {
        Some(Recognised::Read(format)) => return Ok(format),
        Some(Recognised::NotRead(known)) => {
            return Err(FormatError::NotRead {
                what: known.what,
                instead: known.instead,
            });
        }
        None => {}
    }
    let Ok(text) = std::str::from_utf8(unpacked) else {
        return Ok(Format::Pprof);
    };
    Ok(if perf_script::looks_like(text) {
        Format::PerfScript
    } else if text.bytes().any(|byte| byte < 9) {
        // A small pprof file may happen to be UTF-8; text contains no such bytes.
        Format::Pprof
    } else {
        Format::Folded
    })
}

/// Reads decompressed bytes in a format.
fn read_in(format: Format, bytes: &[u8], reading: &Reading<'_>) -> Result<ReadProfiles, FormatError> {
    let rate = reading.rate_hz.filter(|&rate| rate > 0);
    let kind = reading.kind.unwrap_or("cpu");
    let units = || {
        Units::of_kind(kind, rate.unwrap_or(DEFAULT_RATE_HZ))
            .ok_or_else(|| FormatError::Kind(kind.chars().take(40).collect()))
    };
    let most_memory = memory_of(reading.limit as u64);
    match format {
        // These account for the memory they keep themselves.
        Format::Pprof
        | Format::Folded
        | Format::Lines
        | Format::Jfr
        | Format::Mojo
        | Format::HeapProfile
        | Format::GperftoolsCpu
        | Format::Pstats => 0,
        Format::Speedscope | Format::CpuProfile | Format::ChromeTrace => weigh_json(bytes, most_memory)?,
        Format::Bpftrace if bytes.trim_ascii_start().starts_with(b"{") => weigh_json(bytes, most_memory)?,
        Format::PerfScript
        | Format::Austin
        | Format::GperftoolsHeap
        | Format::Jemalloc
        | Format::Bpftrace
        | Format::Callgrind => weigh_text(bytes, most_memory)?,
    };
    let text = || std::str::from_utf8(bytes).map_err(|error| FormatError::NotText(format.name(), error));
    let how = How {
        kind: reading.kind,
        rate_hz: rate,
        memory: most_memory,
    };
    let or_broken = |read: Result<Outcome, ReadError>| match read {
        Err(ReadError::TooHeavy(heavy)) => Err(FormatError::TooHeavy(heavy)),
        other => other.map_err(|error| FormatError::Broken(format.described(), error)),
    };
    let plain = |profiles| Outcome {
        profiles,
        ..Outcome::default()
    };
    let mut default_profile = 0;
    let outcome = match format {
        Format::Pprof => {
            let file = pprof::read_file(bytes, reading.limit as u64, reading.addresses)?;
            default_profile = file.default_value;
            Outcome {
                profiles: file.values.into_iter().map(|value| value.profile).collect(),
                left_out: file.left_out,
                changed: file.changed,
            }
        }
        Format::Folded => plain(vec![folded::read(text()?, &units()?, true, most_memory)?]),
        Format::Lines => plain(vec![folded::read(text()?, &units()?, false, most_memory)?]),
        Format::Speedscope => {
            let asked = reading.kind.map(|_| units()).transpose()?;
            let file = speedscope::read(bytes, asked.as_ref(), rate.unwrap_or(DEFAULT_RATE_HZ))?;
            Outcome {
                profiles: file.profiles,
                changed: file.changed,
                ..Outcome::default()
            }
        }
        Format::PerfScript => {
            let script = perf_script::read(text()?, rate)?;
            Outcome {
                profiles: script.profiles,
                left_out: script.left_out,
                changed: script.changed,
            }
        }
        Format::Jfr => or_broken(jfr::read(bytes, &how))?,
        Format::CpuProfile => or_broken(v8_cpu::read(bytes, &how))?,
        Format::HeapProfile => or_broken(v8_heap::read(bytes, &how))?,
        Format::ChromeTrace => or_broken(chrome_trace::read(bytes, &how))?,
        Format::Austin => or_broken(austin::read(text()?, &how))?,
        Format::Mojo => or_broken(mojo::read(bytes, &how))?,
        Format::GperftoolsCpu => or_broken(gperftools::read_cpu(bytes, &how))?,
        Format::GperftoolsHeap => or_broken(gperftools::read_heap(text()?, &how))?,
        Format::Jemalloc => or_broken(jemalloc::read(text()?, &how))?,
        Format::Bpftrace => or_broken(bpftrace::read(text()?, &how))?,
        Format::Callgrind => or_broken(callgrind::read(text()?, &how))?,
        Format::Pstats => or_broken(pstats::read(bytes, &how))?,
    };
    Ok(ReadProfiles {
        format,
        profiles: outcome.profiles,
        default_profile,
        left_out: outcome.left_out,
        changed: outcome.changed,
        unpacked_bytes: bytes.len(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn found(bytes: &[u8]) -> Format {
        let reading = Reading {
            limit: 1 << 20,
            ..Reading::default()
        };
        read(bytes, &reading).unwrap().format
    }

    #[test]
    fn formats_are_told_apart_packed_or_not() {
        let pprof = pprof::write(
            &pprof::PprofMeta {
                profile_type: crate::ProfileType::cpu(),
                time_ns: 1,
                duration_ns: 1,
                period: 1,
            },
            &crate::resolve::ResolvedStacks::default(),
            &[(1, [5, 0])],
            false,
        );
        assert_eq!(found(&pprof), Format::Pprof);
        for (text, format) in [
            ("main;a 3\n", Format::Folded),
            ("a 1 2.0: 5 cpu-clock: \n\tff f+0x1 (x)\n", Format::PerfScript),
            (r#"{"shared":{"frames":[]},"profiles":[]}"#, Format::Speedscope),
        ] {
            assert_eq!(found(text.as_bytes()), format, "{text}");
            assert_eq!(found(&gzip(text.as_bytes())), format, "{text}");
        }
    }

    #[test]
    fn bombs_stop_at_the_limit() {
        let bomb = gzip(&vec![b'a'; 4 << 20]);
        assert!(bomb.len() < 1 << 16);
        let reading = Reading {
            limit: 1 << 16,
            ..Reading::default()
        };
        assert!(matches!(
            read(&bomb, &reading),
            Err(FormatError::Packed(UnpackError::TooLarge { .. }))
        ));
        assert!(matches!(
            read(&vec![b'a'; (1 << 16) + 1], &reading),
            Err(FormatError::Packed(UnpackError::TooLarge { .. }))
        ));
    }

    #[test]
    fn a_kind_that_nobody_knows_is_named() {
        let reading = Reading {
            kind: Some("joules"),
            limit: 100,
            ..Reading::default()
        };
        assert!(read(b"a 1", &reading).unwrap_err().to_string().contains("`joules`"));
    }
}
