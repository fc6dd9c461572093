//! Where a key stands in the text of a file, and which name was meant.
//!
//! Wrong on purpose: lines are found by looking for the key below its section, since the parser does not keep them; where a file
//! holds the same word twice in a section, the first one is named.

/// The line, from 1, of a key in a section, or of the section where the key is not found; 1 when neither is.
pub(super) fn line_of(text: &str, section: &str, key: Option<&str>) -> usize {
    let is_of_section = |line: &str| holds_key(line, section) && !line.starts_with([' ', '\t', '#']);
    let Some(begin) = text.lines().position(is_of_section) else {
        return 1;
    };
    let Some(key) = key else { return begin + 1 };
    let ends = |line: &&str| !line.is_empty() && !line.starts_with([' ', '\t', '#', '}', ']', '-']);
    let rest = text.lines().skip(begin + 1).take_while(|line| !ends(line));
    let of_section = text.lines().skip(begin).take(1).chain(rest);
    let found = of_section.enumerate().find(|(at, line)| {
        let line = match at {
            // The section's own name is not a key in it.
            0 => line.split_once(':').map_or("", |(_, rest)| rest),
            _ => line,
        };
        holds_key(line, key)
    });
    begin + 1 + found.map_or(0, |(at, _)| at)
}

/// True when a line holds `key:` as a word, quoted or not, outside a comment.
fn holds_key(line: &str, key: &str) -> bool {
    let code = line.split(" #").next().unwrap_or_default();
    if code.trim_start().starts_with('#') {
        return false;
    }
    code.match_indices(key).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + key.len()..].trim_start_matches(['"', '\'']).trim_start();
        before.is_none_or(|c| c.is_whitespace() || "{,\"'".contains(c)) && after.starts_with(':')
    })
}

/// The known name that is closest to a mistyped one, if one is close.
pub(super) fn nearest<'n>(unknown: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let unknown = unknown.to_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&unknown, name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_below_their_section_in_both_styles() {
        let text = "# store: no\nweb: {listen: 'x', max_questions: 3}\nstore:\n  # min_free_mb: 1\n  query_threads: 2\n\n  min_free_mb: 9\nretention:\n  min_free_mb: 4\n";
        for (section, key, line) in [
            ("web", "listen", 2),
            ("web", "max_questions", 2),
            ("store", "query_threads", 5),
            ("store", "min_free_mb", 7),
            ("retention", "min_free_mb", 9),
            ("store", "absent", 3),
            ("absent", "absent", 1),
        ] {
            assert_eq!(line_of(text, section, Some(key)), line, "{section}.{key}");
        }
        assert_eq!(line_of(text, "retention", None), 8);
    }

    #[test]
    fn the_nearest_name_is_named_only_when_it_is_near() {
        let known = ["memory_limit_mb", "min_free_mb"];
        assert_eq!(nearest("memory-limit", known), Some("memory_limit_mb"));
        assert_eq!(nearest("frobnicate", known), None);
    }
}
