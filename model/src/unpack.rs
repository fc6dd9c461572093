//! Decompression: gzip and zstd, recognised by their first bytes.
//!
//! Guarantee: no more than the limit is decompressed, and memory exceeds it only by a constant.

use std::io::Read;

use flate2::read::MultiGzDecoder;

/// The largest zstd window accepted, as a power of two: the encoders' default. A frame may ask for gigabytes.
const ZSTD_WINDOW_LOG: u32 = 23;

/// Why a file could not be decompressed.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Larger than the limit.
    #[error("more than {limit} bytes after decompression")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// Damaged or truncated.
    #[error("not valid gzip: {0}")]
    Gzip(std::io::Error),
    /// Damaged or truncated.
    #[error("not valid zstd: {0}")]
    Zstd(std::io::Error),
}

/// Decompresses a file; `None` if it is not compressed.
pub(crate) fn unpack(bytes: &[u8], limit: usize) -> Result<Option<Vec<u8>>, UnpackError> {
    let mut unpacked = Vec::new();
    let most = (limit as u64).saturating_add(1);
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let read = MultiGzDecoder::new(bytes).take(most).read_to_end(&mut unpacked);
        read.map_err(UnpackError::Gzip)?;
    } else if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut decoder = zstd::Decoder::with_buffer(bytes).map_err(UnpackError::Zstd)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(UnpackError::Zstd)?;
        let read = decoder.take(most).read_to_end(&mut unpacked);
        read.map_err(UnpackError::Zstd)?;
    } else {
        return Ok(None);
    }
    if unpacked.len() > limit {
        return Err(UnpackError::TooLarge { limit });
    }
    Ok(Some(unpacked))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn packed(bytes: &[u8], zstd: bool) -> Vec<u8> {
        if zstd {
            return zstd::encode_all(bytes, 3).unwrap();
        }
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn bombs_stop_at_the_limit() {
        for zstd in [false, true] {
            let bomb = packed(&vec![b'a'; 4 << 20], zstd);
            assert!(bomb.len() < 1 << 16);
            assert!(matches!(
                unpack(&bomb, 1 << 16),
                Err(UnpackError::TooLarge { limit: 65536 })
            ));
            assert_eq!(unpack(&bomb, 4 << 20).unwrap().unwrap().len(), 4 << 20);
        }
    }

    proptest! {
        #[test]
        fn changed_bytes_are_refused_or_bounded(zstd in any::<bool>(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = packed(b"main;price 3\nmain 1\n", zstd);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(Some(unpacked)) = unpack(&bytes, 1 << 10) {
                prop_assert!(unpacked.len() <= 1 << 10);
            }
        }
    }
}
