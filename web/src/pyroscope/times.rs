//! Points in time as written by clients of the Pyroscope API.

use emberline_storage::Range;

use crate::{
    http::error::{ApiError, shorten},
    query::times,
};

/// Parses `now-1h`, an epoch in seconds, milliseconds, microseconds or nanoseconds (distinguished by size), or a day
/// `YYYYMMDD` (UTC), to seconds.
pub(super) fn parse(name: &str, text: &str, now_unix_ns: i64) -> Result<f64, ApiError> {
    let bad = |why: String| ApiError::bad_request("bad_time", format!("`{name}={}`: {why}", shorten(text)));
    let digits = !text.is_empty() && text.len() <= 19 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits {
        return times::parse(text, now_unix_ns).map_err(bad);
    }
    let number: u64 = text.parse().map_err(|_| bad("it is too large".to_owned()))?;
    if text.len() == 8 {
        return day(number).ok_or_else(|| bad("no such day; use YYYYMMDD".to_owned()));
    }
    // 10^11 seconds are in the year 5138, 10^11 milliseconds in 1973: sizes do not overlap for the years stored.
    let per_second = match text.len() {
        0..=11 => 1.0,
        12..=14 => 1e3,
        15..=17 => 1e6,
        _ => 1e9,
    };
    Ok(number as f64 / per_second)
}

/// The first second of a day `YYYYMMDD`.
fn day(number: u64) -> Option<f64> {
    let (year, month, day) = (number / 10_000, number / 100 % 100, number % 100);
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1970..=2105).contains(&year) || day == 0 || day > days {
        return None;
    }
    Some(days_from_civil(year, month, day) as f64 * 86_400.0)
}

/// Days from 1970-01-01 to a day of the Gregorian calendar: whole years with their leap days, whole months, days.
fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    const BEFORE_MONTH: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let is_leap = leap_days(year) > leap_days(year - 1);
    let leap_day = u64::from(is_leap && month > 2);
    (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969) + BEFORE_MONTH[month as usize - 1] + leap_day + day - 1
}

/// A range in milliseconds; nothing given means everything.
pub(super) fn range_ms(start: i64, end: i64) -> Result<Range, ApiError> {
    if start == 0 && end == 0 {
        return Ok(Range::ALL);
    }
    range_s(start as f64 / 1e3, end as f64 / 1e3)
}

/// A range in seconds, rounded outwards.
pub(super) fn range_s(from: f64, to: f64) -> Result<Range, ApiError> {
    let last = Range::ALL.to_unix_s as f64;
    let range = Range {
        from_unix_s: from.floor().clamp(0.0, last) as i64,
        to_unix_s: to.ceil().clamp(0.0, last) as i64,
    };
    // Before rounding: reversed times may be within the same second.
    if from > to || range.from_unix_s >= range.to_unix_s {
        let message = format!("the start ({from}) must be before the end ({to}); both are Unix seconds");
        return Err(ApiError::bad_request("bad_range", message));
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_the_interface_parse() {
        let now = 1_800_000_000 * 1_000_000_000;
        for (text, expected) in [
            ("now", 1_800_000_000.0),
            ("now-1h", 1_799_996_400.0),
            ("1700000000", 1_700_000_000.0),
            ("1700000000123", 1_700_000_000.123),
            ("1700000000123456", 1_700_000_000.123_456),
            ("1700000000000000000", 1_700_000_000.0),
            ("20240229", 1_709_164_800.0),
            ("19700101", 0.0),
        ] {
            assert_eq!(parse("from", text, now).unwrap(), expected, "{text}");
        }
        for text in [
            "20230229",
            "20241301",
            "20240100",
            "yesterday",
            "",
            "-1",
            "99999999999999999999",
        ] {
            assert_eq!(parse("from", text, now).unwrap_err().code, "bad_time", "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn text_and_numbers_of_any_kind_are_a_range_or_refused(
            text in "\\PC{0,12}|[0-9]{1,20}|(19|20|21)[0-9]{6}|now[+-][0-9]{0,30}(s|d)",
            start in proptest::prelude::any::<i64>(),
            end in proptest::prelude::any::<i64>(),
        ) {
            if let Ok(seconds) = parse("from", &text, 1_800_000_000 * 1_000_000_000) {
                proptest::prop_assert!(seconds.is_finite() && seconds >= 0.0, "{seconds}");
            }
            for (from, until) in [(start, end), (start % 4_000_000_000_000, end % 4_000_000_000_000)] {
                if let Ok(range) = range_ms(from, until) {
                    let all = Range::ALL;
                    proptest::prop_assert!(range.from_unix_s >= all.from_unix_s && range.to_unix_s <= all.to_unix_s);
                    proptest::prop_assert!(range.from_unix_s < range.to_unix_s);
                }
            }
        }
    }
}
