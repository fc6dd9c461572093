//! Sums in SQL that stop at the largest number of their type instead of failing: the engine adds up in wider numbers.

/// An expression as a saturating `UBIGINT`.
macro_rules! saturated_u64 {
    ($of:expr) => {
        concat!("CAST(least(", $of, ", 18446744073709551615) AS UBIGINT)")
    };
}

/// An expression as a saturating `BIGINT`.
macro_rules! saturated_i64 {
    ($of:expr) => {
        concat!("CAST(least(", $of, ", 9223372036854775807) AS BIGINT)")
    };
}

pub(crate) use {saturated_i64, saturated_u64};

#[cfg(test)]
mod tests {
    #[test]
    fn the_bounds_are_those_of_the_types() {
        let (signed, unsigned) = (saturated_i64!("x"), saturated_u64!("x"));
        assert_eq!(signed, format!("CAST(least(x, {}) AS BIGINT)", i64::MAX));
        assert_eq!(unsigned, format!("CAST(least(x, {}) AS UBIGINT)", u64::MAX));
    }
}
