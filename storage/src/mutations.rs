//! Every decoder of the store against mutated input: written bytes are flipped, cut, repeated and moved, and the
//! decoder must refuse them, or return what was written, or something consistent that is no larger than its input
//! allows.
//!
//! Parquet and DuckDB files are not covered: they are read only after the checksum of all their bytes (`parts`), or
//! thrown away (`hot`); the corruption campaign damages whole stores.

use std::{collections::HashMap, path::Path, sync::Arc};

use emberline_model::{Batch, BatchId, Frame, Signal, wire};
use proptest::prelude::*;

use crate::{
    dedup::Dedup,
    disk::{Disk, MemoryDisk},
    framing, hot, journal,
    parts::{Commit, PartName},
    symbols::{self, Symbols},
};

/// One change of some bytes: the position, the kind of change, and a byte for it to use.
type Change = (prop::sample::Index, u8, u8);

fn changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec(any::<Change>(), 1..5)
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for &(at, which, byte) in changes {
        if bytes.is_empty() {
            return bytes;
        }
        let at = at.index(bytes.len());
        let end = (at + usize::from(byte)).min(bytes.len());
        match which % 6 {
            0 => bytes[at] = byte,
            1 => bytes[at] ^= 1 << (byte % 8),
            2 => drop(bytes.drain(at..end)),
            3 => drop(bytes.splice(at..at, vec![byte; usize::from(byte)])),
            4 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// A build id that is also valid in a file name.
const BUILD: &str = "0123456789abcdef";

/// Symbols as they are found: file offsets with their frames, grouped by call.
fn symbol_calls() -> impl Strategy<Value = Vec<Vec<(u64, Vec<Frame>)>>> {
    let frame = ("[a-c\0é]{0,6}", "[a-c/]{0,4}", any::<u32>());
    let frame = frame.prop_map(|(function, file, line)| Frame { function, file, line });
    let located = (0u64..24, prop::collection::vec(frame, 0..4));
    prop::collection::vec(prop::collection::vec(located, 1..6), 1..8)
}

fn symbols_on(disk: &MemoryDisk) -> Symbols {
    Symbols::new(Path::new("/data"), Arc::new(disk.clone()), Arc::default())
}

/// Function and file of the frames known at an offset; `None` if it was never looked up.
fn known(symbols: &Symbols, offset: u64) -> Option<Vec<(String, String)>> {
    let build = symbols.build(BUILD);
    let build = build.read();
    let functions = build.functions(offset)?;
    Some(functions.map(|f| (f.name.clone(), f.file.clone())).collect())
}

proptest! {
    #[test]
    fn symbol_files(calls in symbol_calls(), changes in changes()) {
        let disk = MemoryDisk::new();
        let first = symbols_on(&disk);
        let mut put: HashMap<u64, Vec<Vec<(String, String)>>> = HashMap::new();
        for call in &calls {
            first.put(BUILD, call).unwrap();
            for (offset, frames) in call {
                let frames = frames.iter().map(|f| (f.function.clone(), f.file.clone())).collect();
                put.entry(*offset).or_default().push(frames);
            }
        }
        for (offset, frames) in &put {
            prop_assert_eq!(known(&symbols_on(&disk), *offset), frames.last().cloned());
        }
        let path = Path::new("/data/symbols").join(format!("{BUILD}.sym"));
        let whole = disk.read(&path).unwrap();
        let bytes = changed(whole.clone(), &changes);
        disk.damage(&path, |file| *file = bytes.clone());
        let damaged = symbols_on(&disk);
        let mut lost = false;
        for offset in 0..24 {
            let (frames, put) = (known(&damaged, offset), put.get(&offset));
            // Known frames are some that were put, though maybe not the last ones: those may be what was damaged.
            prop_assert!(frames.as_ref().is_none_or(|frames| put.is_some_and(|put| put.contains(frames))));
            lost |= frames.is_none() && put.is_some();
        }
        let checked = symbols::check(&bytes);
        prop_assert!(checked.locations as usize <= put.len());
        prop_assert!(bytes != whole || (checked.damaged == 0 && !lost));
        // What is kept of the file is whole, and says the same.
        let intact = symbols::intact(&bytes);
        prop_assert_eq!(symbols::check(&intact).damaged, 0);
        prop_assert_eq!(symbols::check(&intact).locations, checked.locations);
        // And the file can be appended to: what was lost is found again.
        for call in &calls {
            damaged.put(BUILD, call).unwrap();
        }
        for (offset, frames) in &put {
            prop_assert_eq!(known(&symbols_on(&disk), *offset), frames.last().cloned());
        }
    }

    #[test]
    fn records_of_symbols_of_any_bytes(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..6)) {
        let mut bytes = b"EMBSYMB1".to_vec();
        for (at, payload) in payloads.iter().enumerate() {
            framing::encode(&mut bytes, at as u64 + 1, 0, payload);
        }
        let checked = symbols::check(&bytes);
        prop_assert!(checked.locations as usize <= bytes.len());
        prop_assert_eq!(symbols::check(&symbols::intact(&bytes)).damaged, 0);
    }

    #[test]
    fn payloads_of_the_journal(windows in 0usize..40, changes in changes()) {
        let window = |n: usize| emberline_model::WorkloadWindow {
            workload: emberline_model::Workload { instance: n.to_string(), ..Default::default() },
            component: emberline_model::Component::Proxy,
            start_unix_s: n as i64,
            length_s: 10,
            has_requests: true,
            has_profiles: false,
            requests: Vec::new(),
            profiles: Vec::new(),
        };
        let id = BatchId { sender: "shop".into(), epoch: 1, sequence: 2, signal: Signal::Requests };
        let batch = Batch { id: Some(id), received_unix_ms: 5, windows: (0..windows).map(window).collect() };
        let encoded = wire::encode_batch(&batch);
        let whole = journal::payload::encode(&encoded);
        let (length, read) = journal::payload::decode(&whole).unwrap();
        prop_assert_eq!((length, &read), (encoded.len(), &batch));
        if let Ok((length, read)) = journal::payload::decode(&changed(whole, &changes)) {
            prop_assert!(length <= framing::MAX_PAYLOAD_BYTES && read.windows.len() <= length);
        }
    }

    #[test]
    fn the_memory_of_senders(sequences in prop::collection::vec((0u8..3, 1u64..90), 0..60), changes in changes()) {
        let id = |sender: u8, sequence| BatchId { sender: sender.to_string(), epoch: 1, sequence, signal: Signal::Profiles };
        let mut dedup = Dedup::default();
        for &(sender, sequence) in &sequences {
            dedup.insert(&id(sender, sequence), 5);
        }
        let Some((_, mut read)) = Dedup::decode(&changed(dedup.encode(7), &changes)) else { return Ok(()) };
        // Whatever it contains now, it still works.
        for sequence in [0, 1, 50, u64::MAX - 1, u64::MAX] {
            read.insert(&id(0, sequence), 6);
            prop_assert_ne!(read.seen(&id(0, sequence)), crate::dedup::Seen::New);
        }
        prop_assert!(Dedup::decode(&read.encode(8)).is_some_and(|(through, again)| through == 8 && again == read));
    }

    #[test]
    fn names_of_files(
        part in "(samples|names|rollup)-20[0-9]{8}-[0-9]{2}-[0-9]{4}-[0-9]{1,3}-[0-9]{1,3}-[0-9]{1,3}-[0-9a-f]{8}\\.(parquet|dict)",
        commit in "compacted-20[0-9]{8}-[0-9]{2}-[0-9]{4}\\.commit",
        log in "[0-9]{18,21}\\.log",
        changes in changes(),
    ) {
        for name in [part, commit, log] {
            for bytes in [name.clone().into_bytes(), changed(name.into_bytes(), &changes)] {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let path = Path::new("/parts").join(&text);
                // No two names refer to the same file.
                prop_assert!(PartName::parse(&path).is_none_or(|name| Some(name.to_string().as_str()) == path.file_name().and_then(|n| n.to_str())));
                prop_assert!(Commit::parse(&path).is_none_or(|name| Some(name.to_string().as_str()) == path.file_name().and_then(|n| n.to_str())));
                prop_assert!(journal::segment::first_lsn_of(&path).is_none_or(|lsn| lsn > 0));
                let _ = hot::hours::from_name(&text);
            }
        }
    }

    #[test]
    fn headers_of_segments(lsn in 1u64.., changes in changes()) {
        let whole = journal::segment::header(lsn).to_vec();
        prop_assert_eq!(journal::segment::read_header(&whole), journal::segment::Header::Known);
        let bytes = changed(whole.clone(), &changes);
        let same = bytes.starts_with(&whole);
        prop_assert!(same || journal::segment::read_header(&bytes) == journal::segment::Header::Damaged);
    }
}
