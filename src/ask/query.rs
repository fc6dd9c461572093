//! `emberline query top|series|diff`: the same data as on the pages, as tables or JSON.

use std::process::ExitCode;

use anyhow::Result;
use emberline_model::comparison::{FunctionRow, Per};
use emberline_web::types::{DiffFunctions, Merge, OneSeries, SeriesAnswer};
use serde_json::Value;

use super::{
    print,
    table::{amount, draw, signed},
};
use crate::{
    cli::{QueryArgs, QueryCommand, QueryDiffArgs, QuerySeriesArgs, QueryTopArgs, TableOutput},
    client::Target,
};

pub(crate) fn run(args: &QueryArgs) -> Result<ExitCode> {
    print(answer(args)?.as_bytes())
}

/// The text to print.
pub(super) fn answer(args: &QueryArgs) -> Result<String> {
    let question = match &args.command {
        QueryCommand::Top(top) => top_question(top),
        QueryCommand::Series(series) => series_question(series),
        QueryCommand::Diff(diff) => diff_question(diff),
    };
    if args.output == TableOutput::Json {
        return Ok(format!("{:#}\n", question.ask_json::<Value>(&args.server)?));
    }
    Ok(match &args.command {
        QueryCommand::Top(_) => top_table(&question.ask_json(&args.server)?),
        QueryCommand::Series(_) => series_table(&question.ask_json(&args.server)?),
        QueryCommand::Diff(_) => diff_table(&question.ask_json(&args.server)?),
    })
}

/// Queries the function table; the tree is for pages.
fn top_question(args: &QueryTopArgs) -> Target {
    Target::new("/api/v1/merge")
        .selection(&args.selection)
        .with("limit", &1)
        .with("functions_limit", &args.rows)
}

fn series_question(args: &QuerySeriesArgs) -> Target {
    Target::new("/api/v1/series")
        .selection(&args.selection)
        .maybe("group_by", args.group_by.as_ref())
        .maybe("step", args.step.as_ref())
}

fn diff_question(args: &QueryDiffArgs) -> Target {
    Target::new("/api/v1/functions")
        .with("service", &args.service)
        .maybe("namespace", args.namespace.as_ref())
        .maybe("baseline", args.baseline.as_ref())
        .maybe("candidate", args.candidate.as_ref())
        .maybe("route", args.route.as_ref())
        // As on the page: if requests cannot be the divisor, seconds are.
        .with("per", &"best")
        .range(&args.range)
        .with("functions_limit", &args.rows)
}

fn share(part: i64, whole: i64) -> String {
    match whole {
        0 => String::new(),
        whole => format!("{:.1} %", part as f64 * 100.0 / whole as f64),
    }
}

fn top_table(answer: &Merge) -> String {
    let (unit, total) = (answer.query.unit.as_str(), answer.total);
    let shown = |value: i64| amount(value as f64, unit);
    let mut lines: Vec<Vec<String>> = answer
        .functions
        .iter()
        .map(|row| {
            vec![
                shown(row.self_value),
                share(row.self_value, total),
                shown(row.total),
                share(row.total, total),
                row.samples.to_string(),
                row.name().to_owned(),
            ]
        })
        .collect();
    let cut = &answer.functions_cut;
    if cut.count > 0 {
        lines.push(vec![
            shown(cut.self_value),
            share(cut.self_value, total),
            String::new(),
            String::new(),
            String::new(),
            more_functions(cut.count),
        ]);
    }
    let heading = ["self", "self %", "total", "total %", "samples", "function"];
    format!(
        "{} in {} samples\n{}",
        shown(total),
        answer.samples,
        draw(&heading, &lines)
    )
}

fn more_functions(count: u64) -> String {
    format!("({count} more functions; --rows shows more)")
}

fn series_table(answer: &SeriesAnswer) -> String {
    let unit = answer.query.unit.as_str();
    let line = |series: &OneSeries| {
        let values = &series.values;
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        let largest = values.iter().copied().fold(0.0, f64::max);
        let labels = answer.group_by.iter().zip(&series.labels);
        let labels: Vec<String> = labels.map(|(name, value)| format!("{name}={value}")).collect();
        vec![
            amount(series.total as f64, unit),
            values.len().to_string(),
            amount(mean, unit),
            amount(largest, unit),
            values.last().map(|&last| amount(last, unit)).unwrap_or_default(),
            labels.join(" "),
        ]
    };
    let lines: Vec<Vec<String>> = answer.series.iter().map(line).collect();
    let cut = &answer.series_cut;
    let rest = match cut.count {
        0 => String::new(),
        count => format!(
            "and {count} more series with {} in total\n",
            amount(cut.total as f64, unit)
        ),
    };
    let heading = ["total", "points", "mean", "largest", "last", "labels"];
    format!(
        "steps of {} s, {}\n{}{rest}",
        answer.step_s,
        answer.aggregation,
        draw(&heading, &lines)
    )
}

pub(super) fn diff_table(answer: &DiffFunctions) -> String {
    let (baseline, candidate) = (&answer.baseline, &answer.candidate);
    let per = match answer.per {
        Per::Total => String::new(),
        Per::Second => " per second, because the releases lack CPU and requests for the same time".to_owned(),
        per => format!(" per {}", per.as_str()),
    };
    let unit = answer.unit.as_str();
    let line = |row: &FunctionRow| {
        let is_guilty = answer.guilty.as_ref() == Some(&row.id);
        vec![
            amount(row.self_a, unit),
            amount(row.self_b, unit),
            signed(row.delta_self, unit),
            signed(row.delta_total, unit),
            format!("{:.3}", row.q_value),
            row.state.as_str().to_owned(),
            format!("{}{}", row.name, if is_guilty { "  ← look here first" } else { "" }),
        ]
    };
    let mut lines: Vec<Vec<String>> = answer.functions.iter().map(line).collect();
    if answer.functions_cut.count > 0 {
        let mut more = vec![String::new(); 6];
        more.push(more_functions(answer.functions_cut.count));
        lines.push(more);
    }
    let heading = [
        "self before",
        "self after",
        "change",
        "total change",
        "q",
        "state",
        "function",
    ];
    format!(
        "{} → {}: {} → {}{per}\n{}",
        baseline.version,
        candidate.version,
        amount(baseline.value, unit),
        amount(candidate.value, unit),
        draw(&heading, &lines)
    )
}
