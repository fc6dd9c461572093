//! The server's configuration: defaults, overridden by a file, overridden by the environment, overridden by flags.
//!
//! ```yaml
//! server: {data_dir: /var/lib/emberline}
//! store: {memory_limit_mb: 256}
//! retention: {retention_hours: 168}
//! alerts: {webhooks: ["http://hooks.internal/emberline"]}
//! scrape:                              # in Prometheus syntax
//!   scrape_configs: [{job_name: shop, static_configs: [{targets: ["10.0.0.1:6060"]}]}]
//! ```
//!
//! Guarantees: every setting has one name everywhere ([`keys`]); an unknown key is an error that names the nearest one;
//! every message says where the value came from (`file:line`, variable or flag), what is wrong and what is allowed; all
//! invalid values are reported at once.
//!
//! Wrong on purpose: the file is read only at start-up.

mod apply;
mod flags;
mod keys;
#[cfg(test)]
mod message_tests;
mod reference;
mod show;
mod source;
#[cfg(test)]
mod tests;
mod value;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use emberline_collector::scrape::{self, ScrapeConfig};
use emberline_yaml::{Entry, Problem, Unreadable, Value, nearest, show_problems};

pub(crate) use apply::{collector_config, store_options};
pub(crate) use flags::{ServerSettingsArgs, unknown_variables};
pub(crate) use keys::Settings;
use keys::{Key, SECTIONS, Section};
pub(crate) use reference::reference;
pub(crate) use show::show;

/// The section that is not a list of keys.
const SCRAPE: &str = "scrape";

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It is the default.
    Default,
    /// A line of the file.
    File(PathBuf, usize),
    /// A variable.
    Environment(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Environment(variable) => write!(f, "{variable} in the environment"),
            Origin::Flag(flag) => write!(f, "--{flag}"),
        }
    }
}

/// What was given outside the file.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    key: &'static Key,
    texts: Vec<String>,
    origin: Origin,
}

/// A configuration in effect.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) settings: Settings,
    /// Targets to scrape.
    pub(crate) scrape: Option<ScrapeConfig>,
    /// By name of the setting; settings not listed have their default.
    origins: BTreeMap<&'static str, Origin>,
}

impl Loaded {
    fn origin(&self, name: &str) -> Origin {
        self.origins.get(name).cloned().unwrap_or(Origin::Default)
    }
}

/// All problems of a configuration. Retrying helps once they are fixed.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub(crate) struct ConfigError(Vec<String>);

/// Reads a file, if there is one, and its overrides.
pub(crate) fn load(file: Option<&Path>, given: &[Given]) -> Result<Loaded, ConfigError> {
    let mut loaded = Loaded {
        settings: Settings::default(),
        scrape: None,
        origins: BTreeMap::new(),
    };
    let mut problems = Vec::new();
    if let Some(path) = file {
        let text = read(path).map_err(|problem| ConfigError(vec![problem]))?;
        read_file(path, &text, &mut loaded, &mut problems);
    }
    for given in given {
        match given.key.set_texts(&mut loaded.settings, &given.texts) {
            Ok(()) => {
                loaded.origins.insert(given.key.name, given.origin.clone());
            }
            Err(wrong) => problems.push(format!("{}: `{}`: {wrong}", given.origin, given.key.name)),
        }
    }
    if problems.is_empty() {
        let contradictions = loaded.settings.contradictions().into_iter();
        problems.extend(contradictions.map(|(name, wrong)| format!("{}: `{name}`: {wrong}", loaded.origin(name))));
    }
    match problems.is_empty() {
        true => Ok(loaded),
        false => Err(ConfigError(problems)),
    }
}

/// True for a top-level key of the server's file, and for the one that a file with only scrape settings used to begin
/// with.
pub(crate) fn is_section(name: &str) -> bool {
    name == SCRAPE || name == "scrape_configs" || SECTIONS.iter().any(|section| section.name == name)
}

fn read(path: &Path) -> Result<String, String> {
    emberline_yaml::read_file(path).map_err(|error| match error {
        Unreadable::Io(error) => format!(
            "{}: cannot read the configuration: {error}; check the path and its permissions",
            path.display()
        ),
        Unreadable::TooLarge => format!(
            "{}: larger than the {}-byte limit; is this the right file?",
            path.display(),
            emberline_yaml::MAX_FILE_BYTES
        ),
    })
}

fn read_file(path: &Path, text: &str, loaded: &mut Loaded, problems: &mut Vec<String>) {
    let mut wrong =
        |line: usize, message: String| problems.push(show_problems(path, &[Problem::new(line, message)]).to_string());
    let tree = match emberline_yaml::parse(text) {
        Ok(tree) => tree,
        Err(problem) => return wrong(problem.line, problem.message),
    };
    let sections = match &tree.value {
        // Nothing but comments.
        Value::Null => return,
        Value::Map(sections) => sections,
        _ => {
            return wrong(
                tree.line,
                "not a configuration: expected sections such as `store: {memory_limit_mb: 256}`".to_owned(),
            );
        }
    };
    for entry in sections {
        let name = entry.key.as_str();
        if name == SCRAPE {
            match scrape::parse_section(path, text) {
                Ok(scrape) => loaded.scrape = Some(scrape),
                Err(error) => problems.push(error.to_string()),
            }
            continue;
        }
        match SECTIONS.iter().find(|section| section.name == name) {
            Some(section) => read_section(path, section, entry, loaded, problems),
            None => {
                let problem = Problem::new(entry.line, unknown_section(name));
                problems.push(show_problems(path, &[problem]).to_string());
            }
        }
    }
}

fn read_section(path: &Path, section: &Section, entry: &Entry, loaded: &mut Loaded, problems: &mut Vec<String>) {
    let mut wrong =
        |line: usize, message: String| problems.push(show_problems(path, &[Problem::new(line, message)]).to_string());
    let values = match &entry.value.value {
        // A section with all keys commented out.
        Value::Null => return,
        Value::Map(values) => values,
        _ => {
            return wrong(
                entry.line,
                format!("`{}` is a section: put keys below it", section.name),
            );
        }
    };
    for entry in values {
        let (name, line, value) = (&entry.key, &entry.line, &entry.value);
        let Some(key) = section.keys.iter().find(|key| key.name == name) else {
            wrong(*line, unknown_key(section, name));
            continue;
        };
        match key.set_yaml(&mut loaded.settings, value) {
            Ok(()) => {
                loaded.origins.insert(key.name, Origin::File(path.to_owned(), *line));
            }
            Err(message) => wrong(*line, format!("`{}`: {message}", key.name)),
        }
    }
}

fn unknown_section(name: &str) -> String {
    if name == "scrape_configs" {
        return "`scrape_configs` belongs in the section `scrape`: add `scrape:` at the top of the file and indent the rest".to_owned();
    }
    let sections = || SECTIONS.iter().map(|section| section.name).chain([SCRAPE]);
    let of_key = keys::all().find(|(_, key)| key.name == name);
    let hint = match (of_key, nearest(name, sections())) {
        (Some((section, _)), _) => format!("`{name}` belongs in the section `{}`", section.name),
        (None, Some(near)) => format!("did you mean `{near}`?"),
        (None, None) => "remove it".to_owned(),
    };
    let all: Vec<&str> = sections().collect();
    format!("unknown section `{name}`: {hint} (sections: {})", all.join(", "))
}

fn unknown_key(section: &Section, name: &str) -> String {
    let place = |(other, key): (&'static Section, &'static Key)| match other.name == section.name {
        true => format!("did you mean `{}`?", key.name),
        false => format!("did you mean `{}`, in the section `{}`?", key.name, other.name),
    };
    let here = nearest(name, section.keys.iter().map(|key| key.name));
    let near = here.or_else(|| nearest(name, keys::all().map(|(_, key)| key.name)));
    let near = near.and_then(|near| keys::all().find(|(_, key)| key.name == near));
    let hint = near.map_or_else(|| "remove it".to_owned(), place);
    let all: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
    format!(
        "unknown key `{name}` in `{}`: {hint} (keys here: {})",
        section.name,
        all.join(", ")
    )
}
