//! Every setting, checked through the list that defines it.

use std::{collections::BTreeSet, path::Path};

use clap::Parser;

use super::{reference::Tree, *};
use crate::{
    budget::Budget,
    cli::{Cli, Command},
};

/// The budget of a machine without limits.
fn budget() -> Budget {
    Budget::of(None, 1_024)
}

/// Loads a file with this text.
fn read_text(text: &str) -> Result<Loaded, String> {
    read_with(text, &[])
}

fn read_with(text: &str, given: &[Given]) -> Result<Loaded, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("emberline.yaml");
    std::fs::write(&path, text).unwrap();
    load(Some(&path), given).map_err(|error| error.to_string().replace(&path.display().to_string(), "emberline.yaml"))
}

fn flag(name: &str, value: &str) -> Given {
    let (_, key) = keys::all().find(|(_, key)| key.name == name).unwrap();
    Given {
        key,
        texts: vec![value.to_owned()],
        origin: Origin::Flag(key.flag()),
    }
}

/// An allowed value other than the default, as text.
fn another_value(key: &Key) -> String {
    let default = key.show(&Settings::default());
    match (key.type_name, key.bounds) {
        ("whole number", keys::Bounds::Within(low, high)) => {
            let default: f64 = default.parse().unwrap_or(low);
            // The queue has to hold the longest batch: one of them may only grow, the other only shrink.
            let may_grow = key.name != "max_batch_bytes" && default + 1.0 <= high;
            let near = if may_grow { default + 1.0 } else { default - 1.0 };
            (near as u64).to_string()
        }
        ("number", keys::Bounds::Within(low, _)) => format!("{:?}", f64::midpoint(low, default.parse().unwrap())),
        ("true or false", _) => "true".to_owned(),
        ("address", _) => "127.0.0.1:9999".to_owned(),
        ("list of text", _) => "http://127.0.0.1:1".to_owned(),
        ("lists of text by service", _) => "checkout=io.shop".to_owned(),
        (_, keys::Bounds::Any) => "another".to_owned(),
        _ => panic!("{}: bounds without a number", key.name),
    }
}

#[test]
fn every_setting_is_read_from_file_variable_and_flag_and_shown_with_its_origin() {
    for (section, key) in keys::all() {
        let mut settings = Settings::default();
        key.set_texts(&mut settings, &[another_value(key)])
            .unwrap_or_else(|wrong| panic!("{}: {wrong}", key.name));
        let value = key.show(&settings);
        assert_ne!(value, key.show(&Settings::default()), "{}", key.name);
        let loaded = read_text(&format!("{}:\n  {}: {value}\n", section.name, key.name)).unwrap();
        assert_eq!(loaded.settings, settings, "{}", key.name);
        let shown = show(&loaded);
        let line = shown
            .lines()
            .find(|line| line.starts_with(&format!("  {}: ", key.name)))
            .unwrap();
        assert!(line.contains(&value) && line.ends_with("emberline.yaml:2"), "{line}");
        // Both override the file.
        let other = format!(
            "{}:\n  {}: {}\n",
            section.name,
            key.name,
            key.show(&Settings::default())
        );
        for origin in [Origin::Environment(key.variable()), Origin::Flag(key.flag())] {
            let mut given = flag(key.name, &another_value(key));
            given.origin = origin.clone();
            let loaded = read_with(&other, &[given]).unwrap();
            assert_eq!((&loaded.settings, loaded.origin(key.name)), (&settings, origin));
        }
    }
}

#[test]
fn what_is_shown_is_a_configuration_of_the_same_values() {
    let given: Vec<Given> = keys::all()
        .map(|(_, key)| flag(key.name, &another_value(key)))
        .collect();
    let loaded = read_with("", &given).unwrap();
    let again = read_text(&show(&loaded)).unwrap();
    assert_eq!(again.settings, loaded.settings);
}

#[test]
fn values_out_of_range_are_refused_with_key_value_and_range() {
    let mut bounded = 0;
    for (section, key) in keys::all() {
        let keys::Bounds::Within(low, high) = key.bounds else {
            continue;
        };
        bounded += 1;
        let mut wrong = vec![high + 1.0, high * 2.0];
        if low >= 1.0 {
            wrong.push(low - 1.0);
        }
        for value in wrong {
            let error = read_text(&format!("{}:\n  {}: {value}\n", section.name, key.name)).unwrap_err();
            let said = format!(
                "emberline.yaml:2: `{}`: {value} is out of range: use {low} to {high}",
                key.name
            );
            assert_eq!(error, said);
        }
        for wrong in ["lots", "[1]", "-1"] {
            let error = read_text(&format!("{}: {{{}: {wrong}}}\n", section.name, key.name)).unwrap_err();
            assert!(
                error.starts_with(&format!("emberline.yaml:1: `{}`: ", key.name)),
                "{error}"
            );
            assert!(error.contains(&key.bounds.in_words()), "{error}");
        }
    }
    assert!(bounded > 60, "{bounded}");
}

/// What the parts of the server are given, and the settings they read themselves.
fn given_to_parts(settings: &Settings) -> String {
    let loaded = Loaded {
        settings: settings.clone(),
        scrape: None,
        origins: BTreeMap::new(),
    };
    let (server, web, ingest) = (&settings.server, &settings.web, &settings.ingest);
    format!(
        "{:?} {:?} {:?}",
        store_options(settings, &budget()),
        collector_config(&loaded, &budget(), "127.0.0.1:4040"),
        (
            (
                &server.log,
                &server.traces_endpoint,
                &web.listen,
                &ingest.otlp_grpc,
                &ingest.otlp_http
            ),
            (&web.allowed_hosts, &web.allow_delete, &web.ui_dir),
            (&web.max_questions, &web.max_request_seconds, &web.max_answer_bytes),
        )
    )
}

#[test]
fn every_setting_changes_what_a_part_is_given() {
    let default = given_to_parts(&Settings::default());
    for (_, key) in keys::all() {
        let mut settings = Settings::default();
        key.set_texts(&mut settings, &[another_value(key)]).unwrap();
        assert_ne!(given_to_parts(&settings), default, "`{}` changes nothing", key.name);
    }
}

#[test]
fn the_defaults_are_those_of_the_parts() {
    let settings = Settings::default();
    let mut options = emberline_storage::Options::new("emberline-data");
    // Ingest is stricter than the store.
    options.max_future = std::time::Duration::from_secs(600);
    assert_eq!(
        format!("{:?}", store_options(&settings, &budget())),
        format!("{options:?}")
    );
    let loaded = read_text("").unwrap();
    let mut config = emberline_collector::CollectorConfig::new("emberline-data");
    config.symbol_reader = collector_config(&loaded, &budget(), "").symbol_reader;
    assert_eq!(
        format!("{:?}", collector_config(&loaded, &budget(), "127.0.0.1:4040")),
        format!("{config:?}")
    );
}

#[test]
fn names_are_unique_so_that_a_setting_has_one_flag_and_one_variable() {
    let names: BTreeSet<&str> = keys::all().map(|(_, key)| key.name).collect();
    let flags: BTreeSet<String> = keys::all().map(|(_, key)| key.flag()).collect();
    assert_eq!((names.len(), flags.len()), (keys::all().count(), keys::all().count()));
}

#[test]
fn what_is_unknown_is_named_with_its_line_and_the_nearest_name() {
    for (text, said) in [
        (
            "store:\n  memory_limit: 5\n",
            "emberline.yaml:2: unknown key `memory_limit` in `store`: did you mean `memory_limit_mb`?",
        ),
        (
            "# x\nweb: {retention_hour: 5}\n",
            "emberline.yaml:2: unknown key `retention_hour` in `web`: did you mean `retention_hours`, in the section `retention`?",
        ),
        (
            "\nstores: {}\n",
            "emberline.yaml:2: unknown section `stores`: did you mean `store`?",
        ),
        (
            "memory_limit_mb: 5\n",
            "emberline.yaml:1: unknown section `memory_limit_mb`: `memory_limit_mb` belongs in the section `store`",
        ),
        (
            "scrape_configs: []\n",
            "emberline.yaml:1: `scrape_configs` belongs in the section `scrape`",
        ),
        ("store: 5\n", "emberline.yaml:1: `store` is a section"),
        (
            "# listen: a\nweb: {ui_dir: listen,\n  \"listen\": here}\n",
            "emberline.yaml:3: `listen`: `here` is not",
        ),
        (
            "web:\n  ui_dir: a\n  ui_dir: b\n",
            "emberline.yaml:3: the key `ui_dir` occurs twice",
        ),
        ("- a\n", "emberline.yaml:1: not a configuration"),
        (
            "web: {listen: here}\n",
            "emberline.yaml:1: `listen`: `here` is not an IP address with a port",
        ),
        (
            "web:\n  own_code: [a]\n",
            "emberline.yaml:2: `own_code`: a list does not map services to prefixes",
        ),
        ("# x\nstore: {\n", "emberline.yaml:2: unclosed bracket '{'"),
        (
            "scrape:\n  scrape_configs:\n    - {job_name: go, job: x}\n",
            "emberline.yaml:3: unknown key `job`: did you mean `job_name`?",
        ),
    ] {
        let error = read_text(text).unwrap_err();
        assert!(error.starts_with(said), "{error}\nis not\n{said}");
    }
    // All problems are reported at once.
    let error = read_with(
        "store: {query_threads: 0, min_free: 1}\n",
        &[flag("max_workloads", "none")],
    )
    .unwrap_err();
    assert_eq!(error.lines().count(), 3, "{error}");
    assert!(
        error.contains("--max-workloads: `max_workloads`: `none` is not a whole number"),
        "{error}"
    );
}

#[test]
fn settings_that_contradict_each_other_are_named_with_where_they_came_from() {
    for (text, said) in [
        (
            "retention: {rollup_retention_days: 2}\n",
            "emberline.yaml:1: `rollup_retention_days`: 2 days are shorter than `retention_hours` = 72",
        ),
        (
            "store: {queue_bytes: 2000000}\n",
            "emberline.yaml:1: `queue_bytes`: 2000000 is less than `max_batch_bytes` = 33554432",
        ),
        (
            "ingest: {max_cumulative_rows: 5}\n",
            "default: `max_cumulative_rows_per_profile`: 100000 is more than the total, `max_cumulative_rows` = 5",
        ),
        (
            "ingest: {max_cumulative_buckets: 5}\n",
            "default: `max_cumulative_buckets_per_process`: 400000 is more than",
        ),
    ] {
        let error = read_text(text).unwrap_err();
        assert!(error.starts_with(said), "{error}");
    }
}

#[test]
fn flags_and_lists_are_read_from_the_command_line() {
    let line = [
        "emberline",
        "serve",
        "--allow-delete",
        "--webhook",
        "http://a",
        "--webhook",
        "http://b,http://c",
        "--own-code",
        "a=b;c=d",
        "--max-request-mb",
        "3",
    ];
    let Command::Serve(args) = Cli::try_parse_from(line).unwrap().command else {
        panic!()
    };
    let loaded = args.settings.load().unwrap();
    let settings = &loaded.settings;
    assert_eq!(settings.alerts.webhooks, ["http://a", "http://b", "http://c"]);
    assert_eq!(
        (settings.web.allow_delete, settings.ingest.max_request_mb),
        (true, Some(3))
    );
    assert_eq!(settings.web.own_code.services().len(), 2);
    assert_eq!(loaded.origin("max_request_mb").to_string(), "--max-request-mb");
    let line = ["emberline", "serve", "--allow-delete=false"];
    let Command::Serve(args) = Cli::try_parse_from(line).unwrap().command else {
        panic!()
    };
    assert!(!args.settings.load().unwrap().settings.web.allow_delete);
}

#[test]
fn variables_that_are_no_settings_are_warned_of() {
    let names = [
        "EMBERLINE_LISTEN",
        "EMBERLINE_CONFIG",
        "HOME",
        "EMBERLINE_MEMORY_LIMIT",
        "EMBERLINE_SCRAPE_CONFIG",
    ];
    let warnings = unknown_variables(names.map(str::to_owned));
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].ends_with("did you mean EMBERLINE_MEMORY_LIMIT_MB?"),
        "{warnings:?}"
    );
    assert!(
        warnings[1].starts_with("EMBERLINE_SCRAPE_CONFIG in the environment is not a setting"),
        "{warnings:?}"
    );
}

#[test]
fn the_reference_is_what_is_committed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configure.md");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == reference(),
        "write it anew: target/release/emberline config reference > docs/configure.md"
    );
}

#[test]
fn the_reference_knows_every_key_of_a_proxys_file_and_says_what_it_does() {
    let keys = Tree::of_proxy().keys("Config");
    let known: BTreeSet<&str> = keys.iter().map(|(path, _)| path.as_str()).collect();
    let config = emberline_proxy::config::parse(Path::new("proxy.yaml"), reference::SMALLEST_PROXY).unwrap();
    let mut written = BTreeSet::new();
    paths(&serde_json::to_value(config).unwrap(), "", &mut written);
    for path in &written {
        // Described once for both.
        let path = path.replace("filters[].headers.response.", "filters[].headers.request.");
        assert!(known.contains(path.as_str()), "{path} is not in the reference");
    }
    // Keys below an omitted key are not shown.
    let is_left_out = |path: &str| path.starts_with("collector.tls");
    let missing: Vec<&&str> = known
        .iter()
        .filter(|path| !written.contains(**path) && !is_left_out(path))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    for (path, field) in keys.iter().chain(&Tree::of_scraping().keys("File")) {
        assert!(field.help.len() > 4, "{path} is not documented");
    }
    assert!(Tree::of_scraping().keys("File").len() > 40);
}

fn paths(value: &serde_json::Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(keys) => {
            for (name, value) in keys {
                let path = format!("{path}{name}");
                found.insert(path.clone());
                paths(value, &format!("{path}."), found);
            }
        }
        serde_json::Value::Array(elements) => {
            // A list of lists is described once, by its elements.
            let path = format!("{}[].", path.trim_end_matches('.').trim_end_matches("[]"));
            elements.iter().for_each(|element| paths(element, &path, found));
        }
        _ => {}
    }
}

#[test]
fn bounds_of_a_proxys_file_are_those_that_its_parser_holds() {
    let page = reference();
    let proxy = &page[page.find("## A proxy").unwrap()..];
    for (key, low, high) in [
        ("workers", 1u64, 64u64),
        ("hz", 1, 10_000),
        ("drain_seconds", 0, 3_600),
        ("drain_delay_seconds", 0, 3_600),
        ("max_header_bytes", 8_192, 16_777_216),
        ("memory_bytes", 1 << 20, 1 << 40),
    ] {
        let row = proxy
            .lines()
            .find(|line| line.starts_with(&format!("| `{key}` |")))
            .unwrap();
        assert!(row.contains(&format!("| {low} to {high} |")), "{row}");
        let section = match key {
            "hz" => Some("profiler"),
            "max_header_bytes" | "memory_bytes" => Some("limits"),
            _ => None,
        };
        for (value, is_fine) in [(low, true), (high, true), (high + 1, false)] {
            let line = section.map_or_else(
                || format!("{key}: {value}\n"),
                |section| format!("{section}: {{{key}: {value}}}\n"),
            );
            let text = format!("{}{line}", reference::SMALLEST_PROXY);
            let parsed = emberline_proxy::config::parse(Path::new("proxy.yaml"), &text);
            assert_eq!(parsed.is_ok(), is_fine, "{key}: {value}");
        }
    }
    for (share, is_fine) in [(0.0, false), (0.01, true), (1.0, true), (1.5, false)] {
        let text = format!("{}limits: {{share_of_caller: {share}}}\n", reference::SMALLEST_PROXY);
        let parsed = emberline_proxy::config::parse(Path::new("proxy.yaml"), &text);
        assert_eq!(parsed.is_ok(), is_fine, "{share}");
    }
    assert!(proxy.contains("| `share_of_caller` | number | `0.75` | 0.01 to 1 |"));
}
