//! Points in time as written by people and programs. Guarantee: one query has one `now`.

/// The last second a store can hold: windows are stored as unsigned 32 bit seconds.
const LAST_SECOND: f64 = u32::MAX as f64;

/// Seconds since the Unix epoch of `now`, `now-15m` (s, m, h, d; also `now+1m`), or a whole or decimal number of
/// seconds. The error is a sentence that says what is accepted.
pub(crate) fn parse(text: &str, now_unix_ns: i64) -> Result<f64, String> {
    let now = now_unix_ns as f64 / 1e9;
    let seconds = match text.strip_prefix("now") {
        Some("") => now,
        Some(offset) => now + parse_offset(offset)?,
        None => parse_number(text).ok_or_else(unreadable)?,
    };
    if !(0.0..=LAST_SECOND).contains(&seconds) {
        return Err("the time is outside 1970..2106; use Unix seconds, not milliseconds".to_owned());
    }
    Ok(seconds)
}

fn parse_offset(offset: &str) -> Result<f64, String> {
    let sign = match offset.as_bytes().first() {
        Some(b'-') => -1.0,
        Some(b'+') => 1.0,
        _ => return Err(unreadable()),
    };
    let unit = match offset.as_bytes().last() {
        Some(b's') => 1.0,
        Some(b'm') => 60.0,
        Some(b'h') => 3_600.0,
        Some(b'd') => 86_400.0,
        _ => return Err(unreadable()),
    };
    let number = offset
        .get(1..offset.len() - 1)
        .and_then(parse_number)
        .ok_or_else(unreadable)?;
    Ok(sign * number * unit)
}

/// Digits with at most one dot; no sign, exponent, `inf` or `nan`.
fn parse_number(text: &str) -> Option<f64> {
    let plain = !text.is_empty() && text.len() <= 32 && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if plain { text.parse().ok() } else { None }
}

fn unreadable() -> String {
    "use Unix seconds (`1767225600`, `1767225600.5`), `now`, or `now-15m` (s, m, h, d)".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_forms_parse() {
        let now = 1_000_000 * 1_000_000_000;
        for (text, expected) in [
            ("now", 1_000_000.0),
            ("now-15m", 999_100.0),
            ("now-1h", 996_400.0),
            ("now-1d", 913_600.0),
            ("now+5s", 1_000_005.0),
            ("12", 12.0),
            ("12.5", 12.5),
        ] {
            assert_eq!(parse(text, now), Ok(expected), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let now = 1_000_000 * 1_000_000_000;
        for text in [
            "",
            "yesterday",
            "now-",
            "now-5",
            "now-5y",
            "now5m",
            "-1",
            "1e9",
            "nan",
            "inf",
            "1.2.3",
            "now-é",
            "now-99999999d",
            "1767225600000",
        ] {
            assert!(parse(text, now).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn text_of_any_kind_is_a_time_that_is_stored_or_refused(
            text in "\\PC{0,12}|now[+-][0-9.]{0,40}(s|m|h|d|\\PC)|[0-9.]{0,40}",
            now in proptest::prelude::any::<i64>(),
        ) {
            if let Ok(seconds) = parse(&text, now) {
                proptest::prop_assert!((0.0..=LAST_SECOND).contains(&seconds), "{seconds}");
            }
        }
    }
}
