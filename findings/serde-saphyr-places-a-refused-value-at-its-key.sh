#!/usr/bin/env bash
# Which place serde-saphyr gives for an error of a value that stands in a list or a map.
#
# A good guess: where the value begins, as it is for a number that is none. Seen: so it is where the parser refuses the value
# itself. Where a type of the caller refuses it (a visitor behind `deserialize_any`), the place is that of the key before it; where
# a key is missing, that of the last key which was read in the map. So `yaml/src/node.rs` looks places up among keys, too.
#
# Ends with 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat > Cargo.toml <<'TOML'
[package]
name = "seen"
version = "0.0.0"
edition = "2024"
[dependencies]
serde = { version = "=1.0.228", features = ["derive"] }
serde-saphyr = "=2.2.0"
TOML
cat > src/main.rs <<'RUST'
use serde::{Deserialize, Deserializer, de::Visitor};

#[derive(Debug)]
struct Milliseconds;

impl<'de> Deserialize<'de> for Milliseconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Milliseconds, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Milliseconds;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("milliseconds")
            }
            fn visit_u64<E>(self, _: u64) -> Result<Milliseconds, E> {
                Ok(Milliseconds)
            }
        }
        deserializer.deserialize_any(Number)
    }
}

#[derive(Debug, Deserialize)]
#[allow(dead_code)]
struct Plain {
    time: u32,
    to: String,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code)]
struct Own {
    time: Milliseconds,
    to: String,
}

fn place<T: for<'de> Deserialize<'de> + std::fmt::Debug>(text: &str) -> (u64, u64) {
    let error = serde_saphyr::from_str::<T>(text).unwrap_err();
    let at = error.location().unwrap();
    println!("{text}  column {}: {}", at.column(), error.without_snippet());
    (at.line(), at.column())
}

fn main() {
    // The key `time` is in column 9, its value in column 15.
    let text = "{to: a, time: soon}";
    let seen = [place::<Plain>(text), place::<Own>(text), place::<Own>("{time: 1}")];
    assert_eq!(seen, [(1, 15), (1, 9), (1, 2)]);
}
RUST
echo "serde-saphyr 2.2.0"
cargo run --quiet
