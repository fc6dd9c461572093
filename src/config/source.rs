//! The structure of other files (a proxy's, the section `scrape`), read from the source code that defines them, for the
//! reference.
//!
//! Guarantee: the reference's description of a key is the documentation of the field that the parser fills; a field
//! without documentation fails a test.
//!
//! Wrong on purpose: it parses the layout that `cargo fmt` produces, not Rust. A test compares the result with a
//! complete configuration.

use std::collections::BTreeMap;

/// A type in the structure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// Keys.
    Struct(Vec<Field>),
    /// Words, as in the file.
    Words(Vec<String>),
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Field {
    pub(super) name: String,
    /// As in Rust.
    pub(super) type_name: String,
    pub(super) help: String,
    /// The function that parses it, if it is not the type's own.
    pub(super) reader: Option<String>,
    /// It is optional.
    pub(super) is_optional: bool,
}

/// The structs and enums of a source file that are parsed from a file, by name.
pub(super) fn items(source: &str) -> BTreeMap<String, Item> {
    let mut found = BTreeMap::new();
    let mut lines = source.lines().peekable();
    let mut attributes = String::new();
    while let Some(line) = lines.next() {
        if line.starts_with("#[") {
            attributes.push_str(line);
            continue;
        }
        let words: Vec<&str> = line.trim_end_matches('{').split_whitespace().collect();
        let name = |kind: &str| {
            let at = words.iter().position(|word| *word == kind)?;
            words
                .get(at + 1)
                .filter(|_| line.ends_with('{') && !line.starts_with(' '))
        };
        if attributes.contains("Deserialize") {
            let all_optional = attributes.contains("default)]") || attributes.contains("(default");
            if let Some(name) = name("struct") {
                let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "}").collect();
                found.insert((*name).to_owned(), Item::Struct(fields(&body, all_optional)));
            } else if let Some(name) = name("enum") {
                let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "}").collect();
                let case = quoted_after(&attributes, "rename_all").unwrap_or_default().to_owned();
                found.insert((*name).to_owned(), Item::Words(variants(&body, &case)));
            }
        }
        if !line.starts_with("///") {
            attributes.clear();
        }
    }
    found
}

/// The quoted text after `name = `.
fn quoted_after<'a>(attributes: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = attributes.split_once(&format!("{name} = \""))?;
    rest.split('"').next()
}

fn fields(body: &[&str], all_optional: bool) -> Vec<Field> {
    let (mut found, mut help, mut attributes) = (Vec::new(), String::new(), String::new());
    for line in body.iter().map(|line| line.trim()) {
        if let Some(text) = line.strip_prefix("///") {
            help.push_str(text);
        } else if line.starts_with("#[") {
            attributes.push_str(line);
        } else if let Some((name, type_name)) = line.trim_end_matches(',').split_once(": ") {
            let name = name.rsplit(' ').next().unwrap_or_default();
            found.push(Field {
                name: quoted_after(&attributes, "rename").unwrap_or(name).to_owned(),
                type_name: type_name.to_owned(),
                help: help.trim().to_owned(),
                reader: quoted_after(&attributes, "deserialize_with").map(str::to_owned),
                is_optional: all_optional || attributes.contains("default"),
            });
            help.clear();
            attributes.clear();
        }
    }
    found
}

fn variants(body: &[&str], case: &str) -> Vec<String> {
    let (mut found, mut attributes) = (Vec::new(), String::new());
    for line in body.iter().map(|line| line.trim()) {
        if line.starts_with("#[") {
            attributes.push_str(line);
        } else if let Some(variant) = line
            .strip_suffix(',')
            .filter(|line| line.starts_with(char::is_uppercase))
        {
            let name = variant.split('(').next().unwrap_or(variant);
            let word = match (quoted_after(&attributes, "rename"), case) {
                (Some(renamed), _) => renamed.to_owned(),
                (None, "lowercase") => name.to_lowercase(),
                (None, "snake_case") => snake_case(name),
                (None, _) => name.to_owned(),
            };
            found.push(if name == variant {
                word
            } else {
                format!("{{{word}: text}}")
            });
            attributes.clear();
        }
    }
    found
}

fn snake_case(name: &str) -> String {
    let mut word = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !word.is_empty() {
            word.push('_');
        }
        word.extend(c.to_lowercase());
    }
    word
}

/// The bounds that functions in a source file pass to `whole`, by the name of the function.
pub(super) fn whole_numbers(source: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut function = "";
    for line in source.lines() {
        if let Some((_, rest)) = line.split_once("fn ") {
            function = rest.split(['<', '(']).next().unwrap_or_default();
        } else if let Some((_, arguments)) = line.split_once("whole(d, ") {
            let mut bounds = arguments.split(", ").map(|bound| bound.replace('_', ""));
            if let (Some(low), Some(high)) = (bounds.next(), bounds.next()) {
                found.insert(function.to_owned(), format!("{} to {}", shifted(&low), shifted(&high)));
            }
        }
    }
    found
}

/// A number, or a shift of one.
fn shifted(text: &str) -> String {
    let shift = text.split_once(" << ");
    let number = shift.and_then(|(number, by)| Some(number.parse::<u64>().ok()? << by.parse::<u32>().ok()?));
    number.map_or_else(|| text.to_owned(), |number| number.to_string())
}
