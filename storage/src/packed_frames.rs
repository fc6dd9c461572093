//! Names of locations as they are stored and sent between processes: each text once, however many frames use it.
//!
//! Format: a protobuf of texts, and per location its offset and three numbers per frame: function and file as indices
//! into the texts, and the line.
//!
//! Wrong on purpose: an index without a text reads as an empty name; input from a file or a process may be damaged.

use std::collections::HashMap;

use emberline_model::Frame;
use prost::Message;

/// Functions at offsets of one file, leaf first.
#[derive(Clone, PartialEq, Message)]
pub struct PackedFrames {
    #[prost(string, repeated, tag = "1")]
    texts: Vec<String>,
    #[prost(message, repeated, tag = "2")]
    located: Vec<Located>,
}

#[derive(Clone, PartialEq, Message)]
struct Located {
    #[prost(uint64, tag = "1")]
    offset: u64,
    #[prost(uint32, repeated, tag = "2")]
    frames: Vec<u32>,
}

impl PackedFrames {
    /// Packs frames with their offsets.
    pub fn of(located: &[(u64, Vec<Frame>)]) -> PackedFrames {
        let mut packed = PackedFrames::default();
        let mut known: HashMap<&str, u32> = HashMap::new();
        for (offset, frames) in located {
            let mut numbers = Vec::with_capacity(frames.len() * 3);
            for frame in frames {
                for text in [&frame.function, &frame.file] {
                    let index = *known.entry(text).or_insert_with(|| {
                        packed.texts.push(text.clone());
                        (packed.texts.len() - 1) as u32
                    });
                    numbers.push(index);
                }
                numbers.push(frame.line);
            }
            packed.located.push(Located {
                offset: *offset,
                frames: numbers,
            });
        }
        packed
    }

    /// The frames at each offset.
    pub fn frames(&self) -> impl Iterator<Item = (u64, Vec<Frame>)> {
        let text = |index: u32| self.texts.get(index as usize).cloned().unwrap_or_default();
        self.located.iter().map(move |located| {
            let frames = located.frames.chunks_exact(3).map(|n| Frame {
                function: text(n[0]),
                file: text(n[1]),
                line: n[2],
            });
            (located.offset, frames.collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_is_packed_once_and_all_frames_come_back() {
        let frame = |function: &str, line| Frame {
            function: function.to_owned(),
            file: "shop.rs".to_owned(),
            line,
        };
        let located = vec![
            (1, vec![frame("a", 3), frame("b", 0)]),
            (9, vec![]),
            (7, vec![frame("a", 4)]),
        ];
        let packed = PackedFrames::of(&located);
        assert_eq!(packed.texts, ["a", "shop.rs", "b"]);
        let read = PackedFrames::decode(packed.encode_to_vec().as_slice()).unwrap();
        assert_eq!(read.frames().collect::<Vec<_>>(), located);
    }
}
