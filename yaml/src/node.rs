//! A file as a tree in which every value and key knows its position.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use serde_saphyr::{Location, Spanned};

/// A value and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Line, from 1; for an alias, that of the alias.
    pub line: usize,
    pub(crate) column: usize,
    /// The value.
    pub value: Value,
}

/// A value in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Text, a number or `true`, as text.
    Scalar(String),
    /// A list.
    List(Vec<Node>),
    /// Keys and values, in the file's order.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Line of the key, from 1.
    pub line: usize,
    pub(crate) column: usize,
    /// Its value.
    pub value: Node,
}

impl Node {
    /// The line of a path such as `outbound[2].listen`: that of a key, or of an element of a list. If it does not
    /// exist, the line of the last part of the path that does.
    pub fn line_of(&self, path: &str) -> usize {
        let (mut here, mut line) = (self, self.line);
        for step in path.split(['.', '[']) {
            let next = match (step.strip_suffix(']'), &here.value) {
                (Some(index), Value::List(list)) => {
                    let element = index.parse().ok().and_then(|index: usize| list.get(index));
                    element.map(|element| (element.line, element))
                }
                (None, Value::Map(entries)) => {
                    let entry = entries.iter().find(|entry| entry.key == step);
                    entry.map(|entry| (entry.line, &entry.value))
                }
                _ => None,
            };
            let Some(next) = next else { break };
            (line, here) = next;
        }
        line
    }

    /// The path of the value, or of the value whose key, begins at a position; empty for the whole file and if nothing
    /// begins there.
    pub(crate) fn path_at(&self, place: (usize, usize)) -> String {
        let mut path = String::new();
        self.find(place, &mut path);
        path
    }

    /// The path of the map in which a key is missing, from the position that the parser reports: where the map begins,
    /// or the last key that it read there.
    pub(crate) fn map_at(&self, place: (usize, usize)) -> String {
        let mut path = String::new();
        if self.find(place, &mut path) == Some(Found::Key) {
            let parent = path.rfind('.').unwrap_or(0);
            path.truncate(parent);
        }
        path
    }

    fn find(&self, place: (usize, usize), path: &mut String) -> Option<Found> {
        if (self.line, self.column) == place {
            return Some(Found::Value);
        }
        let length = path.len();
        match &self.value {
            Value::Null | Value::Scalar(_) => {}
            Value::List(list) => {
                for (index, element) in list.iter().enumerate() {
                    path.push_str(&format!("[{index}]"));
                    let found = element.find(place, path);
                    if found.is_some() {
                        return found;
                    }
                    path.truncate(length);
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    if length > 0 {
                        path.push('.');
                    }
                    path.push_str(&entry.key);
                    if (entry.line, entry.column) == place {
                        return Some(Found::Key);
                    }
                    let found = entry.value.find(place, path);
                    if found.is_some() {
                        return found;
                    }
                    path.truncate(length);
                }
            }
        }
        None
    }
}

/// What begins at a position.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Value,
    Key,
}

/// Line and column, from 1.
pub(crate) fn place(location: Location) -> (usize, usize) {
    let number = |of: u64| usize::try_from(of).unwrap_or(usize::MAX).max(1);
    (number(location.line()), number(location.column()))
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        let read = Spanned::<Value>::deserialize(deserializer)?;
        let (line, column) = place(read.referenced);
        Ok(Node {
            line,
            column,
            value: read.value,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

/// Visits of scalars, which keep their text.
macro_rules! scalars {
    ($($visit:ident: $type:ty => $text:expr;)+) => {
        $(
            fn $visit<E: de::Error>(self, value: $type) -> Result<Value, E> {
                let text: fn($type) -> String = $text;
                Ok(Value::Scalar(text(value)))
            }
        )+
    };
}

impl<'de> de::Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    scalars! {
        visit_bool: bool => |flag| flag.to_string();
        visit_i64: i64 => |number| number.to_string();
        visit_u64: u64 => |number| number.to_string();
        visit_i128: i128 => |number| number.to_string();
        visit_u128: u128 => |number| number.to_string();
        visit_f64: f64 => |number| format!("{number:?}");
        visit_str: &str => str::to_owned;
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let (line, column) = place(key.referenced);
            entries.push(Entry {
                key: key.value,
                line,
                column,
                value: map.next_value()?,
            });
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_both_styles_wherever_their_text_stands_before() {
        let text = "# store: no\nweb: {listen: 'store', max_questions: 3}\nstore:\n  # min_free_mb: 1\n  query_threads: 2\n\n  min_free_mb: 9\n\
                    retention:\n  min_free_mb: 4\nlist:\n  - a: 1\n    b: 2\n  -\n    a: [x,\n      {c: 0}]\n";
        let file: Node = crate::from_str(text).unwrap();
        for (path, line) in [
            ("web.listen", 2),
            ("store", 3),
            ("store.query_threads", 5),
            ("store.min_free_mb", 7),
            ("retention.min_free_mb", 9),
            ("store.absent", 3),
            ("absent", 2),
            ("list[0].b", 12),
            ("list[1]", 14),
            ("list[1].a[0]", 14),
            ("list[1].a[1].c", 15),
            ("list[7].a", 10),
            ("web.listen[0]", 2),
        ] {
            assert_eq!(file.line_of(path), line, "{path}");
        }
        assert_eq!(file.path_at((12, 8)), "list[0].b");
        assert_eq!(file.path_at((1, 1)), "");
    }

    #[test]
    fn scalars_keep_their_text_and_aliases_their_place() {
        let file: Node =
            crate::from_str("a: &x 007\nb: 1_000\nc: 0x10\nd: .inf\ne: yes\nf: *x\ng:\nh: 1.50\n").unwrap();
        let Value::Map(entries) = &file.value else { panic!() };
        let of = |node: &Node| match &node.value {
            Value::Scalar(text) => text.clone(),
            other => format!("{other:?}"),
        };
        let texts: Vec<String> = entries.iter().map(|entry| of(&entry.value)).collect();
        assert_eq!(texts, ["007", "1_000", "16", ".inf", "yes", "007", "Null", "1.5"]);
        assert_eq!(entries[5].value.line, 6);
    }
}
