//! From the text of a selector to the answer of the engine: whatever is stored as the value of a label and whatever is
//! asked for, what is selected is what an independent reading of the matchers selects, and no value is ever taken for
//! SQL, for a pattern of `LIKE` or for the end of a text.

use std::{collections::BTreeMap, sync::OnceLock};

use emberline_model::{Component, Side, WorkloadWindow};
use proptest::{prelude::*, sample::select};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::support::{World, window};

/// Values of labels as they are stored, each the service of one window.
const STORED: [&str; 20] = [
    "plain",
    "it's",
    "say \"hi\"",
    "'); DROP TABLE series; --",
    "x' OR '1'='1",
    "50%",
    "5%",
    "a_b",
    "aXb",
    "A_B",
    "nul\0l",
    "nul",
    "\u{e9}",
    "e\u{301}",
    "\u{202e}rtl",
    "\u{65e5}\u{672c}\u{8a9e}\u{1f525}",
    "back\\slash",
    "`tick`",
    "?, $1, {a,b}=~\".*\"",
    "two\nlines\tand a tab ",
];

/// Asked for beside them: nearly the same, or what nobody has.
const OTHERS: [&str; 10] = [
    "", "PLAIN", "plain ", "%", "_", "its", "it''s", "nul\\0l", "\0", "\u{feff}",
];

/// What is stored of one window.
struct Row {
    labels: BTreeMap<&'static str, String>,
    value: i64,
}

fn rows() -> Vec<Row> {
    let row = |at: usize, service: &str| {
        let version = STORED[at * 7 % STORED.len()];
        // Each value is another power of two, so that a sum tells which windows are in it.
        let (component, side, route) = match at % 4 {
            0 => ("proxy", "client", STORED[at * 3 % STORED.len()]),
            1 => ("application", "", ""),
            _ => ("application", "server", STORED[at * 3 % STORED.len()]),
        };
        let labels = [
            ("namespace", "shop"),
            ("service", service),
            ("version", version),
            ("component", component),
            ("side", side),
            ("route", route),
        ];
        let mut labels: BTreeMap<&str, String> = labels.map(|(name, value)| (name, value.to_owned())).into();
        labels.insert("instance", format!("{service}-{version}-0"));
        Row { labels, value: 1 << at }
    };
    STORED
        .iter()
        .enumerate()
        .map(|(at, service)| row(at, service))
        .collect()
}

fn window_of(row: &Row) -> WorkloadWindow {
    let component = match row.labels["component"].as_str() {
        "proxy" => Component::Proxy,
        _ => Component::Application,
    };
    let side = match row.labels["side"].as_str() {
        "client" => Some(Side::Client),
        "server" => Some(Side::Server),
        _ => None,
    };
    window(&row.labels["service"], &row.labels["version"], component, 0)
        .stack(side, &row.labels["route"], &["main"], row.value, 1)
        .done()
}

/// A world with all of them, made once, and the runtime it lives in.
fn world() -> &'static (Runtime, World) {
    static WORLD: OnceLock<(Runtime, World)> = OnceLock::new();
    WORLD.get_or_init(|| {
        let runtime = Runtime::new().unwrap();
        let world = runtime.block_on(World::new(rows().iter().map(window_of).collect()));
        (runtime, world)
    })
}

fn ask(path: &str, parameters: &[(&str, &str)]) -> Value {
    let encode = |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02x}")).collect() };
    let pairs: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", encode(value)))
        .collect();
    let (runtime, world) = world();
    runtime.block_on(world.json(&format!("{path}?from=now-2m&{}", pairs.join("&"))))
}

/// What a value must be like, kept as what it means.
#[derive(Debug, Clone)]
enum Wanted {
    Is(String),
    OneOf(Vec<String>),
    Holds(String),
    BeginsWith(String),
}

impl Wanted {
    fn accepts(&self, value: &str) -> bool {
        match self {
            Wanted::Is(wanted) => value == wanted,
            Wanted::OneOf(all) => all.iter().any(|wanted| value == wanted),
            Wanted::Holds(part) => value.contains(part.as_str()),
            Wanted::BeginsWith(start) => value.starts_with(start.as_str()),
        }
    }
}

#[derive(Debug, Clone)]
struct Matcher {
    label: &'static str,
    wanted: Wanted,
    negated: bool,
    quote: char,
}

impl Matcher {
    fn text(&self) -> String {
        let (operator, value) = match &self.wanted {
            Wanted::Is(value) => (["=", "!="], value.clone()),
            Wanted::OneOf(all) => {
                let escaped: Vec<String> = all.iter().map(|value| regex::escape(value)).collect();
                (["=~", "!~"], escaped.join("|"))
            }
            Wanted::Holds(part) => (["=~", "!~"], format!(".*{}.*", regex::escape(part))),
            Wanted::BeginsWith(start) => (["=~", "!~"], format!("{}.*", regex::escape(start))),
        };
        let operator = operator[usize::from(self.negated)];
        // Nothing is escaped between backticks, so a backtick cannot stand there.
        let (quote, value) = match self.quote {
            '`' if !value.contains('`') => ('`', value),
            '`' | '"' => ('"', value.replace('\\', "\\\\").replace('"', "\\\"")),
            quote => (quote, value.replace('\\', "\\\\").replace('\'', "\\'")),
        };
        format!("{}{operator}{quote}{value}{quote}", self.label)
    }

    fn selects(&self, row: &Row) -> bool {
        self.wanted.accepts(&row.labels[self.label]) != self.negated
    }
}

fn value() -> impl Strategy<Value = String> {
    let known = || select([STORED.as_slice(), OTHERS.as_slice()].concat()).prop_map(str::to_owned);
    prop_oneof![6 => known(), 1 => "\\PC{0,12}", 1 => "[\0-\u{7f}]{0,6}"]
}

fn matcher() -> impl Strategy<Value = Matcher> {
    let labels = [
        "service",
        "version",
        "route",
        "instance",
        "side",
        "component",
        "namespace",
    ];
    let word = || select(vec!["server", "client", "proxy", "application", "shop", ""]).prop_map(str::to_owned);
    let value = || prop_oneof![4 => value(), 1 => word()];
    let wanted = prop_oneof![
        value().prop_map(Wanted::Is),
        // One of none cannot be written: an empty expression is the empty value.
        prop::collection::vec(value(), 1..5).prop_map(Wanted::OneOf),
        value().prop_map(Wanted::Holds),
        value().prop_map(Wanted::BeginsWith),
    ];
    (
        select(labels.to_vec()),
        wanted,
        any::<bool>(),
        select(vec!['"', '\'', '`']),
    )
        .prop_map(|(label, wanted, negated, quote)| Matcher {
            label,
            wanted,
            negated,
            quote,
        })
}

#[test]
fn every_value_is_stored_listed_and_found_as_it_is() {
    for label in ["service", "version", "route"] {
        let answer = ask("/api/v1/label_values", &[("label", label)]);
        let text = answer.to_string();
        for row in rows() {
            let value = serde_json::to_string(&row.labels[label]).unwrap();
            assert!(
                text.contains(&value),
                "{value} is not among the values of {label}: {text}"
            );
        }
    }
    for row in rows() {
        let matcher = Matcher {
            label: "service",
            wanted: Wanted::Is(row.labels["service"].clone()),
            negated: false,
            quote: '"',
        };
        let selector = format!("{{{}}}", matcher.text());
        let answer = ask("/api/v1/merge", &[("selector", &selector)]);
        assert_eq!(answer["total"], row.value, "{selector}");
        // The selection by parameters goes another way to the engine.
        let answer = ask("/api/v1/profile", &[("service", &row.labels["service"])]);
        assert_eq!(answer["total"], row.value, "{selector}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_selected_is_what_the_matchers_say(
        matchers in prop::collection::vec(matcher(), 0..4),
        group_by in select(vec!["service", "version", "route", "side", "component", "instance"]),
    ) {
        let texts: Vec<String> = matchers.iter().map(Matcher::text).collect();
        let selector = format!("{{{}}}", texts.join(", "));
        let mut sums: BTreeMap<String, i64> = BTreeMap::new();
        for row in rows().iter().filter(|row| matchers.iter().all(|matcher| matcher.selects(row))) {
            *sums.entry(row.labels[group_by].clone()).or_default() += row.value;
        }
        let total: i64 = sums.values().sum();
        let merged = ask("/api/v1/merge", &[("selector", &selector)]);
        prop_assert_eq!(merged["total"].as_i64(), Some(total), "{}", selector);
        let series = ask("/api/v1/series", &[("selector", &selector), ("group_by", group_by)]);
        let series = series["series"].as_array().unwrap().iter();
        let answered: BTreeMap<String, i64> = series
            .map(|one| (one["labels"][0].as_str().unwrap().to_owned(), one["total"].as_i64().unwrap()))
            .collect();
        prop_assert_eq!(answered, sums, "{}", selector);
    }
}
