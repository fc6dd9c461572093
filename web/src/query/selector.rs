//! What a selector means to the store: which labels there are, and which samples have them.
//!
//! Guarantees: regular expressions are evaluated here on values the store knows, so the store gets a list of values; an
//! unknown label has the empty value, as in Prometheus. Wrong on purpose: a selector whose regular expression matches
//! more values than the store accepts is refused by name instead of being answered in parts.

mod parse;

use std::collections::BTreeSet;

use emberline_model::ProfileType;
use emberline_storage::{Label, LabelFilter, MAX_SELECTED_VALUES, Range, SampleSeries, SampleSeriesQuery, Store};

pub(crate) use parse::{Matcher, Test};

use crate::{
    http::error::{ApiError, shorten},
    query::names,
};

/// Names of the parts of a profile type, in order, and of the whole.
const TYPE_LABELS: [&str; 6] = [
    "__name__",
    "__type__",
    "__unit__",
    "__period_type__",
    "__period_unit__",
    PROFILE_TYPE_LABEL,
];

/// The whole profile type as a label.
pub(crate) const PROFILE_TYPE_LABEL: &str = "__profile_type__";

/// What a label name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// Stored with samples.
    Stored(Label),
    /// A part of the profile type, by position; 5 is the whole.
    Type(usize),
}

/// What a label name stands for; `None` for names that no sample has.
pub(crate) fn known(name: &str) -> Option<Known> {
    if let Some(at) = TYPE_LABELS.iter().position(|known| *known == name) {
        return Some(Known::Type(at));
    }
    // Names used by other profile stores and OpenTelemetry.
    let name = match name {
        "service_name" | "service.name" => "service",
        "service_namespace" | "service.namespace" => "namespace",
        "service_version" | "service.version" => "version",
        "service_instance_id" | "service.instance.id" => "instance",
        other => other,
    };
    let mut stored = Label::ALL.into_iter();
    stored.find(|label| label.name() == name).map(Known::Stored)
}

/// The value of a part of a profile type.
pub(crate) fn type_value(profile_type: &str, at: usize) -> &str {
    match at {
        5 => profile_type,
        at => ProfileType::parts_of(profile_type)[at],
    }
}

/// A selector with known names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selector {
    /// What precedes the brace.
    pub(crate) profile_type: Option<String>,
    conditions: Vec<(Option<Known>, Test)>,
}

impl Selector {
    /// Parses a selector and refuses names that no sample has.
    pub(crate) fn strict(text: &str) -> Result<Selector, ApiError> {
        let written = parse::parse(text).map_err(|why| bad(&why))?;
        for Matcher { name, .. } in &written.matchers {
            if known(name).is_none() {
                return Err(unknown_label(name));
            }
        }
        Ok(Selector::from(written))
    }

    /// Parses a selector; a name that no sample has stands for the empty value.
    pub(crate) fn lenient(text: &str) -> Result<Selector, ApiError> {
        parse::parse(text).map(Selector::from).map_err(|why| bad(&why))
    }

    /// Whether samples of a series are selected.
    pub(crate) fn selects(&self, series: &SampleSeries) -> bool {
        self.selects_type(&series.profile_type)
            && self.conditions.iter().all(|(known, test)| match known {
                Some(Known::Stored(label)) => test.passes(series.label(*label)),
                Some(Known::Type(_)) => true,
                None => test.passes(""),
            })
    }

    /// Whether a profile type satisfies the conditions on it.
    pub(crate) fn selects_type(&self, profile_type: &str) -> bool {
        self.profile_type.as_ref().is_none_or(|wanted| wanted == profile_type)
            && self.conditions.iter().all(|(known, test)| match known {
                Some(Known::Type(at)) => test.passes(type_value(profile_type, *at)),
                _ => true,
            })
    }

    /// The selection in the store's form; `None` if nothing can match.
    pub(crate) async fn filters(
        &self,
        store: &Store,
        profile_type: &str,
        range: Range,
    ) -> Result<Option<Vec<LabelFilter>>, ApiError> {
        if !self.selects_type(profile_type) {
            return Ok(None);
        }
        let is_regex = |test: &Test| matches!(test, Test::Matches(_) | Test::MatchesNot(_));
        let looked_up = self.conditions.iter().any(|(_, test)| is_regex(test));
        let series = match looked_up {
            true => store.ask(SampleSeriesQuery { range }).await?,
            false => Vec::new(),
        };
        let mut filters = Vec::new();
        for (known, test) in &self.conditions {
            let label = match known {
                Some(Known::Stored(label)) => *label,
                Some(Known::Type(_)) => continue,
                None if test.passes("") => continue,
                None => return Ok(None),
            };
            let (values, negated) = match test {
                Test::Is(value) => (vec![value.clone()], false),
                Test::IsNot(value) => (vec![value.clone()], true),
                Test::Matches(_) | Test::MatchesNot(_) => {
                    let all: BTreeSet<&str> = series.iter().map(|s| s.label(label)).collect();
                    let passing: Vec<&str> = all.iter().copied().filter(|value| test.passes(value)).collect();
                    if passing.len() == all.len() {
                        continue;
                    }
                    (passing.into_iter().map(str::to_owned).collect(), false)
                }
            };
            if values.len() > MAX_SELECTED_VALUES {
                let message = format!(
                    "the regular expression for `{}` matches {} values; the limit is {MAX_SELECTED_VALUES}: match fewer, or remove it",
                    label.name(),
                    values.len()
                );
                return Err(ApiError::bad_request("selector_too_wide", message));
            }
            if values.is_empty() {
                return Ok(None);
            }
            filters.push(LabelFilter { label, values, negated });
        }
        Ok(Some(filters))
    }
}

impl From<parse::Written> for Selector {
    fn from(written: parse::Written) -> Selector {
        let conditions = written.matchers.into_iter();
        Selector {
            profile_type: written.profile_type,
            conditions: conditions.map(|m| (known(&m.name), m.test)).collect(),
        }
    }
}

fn bad(why: &str) -> ApiError {
    let message = format!("invalid selector: {why}; use, for example, {{service=\"checkout\",version=~\"v1|v2\"}}");
    ApiError::bad_request("bad_selector", message)
}

/// Refuses a label name that no sample has.
pub(crate) fn unknown_label(name: &str) -> ApiError {
    let all = Label::ALL.iter().map(|label| label.name()).chain(TYPE_LABELS);
    let message = format!("unknown label `{}`{}", shorten(name), names::suggestion(name, all));
    ApiError::bad_request("unknown_label", message)
}
