//! `emberline query top|series|diff`: the same answers as the pages show, as tables or JSON.

use std::process::ExitCode;

use anyhow::Result;
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

/// The text that is printed.
pub(super) fn answer(args: &QueryArgs) -> Result<String> {
    let question = match &args.command {
        QueryCommand::Top(top) => top_question(top),
        QueryCommand::Series(series) => series_question(series),
        QueryCommand::Diff(diff) => diff_question(diff),
    };
    let answer = question.ask_json(&args.server)?;
    Ok(match (args.output, &args.command) {
        (TableOutput::Json, _) => format!("{answer:#}\n"),
        (TableOutput::Table, QueryCommand::Top(_)) => top_table(&answer),
        (TableOutput::Table, QueryCommand::Series(_)) => series_table(&answer),
        (TableOutput::Table, QueryCommand::Diff(_)) => diff_table(&answer),
    })
}

/// The function table; the tree is for pages.
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
        .range(&args.range)
        .with("functions_limit", &args.rows)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn rows(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn share(part: &Value, whole: &Value) -> String {
    match number(whole) {
        0.0 => String::new(),
        whole => format!("{:.1} %", number(part) * 100.0 / whole),
    }
}

fn top_table(answer: &Value) -> String {
    let (unit, total) = (text(&answer["query"]["unit"]), &answer["total"]);
    let mut lines: Vec<Vec<String>> = rows(&answer["functions"])
        .map(|row| {
            vec![
                amount(number(&row["self"]), unit),
                share(&row["self"], total),
                amount(number(&row["total"]), unit),
                share(&row["total"], total),
                row["samples"].to_string(),
                text(&row["name"]).to_owned(),
            ]
        })
        .collect();
    let cut = &answer["functions_cut"];
    if number(&cut["count"]) > 0.0 {
        lines.push(vec![
            amount(number(&cut["self"]), unit),
            share(&cut["self"], total),
            String::new(),
            String::new(),
            String::new(),
            format!("({} more functions; --rows shows more)", cut["count"]),
        ]);
    }
    let heading = ["self", "self %", "total", "total %", "samples", "function"];
    format!(
        "{} in {} samples\n{}",
        amount(number(total), unit),
        answer["samples"],
        draw(&heading, &lines)
    )
}

fn series_table(answer: &Value) -> String {
    let unit = text(&answer["query"]["unit"]);
    let line = |series: &Value| {
        let values: Vec<f64> = rows(&series["values"]).map(number).collect();
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        let largest = values.iter().copied().fold(0.0, f64::max);
        let labels: Vec<String> = rows(&answer["group_by"])
            .zip(rows(&series["labels"]))
            .map(|(name, value)| format!("{}={}", text(name), text(value)))
            .collect();
        vec![
            amount(number(&series["total"]), unit),
            values.len().to_string(),
            amount(mean, unit),
            amount(largest, unit),
            values.last().map(|&last| amount(last, unit)).unwrap_or_default(),
            labels.join(" "),
        ]
    };
    let lines: Vec<Vec<String>> = rows(&answer["series"]).map(line).collect();
    let cut = &answer["series_cut"];
    let rest = match number(&cut["count"]) {
        0.0 => String::new(),
        _ => format!(
            "and {} series more with {} in all\n",
            cut["count"],
            amount(number(&cut["total"]), unit)
        ),
    };
    let heading = ["total", "points", "mean", "largest", "last", "labels"];
    format!(
        "steps of {} s, {}\n{}{rest}",
        answer["step_s"],
        text(&answer["aggregation"]),
        draw(&heading, &lines)
    )
}

fn diff_table(answer: &Value) -> String {
    let (baseline, candidate) = (&answer["baseline"], &answer["candidate"]);
    let per = match text(&answer["per"]) {
        "total" => String::new(),
        per => format!(" per {per}"),
    };
    let shown = |value: &Value| amount(number(value), "nanoseconds");
    let line = |row: &Value| {
        let guilty = !answer["guilty"].is_null() && row["id"] == answer["guilty"];
        vec![
            shown(&row["self_a"]),
            shown(&row["self_b"]),
            signed(number(&row["delta_self"]), "nanoseconds"),
            signed(number(&row["delta_total"]), "nanoseconds"),
            format!("{:.3}", number(&row["q_value"])),
            text(&row["state"]).to_owned(),
            format!(
                "{}{}",
                text(&row["name"]),
                if guilty { "  ← look here first" } else { "" }
            ),
        ]
    };
    let mut lines: Vec<Vec<String>> = rows(&answer["functions"]).map(line).collect();
    let cut = &answer["functions_cut"]["count"];
    if number(cut) > 0.0 {
        let mut more = vec![String::new(); 6];
        more.push(format!("({cut} more functions; --rows shows more)"));
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
        text(&baseline["version"]),
        text(&candidate["version"]),
        shown(&baseline["value"]),
        shown(&candidate["value"]),
        draw(&heading, &lines)
    )
}
