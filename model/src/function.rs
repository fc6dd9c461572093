//! Names of functions: what makes two functions of two builds the same one.
//!
//! Guarantee: a normalised name holds no hash suffix, no crate disambiguator, no file, no line and no checkout
//! path, so builds made in different folders diff by function. Wrong on purpose: two functions of the same
//! path in two versions of one crate are taken as the same function.

use crate::{id, profile::Frame, workload::misleads};

/// Language recorded for native frames.
pub const LANGUAGE_NATIVE: &str = "native";

/// Demangles a symbol (Rust v0 and legacy) and removes what differs between builds; names that are not
/// mangled come back as they are.
pub fn normalise(symbol: &str) -> String {
    let demangled = match rustc_demangle::try_demangle(symbol) {
        // The alternate form leaves out the hash of legacy symbols and the disambiguators of v0 symbols.
        Ok(name) => format!("{name:#}"),
        Err(_) => symbol.to_owned(),
    };
    strip_hash_suffix(&demangled).to_owned()
}

/// The most characters kept of a function's name: generic names are long.
const MAX_FUNCTION_CHARS: usize = 4096;

/// Cuts the name of a function that a sender gives to 4096 characters and replaces control characters and marks
/// of direction.
pub fn clean(name: &str) -> String {
    name.chars()
        .take(MAX_FUNCTION_CHARS)
        .map(|c| if misleads(c) { '\u{fffd}' } else { c })
        .collect()
}

/// Removes a legacy `::h0123456789abcdef` suffix.
fn strip_hash_suffix(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((head, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => head,
        _ => name,
    }
}

/// The identity of a frame's function.
pub fn function_id(frame: &Frame) -> u64 {
    id::function_id(&frame.function, LANGUAGE_NATIVE)
}

/// True for functions that an application's owner did not write: the language's own libraries, the runtime,
/// the C library, and code without a symbol. A verdict names such a function only when nothing else explains it.
pub fn is_library(name: &str) -> bool {
    const CRATES: [&str; 26] = [
        "core",
        "std",
        "alloc",
        "tokio",
        "tokio_util",
        "hyper",
        "hyper_util",
        "h2",
        "http",
        "http_body",
        "http_body_util",
        "axum",
        "axum_core",
        "tower",
        "tower_service",
        "futures_util",
        "futures_core",
        "tracing",
        "tracing_core",
        "mio",
        "hashbrown",
        "bytes",
        "serde_json",
        "emberline_proxy",
        "emberline_profiler",
        "parking_lot",
    ];
    if name.starts_with("0x") || name.starts_with('[') || name.is_empty() {
        return true;
    }
    // `<alloc::vec::Vec<T> as Trait>::f`, `<&T as ...>`, `{impl}`: judge by the first path inside.
    let path = name
        .trim_start_matches(['<', '&', '*', '(', '[', ' '])
        .trim_start_matches("mut ")
        .trim_start_matches("dyn ");
    match path.find(|c: char| !(c.is_alphanumeric() || c == '_')) {
        Some(end) if path[end..].starts_with("::") => CRATES.contains(&&path[..end]),
        // A name without a path is a C function, or a language built-in.
        _ => true,
    }
}

/// True for source files of other people's code: cargo's registry and vendored folders, and Rust's own libraries.
pub fn is_library_file(file: &str) -> bool {
    file.starts_with("/rustc/")
        || ["/registry/src/", "/git/checkouts/", "/vendor/"]
            .iter()
            .any(|part| file.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_in_different_folders_give_one_name() {
        assert_eq!(normalise("_ZN4shop5price17h0123456789abcdefE"), "shop::price");
        assert_eq!(normalise("_ZN4shop5price17hfedcba9876543210E"), "shop::price");
        assert_eq!(
            normalise("_RNvCskwGfYPst2Cb_3foo16example_function"),
            "foo::example_function"
        );
        assert_eq!(normalise("memcpy"), "memcpy");
        assert_eq!(normalise("shop::price::h0123456789abcdef"), "shop::price");
        assert_eq!(normalise("shop::hash::happy"), "shop::hash::happy");
    }

    #[test]
    fn library_code_is_told_from_application_code() {
        for name in [
            "core::num::wrapping_mul",
            "<alloc::vec::Vec<T> as core::ops::Deref>::deref",
            "tokio::runtime::park",
            "memcpy",
            "0x1f",
            "[unknown]",
        ] {
            assert!(is_library(name), "{name}");
        }
        for name in [
            "shop::price_basket",
            "<shop::Basket as core::fmt::Debug>::fmt",
            "emberline_demo::checkout::price_basket",
        ] {
            assert!(!is_library(name), "{name}");
        }
        assert!(is_library_file(
            "/home/a/.cargo/registry/src/index.crates.io-1949/httparse-1.10.1/src/lib.rs"
        ));
        assert!(is_library_file(
            "/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/core/src/hint.rs"
        ));
        assert!(!is_library_file("/home/a/shop/src/pay.rs"));
    }
}
