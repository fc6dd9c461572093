//! Suggestions for unknown names.

/// The most suggestions, so that a message stays readable however many names exist.
const SUGGESTIONS: usize = 5;

/// The known names nearest to `wanted`, best first; each once.
pub(crate) fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let lower = wanted.to_lowercase();
    let mut scored: Vec<(f64, &str)> = known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&lower, &name.to_lowercase()), name))
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.dedup_by(|a, b| a.1 == b.1);
    scored.truncate(SUGGESTIONS);
    scored.into_iter().map(|s| s.1).collect()
}

/// `; nearest known: a, b`, or `; none are known` if there are none.
pub(crate) fn suggestion<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let near = nearest(wanted, known);
    if near.is_empty() {
        return "; none are known".to_owned();
    }
    let quoted: Vec<String> = near.iter().map(|name| format!("`{name}`")).collect();
    format!("; nearest known: {}", quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_comes_first_and_once() {
        assert_eq!(
            nearest("chekout", ["cart", "checkout", "checkout", "payment"])[0],
            "checkout"
        );
        assert_eq!(nearest("CART", ["payment", "cart"]), ["cart", "payment"]);
        assert_eq!(suggestion("x", []), "; none are known");
    }
}
