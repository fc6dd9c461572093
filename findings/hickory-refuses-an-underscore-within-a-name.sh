#!/usr/bin/env bash
# Whether hickory looks up a name with an underscore within a label, as Compose files and older hosts have them (`my_db`).
#
# A good guess: yes, as the C library does; names of services such as `_http._tcp` have underscores, too. Seen: a name that is read
# as text (`Name::from_utf8`, which is what `lookup_ip` does with a `&str`) may begin with an underscore and is refused with one
# within; `Name::from_ascii` and `Name::from_str` take both. So the proxy reads names as ASCII (`proxy/src/resolve/system.rs`).
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
hickory-resolver = { version = "=0.26.3", default-features = false, features = ["tokio", "system-config"] }
TOML
cat > src/main.rs <<'RUST'
use std::str::FromStr;

use hickory_resolver::proto::rr::{IntoName, Name};

fn main() {
    for (text, as_text, as_ascii) in [
        ("db.test.", true, true),
        ("_db.test.", true, true),
        ("my_db.test.", false, true),
    ] {
        let (utf8, ascii) = (Name::from_utf8(text), Name::from_ascii(text));
        println!("{text}  as text: {utf8:?}  as ASCII: {ascii:?}");
        assert_eq!((utf8.is_ok(), ascii.is_ok()), (as_text, as_ascii), "{text}");
        // What `lookup_ip` does with a text.
        assert_eq!(text.into_name().is_ok(), as_text, "{text}");
        assert!(Name::from_str(text).is_ok(), "{text}");
    }
}
RUST
echo "hickory-resolver 0.26.3"
cargo run --quiet
