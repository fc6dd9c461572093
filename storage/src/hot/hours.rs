//! Hours of data: each has its own tables, so that old ones can be dropped whole and questions read only the hours they
//! need.

/// Seconds of an hour.
pub(crate) const HOUR_S: i64 = 3600;
/// Hours in a quarter of a day; the first quarter begins at midnight UTC.
pub(crate) const QUARTER_HOURS: u32 = 6;
/// Seconds of a quarter of a day.
pub(crate) const QUARTER_S: i64 = QUARTER_HOURS as i64 * HOUR_S;

/// The hour (since the Unix epoch) that contains a second.
pub(crate) fn hour_of(unix_s: u32) -> u32 {
    unix_s / HOUR_S as u32
}

/// The suffix of an hour's table names, `YYYYMMDDHH`.
pub(crate) fn name_of(hour: u32) -> String {
    let (year, month, day) = civil_from_days(i64::from(hour / 24));
    format!("{year:04}{month:02}{day:02}{:02}", hour % 24)
}

/// An hour in readable form, `YYYY-MM-DD HH:00`.
pub(crate) fn written(hour: u32) -> String {
    let (year, month, day) = civil_from_days(i64::from(hour / 24));
    format!("{year:04}-{month:02}-{day:02} {:02}:00", hour % 24)
}

/// Parses an hour from a name.
pub(crate) fn from_name(name: &str) -> Option<u32> {
    if name.len() != 10 || !name.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = |range: std::ops::Range<usize>| name[range].parse::<i64>().ok();
    let days = days_from_civil(part(0..4)?, part(4..6)?, part(6..8)?);
    u32::try_from(days * 24 + part(8..10)?)
        .ok()
        .filter(|&hour| name_of(hour) == name)
}

/// Proleptic Gregorian date of a day number since 1970-01-01. Source: Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms".
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil_from_days`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_dates() {
        assert_eq!(name_of(0), "1970010100");
        assert_eq!(name_of(hour_of(1_795_231_839)), "2026112103");
        assert_eq!(name_of(hour_of(1_709_210_000)), "2024022912");
        for bad in ["", "2026112124", "2026023000", "20261121", "x026112103"] {
            assert_eq!(from_name(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn names_round_trip(hour in 0u32..=u32::MAX / 3600) {
            prop_assert_eq!(from_name(&name_of(hour)), Some(hour));
        }
    }
}
