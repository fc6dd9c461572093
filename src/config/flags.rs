//! Settings as flags and environment variables, generated from the list of keys.

use std::{path::PathBuf, sync::LazyLock};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueHint, parser::ValueSource, value_parser};
use emberline_yaml::nearest;

use super::{
    ConfigError, Given, Loaded, Origin,
    keys::{self, Key},
    load,
    show::default_of,
};

/// Settings shown by `-h`; `--help` shows all.
const COMMON: [&str; 12] = [
    "data_dir",
    "listen",
    "external_url",
    "allowed_hosts",
    "otlp_grpc",
    "otlp_http",
    "memory_limit_mb",
    "retention_hours",
    "rollup_retention_days",
    "alertmanagers",
    "webhooks",
    "log",
];

/// The settings from the command line and the environment.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServerSettingsArgs {
    file: Option<PathBuf>,
    given: Vec<Given>,
}

impl ServerSettingsArgs {
    /// The configuration in effect.
    pub(crate) fn load(&self) -> Result<Loaded, ConfigError> {
        load(self.file.as_deref(), &self.given)
    }
}

/// What the command line needs to know about a key, for the life of the process.
struct Flag {
    key: &'static Key,
    flag: String,
    variable: String,
    heading: String,
    help: String,
    value_name: String,
}

static FLAGS: LazyLock<Vec<Flag>> =
    LazyLock::new(|| keys::all().map(|(section, key)| Flag::of(section.name, key)).collect());

impl Flag {
    fn of(section: &str, key: &'static Key) -> Flag {
        let (help, bounds, default) = (key.help(), key.bounds.in_words(), default_of(key));
        let help = help.trim_end_matches('.');
        let bounds = match bounds.is_empty() {
            true => bounds,
            false => format!(" ({bounds})"),
        };
        let default = match default.as_str() {
            "null" | "[]" | "{}" => String::new(),
            default => format!(" [default: {}]", default.trim_matches('"')),
        };
        Flag {
            key,
            flag: key.flag(),
            variable: key.variable(),
            heading: format!("Section `{section}` of the configuration"),
            help: format!("{help}{bounds}{default}"),
            value_name: match key.type_name {
                "whole number" => "NUMBER".to_owned(),
                "true or false" => "BOOL".to_owned(),
                "lists of text by service" => "SERVICE=PREFIX,PREFIX".to_owned(),
                name => name.trim_start_matches("list of ").to_uppercase(),
            },
        }
    }

    fn argument(&'static self) -> Arg {
        let key = self.key;
        let argument = Arg::new(key.name)
            .long(self.flag.as_str())
            .env(self.variable.as_str())
            .help(self.help.as_str())
            .help_heading(self.heading.as_str())
            .value_name(self.value_name.as_str())
            .hide_short_help(!COMMON.contains(&key.name))
            .hide_env_values(true)
            .allow_hyphen_values(true);
        let argument = match key.type_name {
            "path" => argument.value_hint(ValueHint::AnyPath),
            _ => argument,
        };
        match (key.separator, key.type_name) {
            (Some(_), _) => argument.action(ArgAction::Append),
            (None, "true or false") => argument
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
            (None, _) => argument,
        }
    }
}

/// Variables that are not settings: the file's path, and those of other commands.
const OTHER_VARIABLES: [&str; 3] = ["EMBERLINE_CONFIG", "EMBERLINE_SERVER", "EMBERLINE_URL"];

/// Warnings about variables that look like settings but are not, and would be ignored silently.
pub(crate) fn unknown_variables(names: impl IntoIterator<Item = String>) -> Vec<String> {
    const PREFIX: &str = "EMBERLINE_";
    let known: Vec<String> = keys::all()
        .map(|(_, key)| key.variable().replace(PREFIX, "").to_lowercase())
        .collect();
    let warning = |name: String| {
        let setting = name.strip_prefix(PREFIX)?.to_lowercase();
        if known.contains(&setting) || OTHER_VARIABLES.contains(&name.as_str()) {
            return None;
        }
        let hint = match nearest(&setting, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {PREFIX}{}?", near.to_uppercase()),
            None => "`emberline config reference` lists the settings".to_owned(),
        };
        Some(format!(
            "{name} in the environment is not a setting and is ignored: {hint}"
        ))
    };
    names.into_iter().filter_map(warning).collect()
}

impl Args for ServerSettingsArgs {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config")
            .long("config")
            .env("EMBERLINE_CONFIG")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("Configuration file (YAML), overridden by variables and flags; `emberline config reference` describes every key");
        command.arg(file).args(FLAGS.iter().map(Flag::argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServerSettingsArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<ServerSettingsArgs, clap::Error> {
        let mut args = ServerSettingsArgs::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.file = matches.get_one::<PathBuf>("config").cloned();
        self.given = keys::all()
            .filter_map(|(_, key)| {
                let origin = match matches.value_source(key.name)? {
                    ValueSource::CommandLine => Origin::Flag(key.flag()),
                    ValueSource::EnvVariable => Origin::Environment(key.variable()),
                    _ => return None,
                };
                let texts = matches.get_many::<String>(key.name)?.cloned().collect();
                Some(Given { key, texts, origin })
            })
            .collect();
        Ok(())
    }
}
