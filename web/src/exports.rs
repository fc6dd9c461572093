//! Profiles and comparisons in other programs' formats. Guarantee: every export is written from the exact tree,
//! before any display limit, so its total equals the API's.

pub(crate) mod columns;
pub(crate) mod firefox;
pub(crate) mod folded;
pub(crate) mod html;
pub(crate) mod pprof;
pub(crate) mod speedscope;
pub(crate) mod svg;

use axum::response::{IntoResponse, Response};
use emberline_model::{
    ProfileType,
    resolve::ResolvedStacks,
    tree::{FlameTree, NodeKind, Pair},
};
use emberline_storage::Range;
use http::{HeaderMap, HeaderValue, header};

use crate::{
    http::error::ApiError,
    query::params::{FORMAT, Params},
};

/// Labels of a picture.
#[derive(Debug, Clone, Copy)]
pub struct Labels<'a> {
    /// Heading.
    pub title: &'a str,
    /// Second line.
    pub subtitle: &'a str,
    /// Unit of the values.
    pub unit: &'a str,
}

/// The format of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// The API's own format.
    Json,
    /// The same, its tree as typed arrays.
    Columns,
    /// Gzipped pprof protobuf.
    Pprof,
    /// One stack per line: `outer;inner value`.
    Folded,
    /// A picture.
    Svg,
    /// A page that contains the picture, to keep or to send.
    Html,
    /// speedscope's JSON.
    Speedscope,
    /// The Firefox Profiler's JSON.
    Firefox,
}

impl Format {
    /// True for the API's own responses, whose tree is cut as requested; all others are files for other programs.
    pub(crate) fn is_answer(self) -> bool {
        matches!(self, Format::Json | Format::Columns)
    }

    /// By the `format` parameter, else by an Accept header that names exactly one known type. A browser's Accept header
    /// names many: an address opened by hand shows JSON.
    pub(crate) fn of(params: &Params, headers: &HeaderMap) -> Format {
        if let Some(word) = params.text(&FORMAT) {
            return match word {
                "pprof" => Format::Pprof,
                "folded" => Format::Folded,
                "svg" => Format::Svg,
                "html" => Format::Html,
                "speedscope" => Format::Speedscope,
                "firefox" => Format::Firefox,
                "columns" => Format::Columns,
                _ => Format::Json,
            };
        }
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        match accept.split(';').next().unwrap_or_default().trim() {
            "image/svg+xml" => Format::Svg,
            "text/html" => Format::Html,
            "application/vnd.speedscope+json" => Format::Speedscope,
            "application/vnd.firefox-profiler+json" => Format::Firefox,
            "text/plain" => Format::Folded,
            columns::CONTENT_TYPE => Format::Columns,
            "application/octet-stream" | "application/x-protobuf" | "application/vnd.google.protobuf" => Format::Pprof,
            _ => Format::Json,
        }
    }
}

/// The metadata of one profile's export.
pub(crate) struct About<'a> {
    /// What is measured.
    pub(crate) profile_type: &'a ProfileType,
    /// The range.
    pub(crate) range: Range,
    /// Heading.
    pub(crate) title: &'a str,
    /// Second line.
    pub(crate) subtitle: &'a str,
}

/// Writes one profile in any format but the API's own, in place of which it writes a picture.
pub(crate) fn profile(tree: &FlameTree, about: &About<'_>, format: Format) -> Result<Vec<u8>, ApiError> {
    let unit = about.profile_type.unit();
    let labels = Labels {
        title: about.title,
        subtitle: about.subtitle,
        unit,
    };
    match format {
        Format::Pprof => Ok(pprof::write(tree, about.profile_type, about.range, false)),
        Format::Folded => Ok(folded::profile(tree, about.profile_type).into_bytes()),
        Format::Speedscope => speedscope::write(tree, about.title, &[about.title], unit),
        Format::Firefox => {
            let from_ms = about.range.from_unix_s.saturating_mul(1000);
            firefox::write(tree, about.title, &[about.title], unit, from_ms)
        }
        Format::Svg | Format::Json | Format::Columns => svg::profile(tree, &labels),
        Format::Html => html::page(svg::profile(tree, &labels)?, &labels, ""),
    }
}

/// A complete export with the headers that browsers and tools need.
pub(crate) fn answer(body: Vec<u8>, format: Format, name: &str) -> Response {
    let (content_type, extension, attach) = match format {
        Format::Json => ("application/json", "json", false),
        Format::Columns => (columns::CONTENT_TYPE, "jslb", false),
        Format::Pprof => ("application/octet-stream", "pb.gz", true),
        Format::Folded => ("text/plain; charset=utf-8", "folded.txt", false),
        Format::Svg => ("image/svg+xml", "svg", false),
        // Saved, not shown: opened from disk, its picture can be zoomed; here the policy forbids its script.
        Format::Html => ("text/html; charset=utf-8", "html", true),
        Format::Speedscope => ("application/json", "speedscope.json", true),
        Format::Firefox => ("application/json", "firefox.json", true),
    };
    let plain: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    let disposition = format!(
        "{}; filename=\"{plain}.{extension}\"",
        if attach { "attachment" } else { "inline" }
    );
    let mut response = ([(header::CONTENT_TYPE, content_type)], body).into_response();
    response.headers_mut().insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_str(&disposition).expect("letters, digits and `-_.` are a header value"),
    );
    response
}

/// Calls `visit` with each stack of a tree (functions from the outermost to the leaf) and its value on both sides. The
/// values add up to the tree's total; an empty stack has no known function.
pub(crate) fn for_each_stack(tree: &FlameTree, mut visit: impl FnMut(&[u32], Pair)) {
    let mut path: Vec<u32> = Vec::new();
    for node in &tree.nodes {
        match node.kind {
            NodeKind::Root => {}
            NodeKind::Function(function) => {
                path.truncate(node.depth as usize - 1);
                path.push(function);
            }
            // Exports are written from uncut trees; a cut node's value would belong to its parent.
            NodeKind::Cut(_) => path.truncate(node.depth as usize - 1),
        }
        if node.self_value != [0, 0] {
            visit(&path, node.self_value);
        }
    }
}

/// The stacks of a tree in the form of the pprof codec: ids are positions.
pub(crate) fn stacks_of(tree: &FlameTree) -> (ResolvedStacks, Vec<(u64, Pair)>) {
    let mut stacks: Vec<(u64, Vec<u32>)> = Vec::new();
    let mut rows = Vec::new();
    for_each_stack(tree, |path, value| {
        let id = rows.len() as u64;
        if !path.is_empty() {
            stacks.push((id, path.iter().rev().copied().collect()));
        }
        rows.push((id, value));
    });
    let resolved = ResolvedStacks {
        functions: tree.functions.clone(),
        stacks: stacks.into_iter().collect(),
    };
    (resolved, rows)
}

/// The name of code without a known function.
pub(crate) const UNKNOWN: &str = "[unknown]";

/// A function's name for formats in which `;` separates frames and blanks separate values.
pub(crate) fn folded_name(name: &str) -> String {
    let clean = |c: char| match c {
        ';' => ',',
        c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => '\u{fffd}',
        c => c,
    };
    let mut name: String = name.chars().map(clean).collect();
    // A last word that is a number would be parsed as a value.
    if let Some(blank) = name.rfind(' ')
        && name[blank + 1..].parse::<f64>().is_ok()
    {
        name.replace_range(blank..=blank, "_");
    }
    let name = name.trim();
    if name.is_empty() {
        UNKNOWN.to_owned()
    } else {
        name.to_owned()
    }
}
