//! Application names as Pyroscope's older clients write them: `shop.cpu{version=v2,region="eu"}`.
//!
//! Guarantees: any other form is an error that quotes the name; the suffix is removed only if it is a known kind of
//! profile, so a service may have dots in its name.

use super::{DEFAULT_RATE_HZ, Units};

/// The most labels of a name.
const MAX_LABELS: usize = 64;

/// A parsed application name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppName {
    /// The application, without the kind of profile.
    pub application: String,
    /// The kind of profile at its end, if any.
    pub kind: Option<String>,
    /// The labels in braces.
    pub labels: Vec<(String, String)>,
}

/// The name does not have this form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not of the form `application{{label=value,...}}`")]
pub struct InvalidAppName(String);

impl std::str::FromStr for AppName {
    type Err = InvalidAppName;

    fn from_str(text: &str) -> Result<AppName, InvalidAppName> {
        let wrong = || InvalidAppName(text.chars().take(80).collect());
        let (name, braces) = match text.split_once('{') {
            Some((name, rest)) => (name, rest.trim_end().strip_suffix('}').ok_or_else(wrong)?),
            None => (text, ""),
        };
        let name = name.trim();
        let (application, kind) = match name.rsplit_once('.') {
            Some((application, kind)) if Units::of_kind(kind, DEFAULT_RATE_HZ).is_some() => (application, Some(kind)),
            _ => (name, None),
        };
        if application.is_empty() {
            return Err(wrong());
        }
        let mut labels = Vec::new();
        for label in braces.split(',').map(str::trim).filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once('=').ok_or_else(wrong)?;
            if labels.len() >= MAX_LABELS {
                return Err(wrong());
            }
            labels.push((key.trim().to_owned(), value.trim().trim_matches('"').to_owned()));
        }
        Ok(AppName {
            application: application.to_owned(),
            kind: kind.map(str::to_owned),
            labels,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let name: AppName = "shop.eu.cpu{version=v2, region=\"eu\"}".parse().unwrap();
        assert_eq!(name.application, "shop.eu");
        assert_eq!(name.kind.as_deref(), Some("cpu"));
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(name.labels, [pair("version", "v2"), pair("region", "eu")]);
        let plain: AppName = "shop.eu".parse().unwrap();
        assert_eq!((plain.application.as_str(), plain.kind), ("shop.eu", None));
        for wrong in ["", "{a=b}", "shop{a", "shop{a}", ".cpu"] {
            assert!(
                wrong
                    .parse::<AppName>()
                    .unwrap_err()
                    .to_string()
                    .contains("is not of the form"),
                "{wrong}"
            );
        }
    }

    proptest! {
        #[test]
        fn text_of_any_kind_is_refused_or_named_by_its_own_words(text in "[a-z.{}=,\" é]{0,40}") {
            if let Ok(name) = text.parse::<AppName>() {
                prop_assert!(!name.application.is_empty() && text.contains(&name.application), "{:?}", name);
                let words = name.labels.iter().flat_map(|(key, value)| [key, value]).chain(&name.kind);
                for word in words {
                    prop_assert!(text.contains(word.as_str()), "{:?}", name);
                }
            }
        }
    }
}
