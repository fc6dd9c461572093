//! C, C++ and Rust: names are demangled (`cpp_demangle`, `rustc-demangle`) and stripped of what compilers add.
//!
//! Optimisers emit parts and copies of a function as separate symbols (`price.constprop.0`, `price.isra.0.cold`,
//! `price.part.0`, `price.llvm.7612…`, `price.avx2`); ABIs are marked (`[abi:cxx11]`, `std::__cxx11::`), and closures
//! are numbered. Rust symbols end in a hash or contain one of the crate.

use std::fmt;

use super::{
    language::{Language, Rules},
    marks::{Marks, change, digits, is_hex, is_number, without_each},
};

pub(super) const RUST: Rules = Rules {
    language: Language::Rust,
    is_managed: false,
    endings: &["rs"],
    no_files: &[],
    is_certain: |name, marks| {
        marks.has(b'{') && (name.contains("{{closure}}") || name.contains("{closure#") || name.contains("{impl#"))
            || marks.has(b'<') && name.starts_with('<') && name.contains(" as ")
            || marks.has(b':') && RUST_PATHS.iter().any(|path| name.starts_with(path))
    },
    normalise,
    is_scoped_by_file: |_| false,
    is_library_name: is_library_path,
    library_folders: &["/rustc/", "/registry/src/", "/git/checkouts/", "/vendor/"],
    runtime: &[],
};

pub(super) const CPP: Rules = Rules {
    language: Language::Cpp,
    is_managed: false,
    endings: &[
        "cc", "cpp", "cxx", "c++", "C", "hh", "hpp", "hxx", "h", "tcc", "inl", "ipp",
    ],
    no_files: &[],
    is_certain: |name, marks| {
        marks.has(b':') && marks.has(b'(') && name.contains("::") && !name.starts_with("(anonymous:")
            || marks.has(b':') && name.starts_with("std::__")
            || marks.has(b'(') && name.ends_with(')') && is_plain(name.split('(').next().unwrap_or_default())
    },
    normalise,
    is_scoped_by_file: |_| false,
    is_library_name: is_library_path,
    library_folders: &["/usr/include/", "/usr/lib/", "/usr/src/", "/build/glibc", "/sysdeps/"],
    runtime: &[],
};

pub(super) const C: Rules = Rules {
    language: Language::C,
    is_managed: false,
    endings: &["c"],
    no_files: &[],
    is_certain: |_, _| false,
    normalise,
    // Two files may each have a static function with the same name, and nothing in a profile says which ones are
    // static.
    is_scoped_by_file: |_| true,
    is_library_name: is_c_library,
    library_folders: &[
        "/usr/include/",
        "/usr/lib/",
        "/usr/src/",
        "/build/glibc",
        "/sysdeps/",
        "/registry/src/",
        "/rustc/",
    ],
    runtime: &[],
};

/// Prefixes used only by Rust's own libraries; C++ also has a namespace `std`.
const RUST_PATHS: [&str; 16] = [
    "core::",
    "alloc::",
    "std::rt::",
    "std::sys::",
    "std::sys_common::",
    "std::panic",
    "std::thread::",
    "std::io::",
    "std::time::",
    "std::sync::",
    "std::collections::",
    "std::process::",
    "std::alloc::",
    "std::net::",
    "std::backtrace",
    "tokio::",
];

/// Third-party crates and namespaces.
const LIBRARIES: [&str; 62] = [
    "core",
    "std",
    "alloc",
    "proc_macro",
    "test",
    "tokio",
    "tokio_util",
    "tokio_stream",
    "tokio_rustls",
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
    "tower_http",
    "tonic",
    "prost",
    "futures_util",
    "futures_core",
    "futures_channel",
    "futures_executor",
    "tracing",
    "tracing_core",
    "mio",
    "hashbrown",
    "bytes",
    "serde",
    "serde_json",
    "emberline_proxy",
    "emberline_profiler",
    "parking_lot",
    "parking_lot_core",
    "rustls",
    "ring",
    "regex",
    "regex_automata",
    "rayon",
    "rayon_core",
    "reqwest",
    "actix_web",
    "sqlx_core",
    "crossbeam_channel",
    "crossbeam_epoch",
    // C++.
    "boost",
    "absl",
    "folly",
    "google",
    "grpc",
    "grpc_core",
    "grpc_impl",
    "__gnu_cxx",
    "__cxxabiv1",
    "v8",
    "node",
    "fmt",
    "spdlog",
    "Eigen",
];

/// The common rule of all three.
pub(super) fn normalise(name: &str, marks: Marks) -> Option<String> {
    let bare = without_endings(name, marks);
    let mut text = demangled(bare).unwrap_or_else(|| bare.to_owned());
    if text.contains(':') {
        if let Some((head, hash)) = text.rsplit_once("::h")
            && hash.len() == 16
            && is_hex(hash, 16)
        {
            text.truncate(head.len());
        }
        for inline in ["std::__cxx11::", "std::__1::", "std::__ndk1::"] {
            if text.contains(inline) {
                text = text.replace(inline, "std::");
            }
        }
    }
    let closing = |end: char| {
        move |text: &str| match digits(text) {
            0 => 0,
            number if text[number..].starts_with(end) => number + 1,
            _ => 0,
        }
    };
    if text.contains('{') {
        for closure in ["{closure#", "{async_fn#", "{async_block#"] {
            let changed = without_each(&text, closure, closing('}'), "{{closure}}");
            change(&mut text, changed);
        }
        if text.contains("{lambda") || text.contains("{unnamed") {
            let changed = without_each(&text, "#", closing('}'), "}");
            change(&mut text, changed);
        }
    }
    if text.contains("'lambda") {
        text = as_gnu_lambdas(&text);
    }
    if text.contains("[abi:") {
        let tag = |text: &str| text.find(']').map_or(0, |end| end + 1);
        let changed = without_each(&text, "[abi:", tag, "");
        change(&mut text, changed);
    }
    // Demanglers differ here.
    while text.contains("> >") {
        text = text.replace("> >", ">>");
    }
    (text != name).then_some(text)
}

/// LLVM demangles to `'lambda0'(int)`, others to `{lambda(int)}`.
fn as_gnu_lambdas(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once("'lambda") {
        let parameters = &after[digits(after)..];
        let end = parameters
            .strip_prefix('\'')
            .filter(|p| p.starts_with('('))
            .and_then(closing_bracket);
        let Some(end) = end else {
            out.push_str(before);
            out.push_str("'lambda");
            rest = after;
            continue;
        };
        out.push_str(before);
        out.push_str("{lambda");
        out.push_str(&parameters[1..=end + 1]);
        out.push('}');
        rest = &parameters[end + 2..];
    }
    out.push_str(rest);
    out
}

/// The position at which the bracket at the start closes.
fn closing_bracket(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.bytes().position(|byte| {
        depth += match byte {
            b'(' => 1,
            b')' => -1,
            _ => 0,
        };
        depth == 0
    })
}

/// What linkers, compilers and disassemblers append to a symbol.
fn without_endings(name: &str, marks: Marks) -> &str {
    let mut name = name;
    if marks.has(b'>')
        && let Some((head, address)) = name.strip_suffix('>').and_then(|text| text.rsplit_once('<'))
        && !head.is_empty()
        && address.len() == 16
        && is_hex(address, 16)
    {
        name = head;
    }
    if marks.has(b'+')
        && let Some((head, offset)) = name.rsplit_once("+0x")
        && !head.is_empty()
        && is_hex(offset, 1)
    {
        name = head;
    }
    if marks.has(b'@') && !name.starts_with('@') {
        name = match name.split_once('@') {
            Some((head, version))
                if version == "plt"
                    || version
                        .trim_start_matches('@')
                        .starts_with(|c: char| c.is_ascii_uppercase()) =>
            {
                head
            }
            _ => name,
        };
    }
    if marks.has(b'[') {
        while let Some((head, clone)) = name.rsplit_once(" [clone .")
            && clone.ends_with(']')
        {
            name = head;
        }
    }
    while marks.has(b'.')
        && let Some(head) = without_clone(name)
    {
        name = head;
    }
    name
}

/// `price` of `price.cold`, `price.isra.0` and `price.llvm.7612493816242381104`.
fn without_clone(name: &str) -> Option<&str> {
    const CLONES: [&str; 24] = [
        "cold",
        "constprop",
        "isra",
        "part",
        "llvm",
        "lto_priv",
        "localalias",
        "clone",
        "warm",
        "hot",
        "unlikely",
        "resolver",
        "ifunc",
        "default",
        "sse2",
        "sse4_2",
        "avx",
        "avx2",
        "avx512f",
        "popcnt",
        "eh",
        "exit",
        "startup",
        "__uniq",
    ];
    let is_clone = |word: &str| CLONES.contains(&word) || word.starts_with("arch_");
    let (head, last) = name.rsplit_once('.')?;
    if head.is_empty() {
        return None;
    }
    if is_clone(last) {
        return Some(head);
    }
    let (before, word) = head.rsplit_once('.')?;
    let counts = is_number(last) || word == "llvm" && is_hex(last, 8);
    (counts && is_clone(word) && !before.is_empty()).then_some(before)
}

/// The longest symbol that is demangled, and the longest result: substitutions can make it grow without bounds.
const MAX_MANGLED: usize = 8192;
const MAX_DEMANGLED: usize = 1 << 16;

fn demangled(symbol: &str) -> Option<String> {
    if !symbol.starts_with('_') || symbol.len() > MAX_MANGLED {
        return None;
    }
    if let Ok(name) = rustc_demangle::try_demangle(symbol) {
        // The alternate form omits the hash of legacy symbols and the disambiguators of v0 symbols.
        let mut out = Bounded(String::new());
        fmt::write(&mut out, format_args!("{name:#}")).ok()?;
        return Some(out.0);
    }
    // Tools for macOS keep its additional underscore.
    let mangled = symbol
        .strip_prefix('_')
        .filter(|rest| rest.starts_with("_Z"))
        .unwrap_or(symbol);
    if !mangled.starts_with("_Z") {
        return None;
    }
    let parsed = cpp_demangle::Symbol::new(mangled).ok()?;
    let mut out = Bounded(String::new());
    let options = cpp_demangle::DemangleOptions::new();
    parsed.structured_demangle(&mut out, &options).ok()?;
    Some(out.0)
}

/// Text of at most [`MAX_DEMANGLED`] bytes.
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_DEMANGLED {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

/// A name in C, or the part of a C++ name before its parameters.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// The first element of a path: `alloc` of `<alloc::vec::Vec<T> as Trait>::f`, `shop` of `int shop::price<int>(int)`.
fn first_element(name: &str) -> Option<&str> {
    // A template's return type comes first.
    let name = match name.split_once(' ') {
        Some((kind, rest)) if is_plain(kind) && !matches!(kind, "mut" | "dyn" | "operator") && rest.contains("::") => {
            rest
        }
        _ => name,
    };
    let path = name
        .trim_start_matches(['<', '&', '*', '(', '[', ' '])
        .trim_start_matches("mut ")
        .trim_start_matches("dyn ");
    let end = path.find(|c: char| !(c.is_alphanumeric() || c == '_'))?;
    path[end..].starts_with("::").then_some(&path[..end])
}

/// True for names in third-party crates and namespaces. A name without a path is a C function, or built into the
/// language.
fn is_library_path(name: &str) -> bool {
    match first_element(name) {
        Some(first) => LIBRARIES.contains(&first),
        // A C++ function without a namespace has parameters.
        None => !name.contains('(') || is_c_library(name.split('(').next().unwrap_or_default()),
    }
}

/// True for functions of the C library, the dynamic loader and the kernel, as far as their names tell.
pub(super) fn is_c_library(name: &str) -> bool {
    const NAMES: [&str; 46] = [
        "_start",
        "abort",
        "accept",
        "accept4",
        "bind",
        "brk",
        "calloc",
        "clock_gettime",
        "clone",
        "clone3",
        "close",
        "connect",
        "epoll_wait",
        "exit",
        "fread",
        "free",
        "futex",
        "fwrite",
        "listen",
        "malloc",
        "memchr",
        "memcmp",
        "memcpy",
        "memmove",
        "memset",
        "mmap",
        "munmap",
        "nanosleep",
        "open",
        "operator delete",
        "operator new",
        "poll",
        "printf",
        "qsort",
        "read",
        "realloc",
        "recv",
        "select",
        "send",
        "start_thread",
        "strcmp",
        "strlen",
        "syscall",
        "write",
        "do_syscall_64",
        "schedule",
    ];
    const BEGINNINGS: [&str; 14] = [
        "_dl_",
        "_int_",
        "_IO_",
        "pthread_",
        "entry_SYSCALL",
        "ksys_",
        "vfs_",
        "tcp_",
        "ip_",
        "sock_",
        "ep_",
        "sys_",
        "x64_sys_",
        "asm_",
    ];
    NAMES.contains(&name)
        || name.starts_with("__") && !name.ends_with("__")
        || name.ends_with("_[k]")
        || BEGINNINGS.iter().any(|begin| name.starts_with(begin))
}
