//! `emberline diff`: two files in any supported format, compared as a table, JSON or a flame graph. The same readers,
//! trees and exports as the server's; without requests and windows, significance cannot be determined, and is not
//! claimed.

use std::{io::Write, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};
use emberline_model::{
    Profile,
    formats::{self, FORMAT_NAMES, Format, Reading},
    pprof::{self, Addresses},
    resolve::StackValue,
    tree::{FlameTree, TreeBuilder},
};
use emberline_web::render::{self, Labels};
use serde_json::json;

use crate::cli::{DiffArgs, DiffOutput};

/// Largest file, after decompression.
const LIMIT: usize = 1 << 30;

pub(crate) fn run(args: &DiffArgs) -> Result<ExitCode> {
    let format = args.format.as_deref().map(|name| {
        Format::of_name(name).with_context(|| format!("unknown --format {name}; use one of {FORMAT_NAMES}"))
    });
    let reading = Reading {
        format: format.transpose()?,
        kind: args.kind.as_deref(),
        rate_hz: args.sample_rate,
        addresses: Addresses::InMemory,
        limit: LIMIT,
    };
    let baseline = read(&args.baseline, args.value.as_deref(), &reading)?;
    let candidate = read(&args.candidate, args.value.as_deref(), &reading)?;
    if value_name(&baseline) != value_name(&candidate) {
        bail!(
            "the files contain different values: {} has {}, {} has {}; choose one that both have with --value",
            args.baseline.display(),
            value_name(&baseline),
            args.candidate.display(),
            value_name(&candidate)
        );
    }
    let mut tree = TreeBuilder::new();
    for (side, value) in [&baseline, &candidate].into_iter().enumerate() {
        let resolved = pprof::resolve_named(value);
        let rows = value.samples.iter().map(|s| StackValue {
            stack_id: u64::from(s.stack),
            side,
            value: s.value,
            samples: s.count,
        });
        tree.add_resolved(&resolved, rows);
    }
    let comparison = Comparison::new(tree.finish(None), baseline.profile_type.unit().to_owned(), args.share);
    let title = format!("{} → {}", args.baseline.display(), args.candidate.display());
    let sentence = comparison.sentence();
    let labels = Labels {
        title: &title,
        subtitle: &sentence,
        unit: &comparison.unit,
    };
    let output = match args.output {
        DiffOutput::Text => comparison.table(args.rows).into_bytes(),
        DiffOutput::Json => format!("{:#}\n", comparison.json()).into_bytes(),
        DiffOutput::Svg => render::diff_svg(&comparison.tree, comparison.divisors, &labels)?,
        DiffOutput::Html => render::diff_html(&comparison.tree, comparison.divisors, &labels, "")?,
    };
    match std::io::stdout().write_all(&output) {
        // The reader of a pipe may have closed it.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        result => result.map(|()| ExitCode::SUCCESS).context("cannot write the output"),
    }
}

/// Sample type and unit, as `go tool pprof` names values.
fn value_name(profile: &Profile) -> String {
    let [_, sample_type, unit, _, _] = profile.profile_type.parts();
    format!("{sample_type}/{unit}")
}

/// The requested value of a file; what was dropped or changed is reported with it.
fn read(path: &Path, wanted: Option<&str>, reading: &Reading<'_>) -> Result<Profile> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = formats::read(&bytes, reading).with_context(|| format!("{}", path.display()))?;
    for (word, list) in [("dropped", &file.left_out), ("changed", &file.changed)] {
        for told in list {
            eprintln!(
                "{}: {word}: {} ({}, {})",
                path.display(),
                told.reason,
                told.what,
                told.count
            );
        }
    }
    let mut profiles = file.profiles;
    let names: Vec<String> = profiles.iter().map(value_name).collect();
    let Some(wanted) = wanted else {
        if profiles.is_empty() {
            bail!("{} contains no comparable value", path.display());
        }
        return Ok(profiles.swap_remove(file.default_profile.min(profiles.len() - 1)));
    };
    let found = names
        .iter()
        .position(|name| name == wanted || name.split('/').next() == Some(wanted));
    found.map(|at| profiles.swap_remove(at)).with_context(|| {
        format!(
            "{} has no value `{wanted}`; it has {}",
            path.display(),
            names.join(", ")
        )
    })
}

struct Comparison {
    tree: FlameTree,
    unit: String,
    share: bool,
    divisors: [f64; 2],
}

struct Row<'a> {
    name: &'a str,
    own: [f64; 2],
    total: [f64; 2],
}

impl Comparison {
    fn new(tree: FlameTree, unit: String, share: bool) -> Comparison {
        let total = tree.total();
        let divisors = if share {
            [total[0].max(1) as f64, total[1].max(1) as f64]
        } else {
            [1.0, 1.0]
        };
        Comparison {
            tree,
            unit,
            share,
            divisors,
        }
    }

    /// All functions, the largest change of self value first.
    fn rows(&self) -> Vec<Row<'_>> {
        let scaled = |pair: [i64; 2]| [pair[0] as f64 / self.divisors[0], pair[1] as f64 / self.divisors[1]];
        let functions = self.tree.functions.iter().zip(&self.tree.totals);
        let mut rows: Vec<Row<'_>> = functions
            .map(|(info, totals)| Row {
                name: &info.name,
                own: scaled(totals.self_value),
                total: scaled(totals.total),
            })
            .collect();
        let change = |row: &Row<'_>| (row.own[1] - row.own[0]).abs();
        rows.sort_by(|a, b| change(b).total_cmp(&change(a)).then_with(|| a.name.cmp(b.name)));
        rows
    }

    fn format(&self, value: f64) -> String {
        match (self.share, self.unit.as_str()) {
            (true, _) => format!("{:.2} %", value * 100.0),
            (false, unit) => emberline_analysis::compare::format_amount(value.round(), unit),
        }
    }

    fn signed(&self, value: f64) -> String {
        let sign = if value < 0.0 { "−" } else { "+" };
        format!("{sign}{}", self.format(value.abs()))
    }

    fn sentence(&self) -> String {
        let total = self.tree.total();
        let shown = |value: i64| match self.unit.as_str() {
            "nanoseconds" => emberline_analysis::compare::format_ns(value as f64),
            unit => format!("{value} {unit}"),
        };
        format!("{} → {} in total", shown(total[0]), shown(total[1]))
    }

    fn table(&self, most: usize) -> String {
        let rows = self.rows();
        let mut text = format!(
            "{}\n{:>12} {:>12} {:>12} {:>12}  function\n",
            self.sentence(),
            "self before",
            "self after",
            "change",
            "total change"
        );
        for row in rows.iter().take(most) {
            text.push_str(&format!(
                "{:>12} {:>12} {:>12} {:>12}  {}\n",
                self.format(row.own[0]),
                self.format(row.own[1]),
                self.signed(row.own[1] - row.own[0]),
                self.signed(row.total[1] - row.total[0]),
                row.name
            ));
        }
        if rows.len() > most {
            let rest: [f64; 2] = rows[most..]
                .iter()
                .fold([0.0, 0.0], |s, r| [s[0] + r.own[0], s[1] + r.own[1]]);
            text.push_str(&format!(
                "{:>12} {:>12} {:>12} {:>12}  ({} more functions; --rows shows more)\n",
                self.format(rest[0]),
                self.format(rest[1]),
                self.signed(rest[1] - rest[0]),
                "",
                rows.len() - most
            ));
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        let row = |row: &Row<'_>| {
            json!({
                "name": row.name,
                "self_a": row.own[0],
                "self_b": row.own[1],
                "total_a": row.total[0],
                "total_b": row.total[1],
            })
        };
        let total = self.tree.total();
        json!({
            "unit": if self.share { "share" } else { &self.unit },
            "total_a": total[0],
            "total_b": total[1],
            "functions": self.rows().iter().map(row).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> Profile {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("model/tests/fixtures/others");
        let reading = Reading {
            limit: LIMIT,
            addresses: Addresses::InMemory,
            ..Reading::default()
        };
        read(&folder.join(name), None, &reading).unwrap()
    }

    /// The value compared, and the total of each side.
    fn compared(file: &str) -> (String, [i64; 2]) {
        let values = ["v1", "v2"].map(|version| fixture(&format!("{file}.{version}.pb.gz")));
        assert_eq!(value_name(&values[0]), value_name(&values[1]));
        (value_name(&values[0]), [values[0].total(), values[1].total()])
    }

    #[test]
    fn the_type_that_the_file_wants_to_be_looked_at_by_is_compared() {
        assert_eq!(
            compared("default-type"),
            ("alloc_space/bytes".to_owned(), [1_000_000, 3_000_000])
        );
    }

    #[test]
    fn samples_at_two_rates_are_one_second_on_both_sides() {
        assert_eq!(compared("rates"), ("cpu/nanoseconds".to_owned(), [1_000_000_000; 2]));
    }

    #[test]
    fn files_of_any_format_that_is_read_are_compared() {
        let [before, after] = ["v1", "v2"].map(|version| fixture(&format!("py-spy-0.4.3-{version}.raw")));
        assert_eq!(value_name(&before), "cpu/nanoseconds");
        assert_eq!(value_name(&after), value_name(&before));
        assert!(before.total() > 0 && after.total() > 0);
        assert_eq!(
            value_name(&fixture("pyinstrument-5.1.3.speedscope.json")),
            "wall/nanoseconds"
        );
    }

    #[test]
    fn two_processes_of_one_program_have_the_same_places() {
        let names = ["v1", "v2"].map(|version| {
            let value = fixture(&format!("aslr.{version}.pb.gz"));
            let mut names: Vec<String> = pprof::resolve_named(&value)
                .functions
                .into_iter()
                .map(|f| f.name.clone())
                .collect();
            names.sort();
            names
        });
        assert_eq!(names[0], names[1]);
        assert!(names[0].contains(&"0x3340".to_owned()), "{names:?}");
    }
}
