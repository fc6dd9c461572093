//! Ordering of versions.

use std::cmp::Ordering;

/// Compares versions: runs of digits by value (`v9` before `v10`), the rest as text. The order is total.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    let (mut a_rest, mut b_rest) = (a, b);
    while !a_rest.is_empty() && !b_rest.is_empty() {
        let (a_run, b_run) = (run(a_rest), run(b_rest));
        let digits = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        let order = match (digits(a_run), digits(b_run)) {
            (true, true) => {
                let (a_value, b_value) = (a_run.trim_start_matches('0'), b_run.trim_start_matches('0'));
                a_value.len().cmp(&b_value.len()).then_with(|| a_value.cmp(b_value))
            }
            _ => a_run.cmp(b_run),
        };
        if order != Ordering::Equal {
            return order;
        }
        a_rest = &a_rest[a_run.len()..];
        b_rest = &b_rest[b_run.len()..];
    }
    // Equal by value: the text decides, so that the order is total.
    a_rest.len().cmp(&b_rest.len()).then_with(|| a.cmp(b))
}

/// The leading characters that are all digits or all non-digits.
fn run(text: &str) -> &str {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_compare_as_people_read_them() {
        let mut versions = [
            "v10", "v9", "v9.10", "v9.9", "1", "v2", "v02", "2024.10", "2024.9", "1.2.1", "1.2",
        ];
        versions.sort_by(|a, b| compare_versions(a, b));
        assert_eq!(
            versions,
            [
                "1", "1.2", "1.2.1", "2024.9", "2024.10", "v02", "v2", "v9", "v9.9", "v9.10", "v10"
            ]
        );
    }

    proptest! {
        #[test]
        fn comparing_versions_is_a_total_order(a in "[v0-9.é]{0,6}", b in "[v0-9.é]{0,6}", c in "[v0-9.é]{0,6}") {
            prop_assert_eq!(compare_versions(&a, &b), compare_versions(&b, &a).reverse());
            prop_assert_eq!(compare_versions(&a, &b) == Ordering::Equal, a == b);
            if compare_versions(&a, &b).is_le() && compare_versions(&b, &c).is_le() {
                prop_assert!(compare_versions(&a, &c).is_le());
            }
        }
    }
}
