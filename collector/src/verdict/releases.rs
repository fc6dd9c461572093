//! Which two releases of a service are compared: the newest and the one before it.

use std::cmp::Ordering;

/// When a release was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) version: String,
    pub(super) first_seen_s: i64,
    pub(super) last_seen_s: i64,
}

/// A baseline and a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) baseline: Seen,
    pub(super) candidate: Seen,
}

/// The newest release and the one before it, by the time they were first seen; releases that appeared in the same
/// window are ordered as people number versions.
pub(super) fn newest_pair(mut releases: Vec<Seen>) -> Option<Pair> {
    releases.sort_by(|a, b| {
        a.first_seen_s
            .cmp(&b.first_seen_s)
            .then_with(|| natural_order(&a.version, &b.version))
    });
    let candidate = releases.pop()?;
    let baseline = releases.pop()?;
    Some(Pair { baseline, candidate })
}

/// Compares texts with numbers in them by the numbers: `v9` comes before `v10`.
fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (digits_a, digits_b) = (leading_digits(a), leading_digits(b));
        if digits_a > 0 && digits_b > 0 {
            let (x, y) = (
                a[..digits_a].trim_start_matches('0'),
                b[..digits_b].trim_start_matches('0'),
            );
            let order = x.len().cmp(&y.len()).then_with(|| x.cmp(y));
            if order != Ordering::Equal {
                return order;
            }
            (a, b) = (&a[digits_a..], &b[digits_b..]);
            continue;
        }
        let (mut rest_a, mut rest_b) = (a.chars(), b.chars());
        match (rest_a.next(), rest_b.next()) {
            (Some(x), Some(y)) if x == y => (a, b) = (rest_a.as_str(), rest_b.as_str()),
            (x, y) => return x.cmp(&y),
        }
    }
}

fn leading_digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(version: &str, first_seen_s: i64) -> Seen {
        Seen {
            version: version.into(),
            first_seen_s,
            last_seen_s: 100,
        }
    }

    #[test]
    fn the_newest_is_judged_against_the_one_before() {
        let pair = newest_pair(vec![seen("b", 30), seen("a", 40), seen("c", 10)]).unwrap();
        assert_eq!(
            (pair.baseline.version.as_str(), pair.candidate.version.as_str()),
            ("b", "a")
        );
        assert_eq!(newest_pair(vec![seen("a", 0)]), None);
        let tied = newest_pair(vec![seen("v10", 0), seen("v9", 0), seen("v8", 0)]).unwrap();
        assert_eq!(
            (tied.baseline.version.as_str(), tied.candidate.version.as_str()),
            ("v9", "v10")
        );
    }

    #[test]
    fn versions_are_ordered_as_people_number_them() {
        for (less, more) in [
            ("v1", "v2"),
            ("v9", "v10"),
            ("1.2.9", "1.2.10"),
            ("1.2", "1.2.1"),
            ("2024.9", "2024.10"),
            ("a", "b"),
            ("é1", "é2"),
        ] {
            assert_eq!(natural_order(less, more), Ordering::Less, "{less} {more}");
            assert_eq!(natural_order(more, less), Ordering::Greater, "{less} {more}");
        }
        assert_eq!(natural_order("v01", "v1"), Ordering::Equal);
    }
}
