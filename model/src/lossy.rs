//! Invalid UTF-8 in a protobuf message.
//!
//! Guarantee: only strings at the given path are touched, and only where they are not UTF-8; the rest of the message is
//! copied byte for byte. C symbols are bytes, and some writers put them into their tables unchanged.

use std::borrow::Cow;

use prost::encoding::{decode_varint, encode_varint};

/// Replaces invalid UTF-8 in the strings at a path of field numbers, and returns in how many. `None` if there is
/// nothing to replace, or if the bytes are not a message.
pub(crate) fn repaired(message: &[u8], path: &[u64]) -> Option<(Vec<u8>, u64)> {
    let mut replaced = 0;
    let written = rewrite(message, path, &mut replaced)?;
    (replaced > 0).then(|| (written.into_owned(), replaced))
}

fn rewrite<'m>(message: &'m [u8], path: &[u64], replaced: &mut u64) -> Option<Cow<'m, [u8]>> {
    let Some((&wanted, deeper)) = path.split_first() else {
        if std::str::from_utf8(message).is_ok() {
            return Some(Cow::Borrowed(message));
        }
        *replaced += 1;
        return Some(Cow::Owned(String::from_utf8_lossy(message).into_owned().into_bytes()));
    };
    let mut written = Vec::with_capacity(message.len());
    let mut rest = message;
    while !rest.is_empty() {
        let field = rest;
        let tag = decode_varint(&mut rest).ok()?;
        let length = match tag & 7 {
            0 => {
                decode_varint(&mut rest).ok()?;
                0
            }
            1 => 8,
            2 => usize::try_from(decode_varint(&mut rest).ok()?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (content, after) = rest.split_at_checked(length)?;
        rest = after;
        if tag >> 3 == wanted && tag & 7 == 2 {
            let content = rewrite(content, deeper, replaced)?;
            encode_varint(tag, &mut written);
            encode_varint(content.len() as u64, &mut written);
            written.extend_from_slice(&content);
        } else {
            written.extend_from_slice(&field[..field.len() - rest.len()]);
        }
    }
    Some(Cow::Owned(written))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::proto::pprof as pb;

    #[test]
    fn only_what_is_no_text_changes() {
        let file = pb::Profile {
            string_table: vec![String::new(), "a?b".to_owned(), "main".to_owned()],
            time_nanos: -5,
            sample: vec![pb::Sample {
                value: vec![3, 300],
                ..pb::Sample::default()
            }],
            ..pb::Profile::default()
        };
        let mut bytes = file.encode_to_vec();
        assert_eq!(repaired(&bytes, &[6]), None);
        let at = bytes.iter().position(|&byte| byte == b'?').unwrap();
        bytes[at] = 0xff;
        assert!(pb::Profile::decode(bytes.as_slice()).is_err());
        let (written, replaced) = repaired(&bytes, &[6]).unwrap();
        let read = pb::Profile::decode(written.as_slice()).unwrap();
        assert_eq!((replaced, read.string_table[1].as_str()), (1, "a\u{fffd}b"));
        assert_eq!((read.sample, read.time_nanos), (file.sample, -5));
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some((written, _)) = repaired(&bytes, &[2, 5]) {
                prop_assert!(written.len() <= 3 * bytes.len() + 20);
            }
        }
    }
}
