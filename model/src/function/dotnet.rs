//! C#, F#, Visual Basic. Names contain namespace, class and method: `Shop.Price.Total`.
//!
//! The compiler numbers what it generates per class: closures (`<>c__DisplayClass1_0.<Total>b__0`), iterators and
//! asynchronous methods (`<Total>d__3.MoveNext`), local functions (`<Total>g__Round|3_0`). The runtime adds the tier.

use super::{
    language::{Language, Rules},
    marks::{Marks, digits, without_each},
};

pub(super) const RULES: Rules = Rules {
    language: Language::DotNet,
    is_managed: true,
    endings: &["cs", "fs", "vb", "razor", "cshtml"],
    no_files: &[],
    is_certain,
    normalise,
    is_scoped_by_file: |_| false,
    is_library_name,
    library_folders: &["/_/src/", "/.nuget/"],
    runtime: &[
        "MethodDesc::",
        "CorHost",
        "coreclr_",
        "WKS::",
        "SVR::",
        "ThreadNative::",
    ],
};

/// Namespaces of the platform and of well-known libraries.
const NAMESPACES: [&str; 20] = [
    "System.",
    "Microsoft.",
    "Internal.",
    "Interop",
    "Windows.",
    "Newtonsoft.",
    "Grpc.",
    "Google.Protobuf.",
    "Serilog.",
    "NLog.",
    "Npgsql.",
    "MySqlConnector.",
    "StackExchange.",
    "Dapper.",
    "Polly.",
    "AutoMapper.",
    "MediatR.",
    "Castle.",
    "OpenTelemetry.",
    "Autofac.",
];

/// Compilation tiers, as in perf maps.
const TIERS: [&str; 9] = [
    "[PreJIT]",
    "[Optimized]",
    "[MinOptJitted]",
    "[QuickJitted]",
    "[OptimizedTier1]",
    "[OptimizedTier1OSR]",
    "[InstrumentedTier0]",
    "[InstrumentedTier1]",
    "[ReJIT]",
];

fn is_certain(name: &str, marks: Marks) -> bool {
    marks.has(b'<')
        && (name.contains("<>c")
            || name.contains(">d__")
            || name.contains(">b__")
            || name.contains(">g__")
            || name.contains(">d.MoveNext"))
        || marks.has(b'.') && (name.starts_with("System.") || name.starts_with("Microsoft."))
        || marks.has(b'!') && name.contains(".dll!")
        || marks.has(b'[') && TIERS.iter().any(|tier| name.ends_with(tier))
}

fn normalise(name: &str, marks: Marks) -> Option<String> {
    let mut next = name.to_owned();
    if marks.has(b'[') {
        while let Some(head) = TIERS.iter().find_map(|tier| next.strip_suffix(tier)) {
            next.truncate(head.trim_end().len());
        }
    }
    if marks.has(b'_') && (marks.has(b'<') || marks.has(b'V')) {
        // `1_0`, `0`, `0_1`.
        let counters = |text: &str| {
            let first = digits(text);
            match text[first..].strip_prefix('_').map(digits) {
                Some(second) if first > 0 && second > 0 => first + 1 + second,
                _ => first,
            }
        };
        for (mark, instead) in [
            ("<>c__DisplayClass", "<>c__DisplayClass"),
            (">d__", ">d"),
            (">b__", ">b"),
            ("<>f__AnonymousType", "<>f__AnonymousType"),
            ("lambda_method", "lambda_method"),
        ] {
            if let Some(shorter) = without_each(&next, mark, counters, instead) {
                next = shorter;
            }
        }
        if next.contains(">g__")
            && let Some(shorter) = without_each(&next, "|", counters, "")
        {
            next = shorter;
        }
    }
    (next != name).then_some(next)
}

fn is_library_name(name: &str) -> bool {
    // `void [System.Private.CoreLib] System.String::Concat(…)`, `System.Private.CoreLib.dll!System.String.Concat`.
    let name = name.split_once("] ").map_or(name, |(_, name)| name);
    let name = name.split_once('!').map_or(name, |(_, name)| name);
    !name.contains(['.', ':']) || NAMESPACES.iter().any(|space| name.starts_with(space))
}
