//! Values of settings: how each type is parsed from the file and from text, and written.
//!
//! Guarantee: a written value is parsed as the same value.

use std::{net::SocketAddr, path::PathBuf};

use emberline_model::function::OwnCode;
use emberline_yaml::{Node, Value};

/// A type that a setting may have.
pub(crate) trait Setting: Sized {
    /// Its name in the reference.
    const TYPE: &'static str;
    /// Separates several values in one text; none for a single value.
    const SEPARATOR: Option<char> = None;

    /// From a value in the file; the error says what to write.
    fn from_yaml(value: &Node) -> Result<Self, String>;

    /// From an environment variable, or from a flag with all its values.
    fn from_texts(texts: &[String]) -> Result<Self, String>;

    /// As in the file, on one line.
    fn show(&self) -> String;

    /// The number to check against the bounds.
    fn number(&self) -> Option<f64> {
        None
    }
}

fn last(texts: &[String]) -> &str {
    texts.last().map_or("", String::as_str)
}

/// Text in YAML and JSON syntax.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A value in the file, described for errors.
fn said(value: &Node) -> String {
    match &value.value {
        Value::Null => "nothing".to_owned(),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "keys and values".to_owned(),
        Value::Scalar(text) => format!("`{text}`"),
    }
}

fn scalar_text(value: &Node) -> Option<String> {
    match &value.value {
        Value::Scalar(text) => Some(text.clone()),
        _ => None,
    }
}

fn texts(value: &Node) -> Option<Vec<String>> {
    match &value.value {
        Value::List(list) => list.iter().map(scalar_text).collect(),
        _ => None,
    }
}

/// A value that is one word of text.
macro_rules! from_text {
    ($type:ty, $name:literal, $expected:literal, $show:expr, $number:expr) => {
        impl Setting for $type {
            const TYPE: &'static str = $name;

            fn from_yaml(value: &Node) -> Result<$type, String> {
                let text = scalar_text(value).and_then(|text| text.parse().ok());
                text.ok_or_else(|| format!("{} is not {}", said(value), $expected))
            }

            fn from_texts(texts: &[String]) -> Result<$type, String> {
                let text = last(texts).trim();
                text.parse().map_err(|_| format!("`{text}` is not {}", $expected))
            }

            fn show(&self) -> String {
                let show: fn(&$type) -> String = $show;
                show(self)
            }

            fn number(&self) -> Option<f64> {
                let number: fn(&$type) -> Option<f64> = $number;
                number(self)
            }
        }
    };
}

from_text!(u64, "whole number", "a whole number", u64::to_string, |n| Some(
    *n as f64
));
from_text!(f64, "number", "a number", |n| format!("{n:?}"), |n| Some(*n));
from_text!(bool, "true or false", "`true` or `false`", bool::to_string, |_| None);
from_text!(String, "text", "text", |text| quoted(text), |_| None);
from_text!(
    SocketAddr,
    "address",
    "an IP address with a port, such as `127.0.0.1:4040`",
    |address| quoted(&address.to_string()),
    |_| None
);
from_text!(
    PathBuf,
    "path",
    "a path",
    |path| quoted(&path.to_string_lossy()),
    |_| None
);

/// An optional setting; `null` and empty text mean unset.
impl<T: Setting> Setting for Option<T> {
    const TYPE: &'static str = T::TYPE;

    fn from_yaml(value: &Node) -> Result<Option<T>, String> {
        match value.value {
            Value::Null => Ok(None),
            _ => T::from_yaml(value).map(Some),
        }
    }

    fn from_texts(texts: &[String]) -> Result<Option<T>, String> {
        match last(texts).trim().is_empty() {
            true => Ok(None),
            false => T::from_texts(texts).map(Some),
        }
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "null".to_owned(), T::show)
    }

    fn number(&self) -> Option<f64> {
        self.as_ref().and_then(T::number)
    }
}

impl Setting for Vec<String> {
    const TYPE: &'static str = "list of text";
    const SEPARATOR: Option<char> = Some(',');

    fn from_yaml(value: &Node) -> Result<Vec<String>, String> {
        texts(value).ok_or_else(|| format!("{} is not a list of text: use, for example, `[a, b]`", said(value)))
    }

    fn from_texts(texts: &[String]) -> Result<Vec<String>, String> {
        let parts = texts.iter().flat_map(|text| text.split(','));
        Ok(parts
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect())
    }

    fn show(&self) -> String {
        let texts: Vec<String> = self.iter().map(|text| quoted(text)).collect();
        format!("[{}]", texts.join(", "))
    }
}

impl Setting for OwnCode {
    const TYPE: &'static str = "lists of text by service";
    const SEPARATOR: Option<char> = Some(';');

    fn from_yaml(value: &Node) -> Result<OwnCode, String> {
        let lists: Option<Vec<String>> = match &value.value {
            Value::Map(entries) => entries
                .iter()
                .map(|entry| Some(format!("{}={}", entry.key, texts(&entry.value)?.join(","))))
                .collect(),
            _ => None,
        };
        let lists = lists.ok_or_else(|| {
            format!(
                "{} does not map services to prefixes: use, for example, `{{checkout: [io.shop., src/]}}`",
                said(value)
            )
        })?;
        OwnCode::parse(lists.iter().map(String::as_str))
    }

    fn from_texts(texts: &[String]) -> Result<OwnCode, String> {
        let parts = texts.iter().flat_map(|text| text.split(';'));
        OwnCode::parse(parts.map(str::trim).filter(|part| !part.is_empty()))
    }

    fn show(&self) -> String {
        let lists: Vec<String> = self
            .services()
            .iter()
            .map(|(service, prefixes)| format!("{}: {}", quoted(service), prefixes.show()))
            .collect();
        format!("{{{}}}", lists.join(", "))
    }
}
