//! A batch as the journal holds it: one byte for the encoding, then the encoded batch, compressed when that helps.
//! Guarantee: what was encoded decodes to an equal batch; other bytes decode to an error.

use std::io::{self, Read};

use emberline_model::{
    Batch,
    wire::{self, DecodeBatchError},
};

use crate::framing::MAX_PAYLOAD_BYTES;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// Below this size, compression costs more than it saves.
const COMPRESS_FROM: usize = 512;
/// The fastest: batches shrink to about a third, and appending stays bound by the disk.
const LEVEL: i32 = 1;

/// Why a record is not a batch.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("unknown record encoding")]
    Coding,
    #[error("a compressed record: {0}")]
    Compressed(#[from] io::Error),
    #[error(transparent)]
    Batch(#[from] DecodeBatchError),
}

/// Encodes an encoded batch for the journal.
pub(crate) fn encode(encoded: &[u8]) -> Vec<u8> {
    if encoded.len() >= COMPRESS_FROM {
        let mut payload = vec![ZSTD];
        // Writing to memory should not fail; if it does all the same, the batch is stored uncompressed.
        let compressed = zstd::stream::copy_encode(encoded, &mut payload, LEVEL);
        if compressed.is_ok() && payload.len() <= encoded.len() {
            return payload;
        }
    }
    let mut payload = Vec::with_capacity(encoded.len() + 1);
    payload.push(PLAIN);
    payload.extend_from_slice(encoded);
    payload
}

/// Decodes what [`encode`] made of an encoded batch; also returns the length before compression.
pub(crate) fn decode(payload: &[u8]) -> Result<(usize, Batch), DecodeError> {
    match payload.split_first() {
        Some((&PLAIN, encoded)) => Ok((encoded.len(), wire::decode_batch(encoded)?)),
        Some((&ZSTD, compressed)) => {
            let mut encoded = Vec::new();
            zstd::stream::Decoder::new(compressed)?
                .take(MAX_PAYLOAD_BYTES as u64 + 1)
                .read_to_end(&mut encoded)?;
            Ok((encoded.len(), wire::decode_batch(&encoded)?))
        }
        _ => Err(DecodeError::Coding),
    }
}

#[cfg(test)]
mod tests {
    use emberline_model::{Component, Workload, WorkloadWindow};

    use super::*;

    #[test]
    fn small_and_large_batches_round_trip_and_other_bytes_do_not_decode() {
        for windows in [0, 1, 200] {
            let window = |n: usize| WorkloadWindow {
                workload: Workload {
                    instance: n.to_string(),
                    ..Workload::default()
                },
                component: Component::Proxy,
                start_unix_s: n as i64,
                length_s: 10,
                has_requests: true,
                has_profiles: false,
                requests: Vec::new(),
                profiles: Vec::new(),
            };
            let batch = Batch {
                id: None,
                received_unix_ms: 5,
                windows: (0..windows).map(window).collect(),
            };
            let encoded = wire::encode_batch(&batch);
            let payload = encode(&encoded);
            assert!(payload.len() <= encoded.len() + 1);
            assert_eq!(payload.len() < encoded.len() / 2, windows == 200);
            assert_eq!(decode(&payload).unwrap(), (encoded.len(), batch));
        }
        for bytes in [&[][..], &[9, 9], &[ZSTD, 1, 2, 3], &[PLAIN, 0xff]] {
            assert!(decode(bytes).is_err());
        }
    }
}
