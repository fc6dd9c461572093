//! Which ASCII characters a name contains, found in one pass: most names contain none of those that a rule looks for.

/// A set of ASCII characters.
#[derive(Clone, Copy)]
pub(super) struct Marks(u128);

impl Marks {
    pub(super) fn of(name: &str) -> Marks {
        Marks(
            name.bytes()
                .filter(u8::is_ascii)
                .fold(0, |all, byte| all | 1u128 << byte),
        )
    }

    pub(super) fn has(self, byte: u8) -> bool {
        self.0 & (1u128 << byte) != 0
    }

    /// True if the name contains one of these.
    pub(super) fn any(self, bytes: &[u8]) -> bool {
        bytes.iter().any(|&byte| self.has(byte))
    }
}

/// Removes trailing digits.
pub(super) fn without_number(text: &str) -> &str {
    text.trim_end_matches(|c: char| c.is_ascii_digit())
}

/// True for one or more digits and nothing else.
pub(super) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// True for at least `least` hexadecimal digits and nothing else.
pub(super) fn is_hex(text: &str, least: usize) -> bool {
    text.len() >= least && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Replaces each `{prefix}`, with the bytes after it that `tail` counts, by `instead`; `None` if there is none.
pub(super) fn without_each(text: &str, prefix: &str, tail: impl Fn(&str) -> usize, instead: &str) -> Option<String> {
    let mut rest = text;
    let mut out: Option<String> = None;
    let mut kept = 0;
    while let Some(at) = rest[kept..].find(prefix).map(|at| at + kept) {
        let after = at + prefix.len();
        let length = tail(&rest[after..]);
        if length == 0 {
            kept = after;
            continue;
        }
        let out = out.get_or_insert_with(String::new);
        out.push_str(&rest[..at]);
        out.push_str(instead);
        rest = &rest[after + length..];
        kept = 0;
    }
    out.map(|mut out| {
        out.push_str(rest);
        out
    })
}

/// The number of leading digits.
pub(super) fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// The number of leading hexadecimal digits.
pub(super) fn hex_digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_hexdigit).count()
}

/// Replaces the text if it changed.
pub(super) fn change(text: &mut String, changed: Option<String>) {
    if let Some(changed) = changed {
        *text = changed;
    }
}
