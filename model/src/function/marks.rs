//! Which ASCII characters a name holds, found in one pass: most names hold none of those that a rule looks for.

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

    /// True when the name holds one of these.
    pub(super) fn any(self, bytes: &[u8]) -> bool {
        bytes.iter().any(|&byte| self.has(byte))
    }
}

/// Removes the digits at the end.
pub(super) fn without_number(text: &str) -> &str {
    text.trim_end_matches(|c: char| c.is_ascii_digit())
}

/// True for text of digits only, one at least.
pub(super) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// True for so many hexadecimal digits at least, and nothing else.
pub(super) fn is_hex(text: &str, least: usize) -> bool {
    text.len() >= least && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The text without every `{prefix}{digits or hexadecimal}` for which `tail` says how many bytes belong to it.
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

/// How many bytes at the beginning are digits.
pub(super) fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// How many bytes at the beginning are hexadecimal digits.
pub(super) fn hex_digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_hexdigit).count()
}

/// Puts a changed text in the place of the old one, where something changed.
pub(super) fn change(text: &mut String, changed: Option<String>) {
    if let Some(changed) = changed {
        *text = changed;
    }
}
