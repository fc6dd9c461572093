//! Relabelling, as in Prometheus: rules that change the labels of a target before it is scraped, or drop it.
//!
//! Guarantees: regular expressions are anchored at both ends and bounded in size; an invalid rule is reported when the
//! configuration is read; `hashmod` gives the same result as in Prometheus, so that shards agree.
//!
//! Wrong on purpose: `keepequal` and `dropequal` are not supported.

use std::collections::BTreeMap;

use md5::{Digest, Md5};
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Deserializer, de};

/// Labels of a target, by name.
pub(super) type Labels = BTreeMap<String, String>;

/// The most bytes of a compiled expression.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    #[default]
    Replace,
    Keep,
    Drop,
    LabelMap,
    LabelDrop,
    LabelKeep,
    HashMod,
    Lowercase,
    Uppercase,
}

/// A rule.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    /// Labels whose values are joined.
    #[serde(default)]
    source_labels: Vec<String>,
    /// Separator between the joined values; default `;`.
    #[serde(default = "semicolon")]
    separator: String,
    /// Regular expression that must match the whole joined value; default: match anything.
    #[serde(default = "anything", deserialize_with = "anchored")]
    regex: Regex,
    /// Modulus for `hashmod`.
    #[serde(default)]
    modulus: u64,
    /// Label to set.
    #[serde(default)]
    target_label: String,
    /// Value to set; default `$1`.
    #[serde(default = "first_group")]
    replacement: String,
    /// Action; default `replace`.
    #[serde(default)]
    action: Action,
}

fn semicolon() -> String {
    ";".to_owned()
}

fn first_group() -> String {
    "$1".to_owned()
}

fn anything() -> Regex {
    compile("(.*)").expect("the expression is fixed and valid")
}

fn compile(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&format!("^(?s:{text})$"))
        .size_limit(MAX_REGEX_BYTES)
        .build()
}

fn anchored<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Regex, D::Error> {
    let text = String::deserialize(deserializer)?;
    // The crate's message has several lines; the last one says what is wrong.
    compile(&text).map_err(|error| {
        let said = error.to_string();
        let reason = said.lines().last().unwrap_or_default().trim_start_matches("error: ");
        de::Error::custom(format!("`regex: {text}` cannot be used: {reason}"))
    })
}

impl Rule {
    /// What is wrong with the rule as a whole, if anything.
    pub(super) fn problem(&self) -> Option<String> {
        let needs_target = matches!(
            self.action,
            Action::Replace | Action::HashMod | Action::Lowercase | Action::Uppercase
        );
        if needs_target && self.target_label.is_empty() {
            return Some("a relabelling rule of this action needs a `target_label`".to_owned());
        }
        if self.action == Action::HashMod && self.modulus == 0 {
            return Some("`action: hashmod` needs a `modulus` above 0".to_owned());
        }
        None
    }

    /// Changes labels; false drops the target.
    fn apply(&self, labels: &mut Labels) -> bool {
        let source = self.source(labels);
        match self.action {
            Action::Keep => return self.regex.is_match(&source),
            Action::Drop => return !self.regex.is_match(&source),
            Action::Replace => {
                let Some(found) = self.regex.captures(&source) else {
                    return true;
                };
                let (mut target, mut value) = (String::new(), String::new());
                found.expand(&self.target_label, &mut target);
                found.expand(&self.replacement, &mut value);
                set(labels, target, value);
            }
            Action::Lowercase => set(labels, self.target_label.clone(), source.to_lowercase()),
            Action::Uppercase => set(labels, self.target_label.clone(), source.to_uppercase()),
            Action::HashMod => {
                let hash = Md5::digest(source.as_bytes());
                let last: [u8; 8] = hash[8..].try_into().expect("an MD5 hash has 16 bytes");
                let shard = u64::from_be_bytes(last) % self.modulus.max(1);
                set(labels, self.target_label.clone(), shard.to_string());
            }
            Action::LabelMap => {
                let mapped: Vec<(String, String)> = labels
                    .iter()
                    .filter(|(name, _)| self.regex.is_match(name))
                    .map(|(name, value)| {
                        let renamed = self.regex.replace(name, self.replacement.as_str());
                        (renamed.into_owned(), value.clone())
                    })
                    .collect();
                mapped.into_iter().for_each(|(name, value)| set(labels, name, value));
            }
            Action::LabelDrop => labels.retain(|name, _| !self.regex.is_match(name)),
            Action::LabelKeep => labels.retain(|name, _| self.regex.is_match(name)),
        }
        true
    }

    fn source(&self, labels: &Labels) -> String {
        let values = self
            .source_labels
            .iter()
            .map(|name| labels.get(name).map_or("", String::as_str));
        values.collect::<Vec<&str>>().join(&self.separator)
    }
}

/// Sets a label; an empty value removes it.
fn set(labels: &mut Labels, name: String, value: String) {
    if name.is_empty() {
        return;
    }
    if value.is_empty() {
        labels.remove(&name);
    } else {
        labels.insert(name, value);
    }
}

/// Applies rules in order; `None` if one of them drops the target.
pub(super) fn relabel(mut labels: Labels, rules: &[Rule]) -> Option<Labels> {
    rules.iter().all(|rule| rule.apply(&mut labels)).then_some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(list: &[(&str, &str)]) -> Labels {
        list.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn rules(yaml: &str) -> Vec<Rule> {
        emberline_yaml::from_str(yaml).unwrap()
    }

    fn result(yaml: &str, given: &[(&str, &str)]) -> Option<Labels> {
        relabel(labels(given), &rules(yaml))
    }

    #[test]
    fn replace_joins_sources_expands_groups_and_leaves_what_does_not_match() {
        let rule =
            "[{source_labels: [a, b], separator: '/', regex: '(.*)/(.*)', target_label: c, replacement: '$2-${1}x'}]";
        let given = [("a", "one"), ("b", "two")];
        assert_eq!(
            result(rule, &given),
            Some(labels(&[("a", "one"), ("b", "two"), ("c", "two-onex")]))
        );
        let unmatched = "[{source_labels: [a], regex: 'on', target_label: c}]";
        assert_eq!(
            result(unmatched, &given),
            Some(labels(&given)),
            "expressions are anchored"
        );
        let emptied = "[{source_labels: [missing], target_label: a}]";
        assert_eq!(result(emptied, &given), Some(labels(&[("b", "two")])));
        let named =
            "[{source_labels: [a], regex: '(.*)', target_label: 'is_$1', replacement: yes}]".replace("yes", "'yes'");
        assert_eq!(
            result(&named, &[("a", "x")]),
            Some(labels(&[("a", "x"), ("is_x", "yes")]))
        );
    }

    #[test]
    fn keep_and_drop_choose_targets() {
        let given = [("env", "prod")];
        assert!(result("[{source_labels: [env], regex: 'prod|live', action: keep}]", &given).is_some());
        assert!(result("[{source_labels: [env], regex: 'live', action: keep}]", &given).is_none());
        assert!(result("[{source_labels: [env], regex: 'pr.*', action: drop}]", &given).is_none());
        assert!(result("[{source_labels: [env], regex: 'pr', action: drop}]", &given).is_some());
    }

    #[test]
    fn labels_are_mapped_dropped_and_kept_by_name() {
        let given = [("__meta_dns_name", "x"), ("a1", "1"), ("b", "2")];
        assert_eq!(
            result("[{regex: '__meta_(.+)', action: labelmap}]", &given).unwrap()["dns_name"],
            "x"
        );
        let without = result("[{regex: 'a.', action: labeldrop}]", &given).unwrap();
        assert_eq!(without, labels(&[("__meta_dns_name", "x"), ("b", "2")]));
        assert_eq!(
            result("[{regex: 'a.', action: labelkeep}]", &given),
            Some(labels(&[("a1", "1")]))
        );
    }

    #[test]
    fn case_and_shards() {
        let given = [("a", "Shop-1"), ("c", "2")];
        let upper = "[{source_labels: [a], target_label: b, action: uppercase}]";
        assert_eq!(result(upper, &given).unwrap()["b"], "SHOP-1");
        let lower = "[{source_labels: [a], target_label: b, action: lowercase}]";
        assert_eq!(result(lower, &given).unwrap()["b"], "shop-1");
        // md5("foo") = acbd18db4cc2f85cedef654fccc4a4d8; its last eight bytes modulo 1000.
        let shard = "[{source_labels: [a], target_label: b, action: hashmod, modulus: 1000}]";
        let expected = 0xedef_654f_ccc4_a4d8_u64 % 1000;
        assert_eq!(result(shard, &[("a", "foo")]).unwrap()["b"], expected.to_string());
    }

    #[test]
    fn rules_that_cannot_work_are_found_when_they_are_read() {
        for wrong in [
            "[{action: jump}]",
            "[{regex: '('}]",
            "[{regex: 'a{1000}{1000}'}]",
            "[{sourcelabels: [a]}]",
        ] {
            assert!(emberline_yaml::from_str::<Vec<Rule>>(wrong).is_err(), "{wrong}");
        }
        assert!(
            rules("[{source_labels: [a]}]")[0]
                .problem()
                .unwrap()
                .contains("target_label")
        );
        assert!(
            rules("[{action: hashmod, target_label: a}]")[0]
                .problem()
                .unwrap()
                .contains("modulus")
        );
        assert_eq!(rules("[{regex: a, action: labeldrop}]")[0].problem(), None);
    }
}
