//! The text of a selector: `{service="checkout", version=~"v1|v2"}`, optionally preceded by the profile type.
//!
//! Guarantees: any text gives a selector or a sentence that says what is wrong and where, without panicking; length,
//! number of matchers and size of a compiled regular expression are bounded, and matching takes time linear in the
//! value. Regular expressions match the whole value.

use regex::{Regex, RegexBuilder};

/// The longest selector, in bytes.
const MAX_BYTES: usize = 16 << 10;
/// The longest regular expression, in bytes.
const MAX_REGEX_BYTES: usize = 1 << 10;
/// The largest compiled regular expression, in bytes.
const MAX_COMPILED_BYTES: usize = 1 << 20;
/// The most matchers.
const MAX_MATCHERS: usize = 32;

/// A condition on a value.
#[derive(Debug, Clone)]
pub(crate) enum Test {
    /// `=`
    Is(String),
    /// `!=`
    IsNot(String),
    /// `=~`
    Matches(Regex),
    /// `!~`
    MatchesNot(Regex),
}

impl Test {
    /// Whether a value passes.
    pub(crate) fn passes(&self, value: &str) -> bool {
        match self {
            Test::Is(wanted) => value == wanted,
            Test::IsNot(unwanted) => value != unwanted,
            Test::Matches(regex) => regex.is_match(value),
            Test::MatchesNot(regex) => !regex.is_match(value),
        }
    }
}

/// One condition.
#[derive(Debug, Clone)]
pub(crate) struct Matcher {
    /// The label's name as written.
    pub(crate) name: String,
    /// The condition on its value.
    pub(crate) test: Test,
}

/// A selector as written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Written {
    /// What precedes the brace.
    pub(crate) profile_type: Option<String>,
    /// All must hold.
    pub(crate) matchers: Vec<Matcher>,
}

/// Parses a selector. The error is a sentence.
pub(crate) fn parse(text: &str) -> Result<Written, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("the selector is longer than {MAX_BYTES} bytes"));
    }
    let mut reader = Reader { text, at: 0 };
    let brace = text.find('{').unwrap_or(text.len());
    let before = text[..brace].trim();
    let mut written = Written {
        profile_type: (!before.is_empty()).then(|| before.to_owned()),
        matchers: Vec::new(),
    };
    reader.at = brace;
    if reader.rest().is_empty() {
        return Ok(written);
    }
    reader.take('{')?;
    reader.blanks();
    while !reader.rest().starts_with('}') {
        if written.matchers.len() == MAX_MATCHERS {
            return Err(format!("the selector has more than {MAX_MATCHERS} matchers"));
        }
        written.matchers.push(reader.matcher()?);
        reader.blanks();
        if !reader.rest().starts_with('}') {
            reader.take(',')?;
            reader.blanks();
        }
    }
    reader.take('}')?;
    reader.blanks();
    match reader.rest() {
        "" => Ok(written),
        _ => Err(reader.wrong("the end")),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn wrong(&self, expected: &str) -> String {
        let place = self.text[..self.at].chars().count() + 1;
        match self.rest().chars().next() {
            Some(found) => format!(
                "expected {expected} at character {place}, found `{}`",
                found.escape_debug()
            ),
            None => format!("expected {expected} at character {place}, but the selector ends there"),
        }
    }

    fn take(&mut self, wanted: char) -> Result<(), String> {
        if !self.rest().starts_with(wanted) {
            return Err(self.wrong(&format!("`{wanted}`")));
        }
        self.at += wanted.len_utf8();
        Ok(())
    }

    fn matcher(&mut self) -> Result<Matcher, String> {
        let name = self.name()?;
        self.blanks();
        let operator = ["=~", "!~", "!=", "="]
            .into_iter()
            .find(|operator| self.rest().starts_with(operator))
            .ok_or_else(|| self.wrong("one of `=`, `!=`, `=~`, `!~`"))?;
        self.at += operator.len();
        self.blanks();
        let value = self.value()?;
        let test = match operator {
            "=" => Test::Is(value),
            "!=" => Test::IsNot(value),
            "=~" => Test::Matches(compile(&name, &value)?),
            _ => Test::MatchesNot(compile(&name, &value)?),
        };
        Ok(Matcher { name, test })
    }

    /// Letters, digits, `_` and `.`, not beginning with a digit.
    fn name(&mut self) -> Result<String, String> {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'))
            .unwrap_or(rest.len());
        let name = &rest[..end];
        if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return Err(self.wrong("a label name"));
        }
        self.at += end;
        Ok(name.to_owned())
    }

    /// Text in `"`, `'` or `` ` ``; in the first two a backslash escapes.
    fn value(&mut self) -> Result<String, String> {
        let quote = match self.rest().chars().next() {
            Some(quote @ ('"' | '\'' | '`')) => quote,
            _ => return Err(self.wrong("a quoted value")),
        };
        self.at += 1;
        let mut value = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.at += at + 1;
                return Ok(value);
            }
            if c != '\\' || quote == '`' {
                value.push(c);
                continue;
            }
            match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, escaped @ ('\\' | '"' | '\'' | '`'))) => value.push(escaped),
                // `\d` and the like reach the regular expression unchanged.
                Some((_, other)) => value.extend(['\\', other]),
                None => break,
            }
        }
        self.at = self.text.len();
        Err(self.wrong(&format!("the closing `{quote}`")))
    }
}

fn compile(name: &str, pattern: &str) -> Result<Regex, String> {
    if pattern.len() > MAX_REGEX_BYTES {
        return Err(format!(
            "the regular expression for `{name}` is longer than {MAX_REGEX_BYTES} bytes"
        ));
    }
    RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(MAX_COMPILED_BYTES)
        .dfa_size_limit(MAX_COMPILED_BYTES)
        .dot_matches_new_line(true)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                format!(
                    "the regular expression for `{name}` needs more than {MAX_COMPILED_BYTES} bytes: use a simpler one"
                )
            }
            // The parser draws a multi-line picture; its last line is the reason.
            error => {
                let text = error.to_string();
                let reason = text
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .trim()
                    .trim_start_matches("error: ");
                format!("invalid regular expression for `{name}`: {reason}")
            }
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn passes(selector: &str, value: &str) -> bool {
        parse(selector).unwrap().matchers.iter().all(|m| m.test.passes(value))
    }

    #[test]
    fn the_four_operators_do_what_they_say() {
        for (selector, passing, failing) in [
            (r#"{a="v1"}"#, "v1", "v2"),
            (r#"{a!="v1"}"#, "v2", "v1"),
            (r#"{a=~"v1|v2"}"#, "v2", "v22"),
            (r#"{a!~"v[12]"}"#, "v3", "v1"),
            (r#"{ a = "x" , b != "y" , }"#, "x", "y"),
            (r#"{a='say "hi"'}"#, "say \"hi\"", "say"),
            (r#"{a="say \"hi\"\n"}"#, "say \"hi\"\n", "say"),
            (r"{a=`\d`}", r"\d", "1"),
            (r#"{a=~"\\d+"}"#, "12", "d"),
            (r#"{a=~"\d+"}"#, "12", "d"),
            ("{a=~\".*\",b!=\"\"}", "\n", ""),
        ] {
            assert!(passes(selector, passing), "{selector} {passing}");
            assert!(!passes(selector, failing), "{selector} {failing}");
        }
    }

    #[test]
    fn a_profile_type_may_stand_in_front() {
        let written = parse(r#"process_cpu:cpu:nanoseconds:cpu:nanoseconds{service_name="a"}"#).unwrap();
        assert_eq!(
            written.profile_type.as_deref(),
            Some("process_cpu:cpu:nanoseconds:cpu:nanoseconds")
        );
        assert_eq!(written.matchers[0].name, "service_name");
        for empty in ["", "{}", " { } "] {
            let written = parse(empty).unwrap();
            assert!(written.profile_type.is_none() && written.matchers.is_empty(), "{empty}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (selector, said) in [
            ("{", "expected a label name at character 2, but the selector ends there"),
            ("{a", "expected one of `=`, `!=`, `=~`, `!~` at character 3"),
            ("{a=b}", "expected a quoted value at character 4, found `b`"),
            ("{a=\"b}", "expected the closing `\"` at character 7"),
            ("{a=\"b\" c=\"d\"}", "expected `,` at character 8, found `c`"),
            ("{a=\"b\"}x", "expected the end at character 8, found `x`"),
            ("{1=\"b\"}", "expected a label name at character 2, found `1`"),
            ("{é=\"b\"}", "found `é`"),
            ("{a=~\"(\"}", "invalid regular expression for `a`: unclosed group"),
            ("{a=~\"(\\\\w{100}){100}\"}", "use a simpler one"),
        ] {
            let error = parse(selector).unwrap_err();
            assert!(error.contains(said), "{selector}: {error}");
        }
        let long = format!("{{a=~\"{}\"}}", "x".repeat(MAX_REGEX_BYTES + 1));
        assert!(parse(&long).unwrap_err().contains("longer than 1024 bytes"));
        assert!(parse(&"x".repeat(MAX_BYTES + 1)).unwrap_err().contains("longer than"));
        let many = format!("{{{}}}", "a=\"b\",".repeat(MAX_MATCHERS + 1));
        assert!(parse(&many).unwrap_err().contains("more than 32 matchers"));
    }

    proptest! {
        #[test]
        fn any_text_is_answered_without_panic(text in "\\PC{0,60}", inner in "[a-c=!~\"'`\\\\{},| .é]{0,40}") {
            let _ = parse(&text);
            let _ = parse(&format!("{{{inner}}}"));
        }

        #[test]
        fn a_quoted_value_comes_back_as_it_was(value in "\\PC{0,30}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let written = parse(&format!("{{a=\"{quoted}\"}}")).unwrap();
            prop_assert!(written.matchers[0].test.passes(&value));
            let Test::Is(read) = &written.matchers[0].test else { panic!() };
            prop_assert_eq!(read, &value);
        }
    }
}
