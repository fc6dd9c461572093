//! The tokens of a JSON text, one after the other, for text that nests deeper than a value parser allows.
//!
//! Guarantees: no recursion, and no memory apart from one string; every token advances by at least one byte.
//!
//! Wrong on purpose: commas and colons are skipped wherever they are, so that some text is accepted that is not quite
//! JSON.

use std::borrow::Cow;

use super::read_error::{ReadError, in_json};

/// One token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token<'t> {
    /// `{`
    ObjectStart,
    /// `}`
    ObjectEnd,
    /// `[`
    ListStart,
    /// `]`
    ListEnd,
    /// A name in an object: a string followed by a colon.
    Key(Cow<'t, str>),
    /// A string value.
    Text(Cow<'t, str>),
    /// A number.
    Number(f64),
    /// `true`, `false`, `null`.
    Word,
}

/// Text being read.
#[derive(Debug, Clone)]
pub(super) struct Tokens<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Tokens<'t> {
    /// From the beginning of a text.
    pub(super) fn new(text: &'t [u8]) -> Tokens<'t> {
        Tokens { text, at: 0 }
    }

    /// Where the search for the next token starts.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    fn skip(&mut self, what: impl Fn(u8) -> bool) {
        while self.text.get(self.at).is_some_and(|&byte| what(byte)) {
            self.at += 1;
        }
    }

    /// The next token; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Token<'t>>, ReadError> {
        self.skip(|byte| byte.is_ascii_whitespace() || byte == b',' || byte == b':');
        let Some(&byte) = self.text.get(self.at) else {
            return Ok(None);
        };
        let start = self.at;
        self.at += 1;
        Ok(Some(match byte {
            b'{' => Token::ObjectStart,
            b'}' => Token::ObjectEnd,
            b'[' => Token::ListStart,
            b']' => Token::ListEnd,
            b'"' => {
                let text = self.string(start)?;
                self.skip(|byte| byte.is_ascii_whitespace());
                match self.text.get(self.at) {
                    Some(b':') => Token::Key(text),
                    _ => Token::Text(text),
                }
            }
            b'-' | b'0'..=b'9' => {
                self.skip(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
                let text = std::str::from_utf8(&self.text[start..self.at]).unwrap_or_default();
                let number = text.parse().map_err(|_| ReadError::byte(start, "not a number"))?;
                Token::Number(number)
            }
            b't' | b'f' | b'n' => {
                self.skip(|byte| byte.is_ascii_alphabetic());
                match &self.text[start..self.at] {
                    b"true" | b"false" | b"null" => Token::Word,
                    _ => return Err(ReadError::byte(start, "not JSON")),
                }
            }
            _ => return Err(ReadError::byte(start, "not JSON")),
        }))
    }

    fn string(&mut self, start: usize) -> Result<Cow<'t, str>, ReadError> {
        let mut plain = true;
        loop {
            match self.text.get(self.at) {
                None => return Err(ReadError::byte(start, "a string is not terminated")),
                Some(b'"') => break,
                Some(b'\\') => {
                    plain = false;
                    self.at += 2;
                }
                Some(_) => self.at += 1,
            }
        }
        let inside = &self.text[start + 1..self.at];
        self.at += 1;
        if plain && let Ok(text) = std::str::from_utf8(inside) {
            return Ok(Cow::Borrowed(text));
        }
        let quoted = &self.text[start..self.at];
        let text: String = serde_json::from_slice(quoted).map_err(|error| ReadError::byte(start, in_json(&error)))?;
        Ok(Cow::Owned(text))
    }

    /// Skips the next value.
    pub(super) fn skip_value(&mut self) -> Result<(), ReadError> {
        let mut depth = 0usize;
        loop {
            let at = self.at;
            match self.next()? {
                None => return Err(ReadError::byte(at, "the text ends unexpectedly")),
                Some(Token::ObjectStart | Token::ListStart) => depth += 1,
                Some(Token::ObjectEnd | Token::ListEnd) => {
                    depth = depth.checked_sub(1).ok_or_else(|| ReadError::byte(at, "not JSON"))?;
                }
                Some(Token::Key(_)) => continue,
                Some(_) => {}
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }
}

/// The names in the outermost object, as far as the text is complete; for a list, those of its first element.
pub(super) fn top_keys(text: &[u8], mut each: impl FnMut(&str)) {
    let mut tokens = Tokens::new(text);
    let Ok(Some(first)) = tokens.next() else { return };
    match first {
        Token::ObjectStart => {}
        Token::ListStart if matches!(tokens.next(), Ok(Some(Token::ObjectStart))) => {}
        _ => return,
    }
    while let Ok(Some(Token::Key(key))) = tokens.next() {
        each(&key);
        if tokens.skip_value().is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tokens_come_in_order_and_depth_costs_nothing() {
        let mut tokens = Tokens::new(br#" {"a\n": [-1.5e2, "x:y", null]} "#);
        let mut all = Vec::new();
        while let Some(token) = tokens.next().unwrap() {
            all.push(token);
        }
        assert_eq!(
            all,
            [
                Token::ObjectStart,
                Token::Key("a\n".into()),
                Token::ListStart,
                Token::Number(-150.0),
                Token::Text("x:y".into()),
                Token::Word,
                Token::ListEnd,
                Token::ObjectEnd
            ]
        );
        let deep = [b"{\"a\":".repeat(100_000), b"1".to_vec(), b"}".repeat(100_000)].concat();
        assert!(Tokens::new(&deep).skip_value().is_ok());
        let mut keys = Vec::new();
        top_keys(br#"[{"name": {"b": 1}, "ph": "P"}]"#, |key| keys.push(key.to_owned()));
        assert_eq!(keys, ["name", "ph"]);
    }

    proptest! {
        #[test]
        fn text_of_any_kind_ends(bytes in prop::collection::vec(prop_oneof![Just(b'"'), Just(b'\\'), Just(b'{'), Just(b']'), Just(b':'), any::<u8>()], 0..80)) {
            let mut tokens = Tokens::new(&bytes);
            let mut steps = 0;
            while let Ok(Some(_)) = tokens.next() {
                steps += 1;
            }
            prop_assert!(steps <= bytes.len());
            let mut skipped = Tokens::new(&bytes);
            if skipped.skip_value().is_ok() {
                let mut rest = 0;
                while let Ok(Some(_)) = skipped.next() {
                    rest += 1;
                }
                prop_assert!(rest <= steps);
            }
            let mut keys = 0;
            top_keys(&bytes, |_| keys += 1);
            prop_assert!(keys <= bytes.len() / 2);
        }
    }
}
