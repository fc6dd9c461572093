//! Values of settings: how each type is read from the file and from text, and written.
//!
//! Guarantee: what is written is read as the same value again.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use emberline_model::function::OwnCode;
use serde_yaml_ng::Value;

/// A type that a setting may have.
pub(crate) trait Setting: Sized {
    /// Its name in the reference.
    const TYPE: &'static str;
    /// What separates values in one text; none where there is one value.
    const SEPARATOR: Option<char> = None;

    /// Of a value of the file; the error says what should be written.
    fn from_yaml(value: &Value) -> Result<Self, String>;

    /// Of a variable of the environment, or of a flag with all its values.
    fn from_texts(texts: &[String]) -> Result<Self, String>;

    /// As the file has it, in one line.
    fn show(&self) -> String;

    /// The number that bounds are about.
    fn number(&self) -> Option<f64> {
        None
    }
}

fn last(texts: &[String]) -> &str {
    texts.last().map_or("", String::as_str)
}

/// Text as YAML and JSON write it.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A value of the file in words, for errors.
fn said(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) | Value::Tagged(_) => "keys and values".to_owned(),
        scalar => format!("`{}`", scalar_text(scalar).unwrap_or_default()),
    }
}

fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// A value that is one word of text.
macro_rules! from_text {
    ($type:ty, $name:literal, $expected:literal, $show:expr, $number:expr) => {
        impl Setting for $type {
            const TYPE: &'static str = $name;

            fn from_yaml(value: &Value) -> Result<$type, String> {
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

/// A setting that may be left out; `null` and an empty text leave it out.
impl<T: Setting> Setting for Option<T> {
    const TYPE: &'static str = T::TYPE;

    fn from_yaml(value: &Value) -> Result<Option<T>, String> {
        match value {
            Value::Null => Ok(None),
            value => T::from_yaml(value).map(Some),
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

    fn from_yaml(value: &Value) -> Result<Vec<String>, String> {
        let list = value.as_sequence();
        let texts = list.and_then(|list| list.iter().map(scalar_text).collect());
        texts.ok_or_else(|| format!("{} is not a list of text: write for example `[a, b]`", said(value)))
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

    fn from_yaml(value: &Value) -> Result<OwnCode, String> {
        let lists: BTreeMap<String, Vec<String>> = serde_yaml_ng::from_value(value.clone()).map_err(|_| {
            format!(
                "{} is not prefixes by service: write for example `{{checkout: [io.shop., src/]}}`",
                said(value)
            )
        })?;
        let texts: Vec<String> = lists
            .iter()
            .map(|(service, prefixes)| format!("{service}={}", prefixes.join(",")))
            .collect();
        OwnCode::parse(texts.iter().map(String::as_str))
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
