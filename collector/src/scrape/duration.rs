//! Durations in Prometheus syntax: `15s`, `1m30s`, `500ms`.
//!
//! Guarantee: parsing is exact; units are in descending order and occur at most once, as in Prometheus.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, de};

const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Parses a duration.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration: use, for example, `15s`, `1m30s` or `500ms`");
    let (mut rest, mut milliseconds, mut next_unit) = (text, 0u64, 0);
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let at = UNITS.iter().position(|(unit, _)| *unit == &rest[..letters]);
        let at = at.filter(|at| *at >= next_unit).ok_or_else(wrong)?;
        rest = &rest[letters..];
        next_unit = at + 1;
        let part = number.checked_mul(UNITS[at].1).ok_or_else(wrong)?;
        milliseconds = milliseconds.checked_add(part).ok_or_else(wrong)?;
    }
    if text.is_empty() {
        return Err(wrong());
    }
    Ok(Duration::from_millis(milliseconds))
}

/// For `deserialize_with`: a duration from 100 ms to a day.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Text;
    impl de::Visitor<'_> for Text {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a duration such as `15s`")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            let read = parse(text).map_err(E::custom)?;
            if (Duration::from_millis(100)..=Duration::from_secs(24 * 3600)).contains(&read) {
                Ok(read)
            } else {
                Err(E::custom(format!("`{text}` is out of range: use 100ms to 1d")))
            }
        }
    }
    deserializer.deserialize_str(Text)
}

/// The same for an optional key.
pub(super) fn read_some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    #[derive(Deserialize)]
    struct Read(#[serde(deserialize_with = "read")] Duration);
    Ok(Some(Read::deserialize(deserializer)?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_as_prometheus_writes_them() {
        for (text, milliseconds) in [
            ("15s", 15_000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("1h1ms", 3_600_001),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for wrong in [
            "",
            "15",
            "s",
            "-1s",
            "1.5s",
            "1s1m",
            "1s1s",
            "1x",
            "99999999999999999999s",
            "9999999999y",
            "1 s",
            "ä",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn text_of_any_kind_is_read_or_refused(text in "([0-9]{0,21}(y|w|d|h|m|s|ms|\\PC)){0,4}") {
            if let Ok(read) = parse(&text) {
                // Milliseconds are the smallest unit, and can express the same.
                proptest::prop_assert_eq!(parse(&format!("{}ms", read.as_millis())), Ok(read));
            }
        }
    }
}
