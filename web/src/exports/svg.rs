//! Flame graphs as SVG, drawn by the `inferno` crate: the only module that uses it.
//!
//! Guarantee: well-formed XML whatever names contain. Wrong on purpose: the width of a comparison's frame is the
//! candidate's cost, as is usual for differential flame graphs, so a function that is gone has no width; the JSON tree
//! and the page show both sides.

use emberline_model::tree::FlameTree;
use inferno::flamegraph::{self, Direction, Options};

use super::{Labels, folded::lines};
use crate::http::error::ApiError;

/// Draws one profile.
pub(crate) fn profile(tree: &FlameTree, labels: &Labels<'_>) -> Result<Vec<u8>, ApiError> {
    let lines = lines(tree).into_iter().filter(|(_, value)| value[0] > 0);
    draw(
        &lines
            .map(|(stack, value)| format!("{stack} {}", value[0]))
            .collect::<Vec<_>>(),
        labels,
    )
}

/// Draws a comparison: widths are the candidate's, colours the difference. The baseline is scaled by the ratio of the
/// divisors (`[baseline, candidate]`), so that equal costs per request have no colour even if loads differ.
pub(crate) fn diff(tree: &FlameTree, divisors: [f64; 2], labels: &Labels<'_>) -> Result<Vec<u8>, ApiError> {
    let scale = if divisors[0] > 0.0 && divisors[1] > 0.0 {
        divisors[1] / divisors[0]
    } else {
        1.0
    };
    let scaled = lines(tree)
        .into_iter()
        .map(|(stack, [a, b])| (stack, (a as f64 * scale).round().max(0.0) as i64, b));
    let lines = scaled
        .filter(|(_, a, b)| *a > 0 || *b > 0)
        .map(|(stack, a, b)| format!("{stack} {a} {b}"));
    draw(&lines.collect::<Vec<_>>(), labels)
}

fn draw(lines: &[String], labels: &Labels<'_>) -> Result<Vec<u8>, ApiError> {
    if lines.is_empty() {
        return Ok(nothing(labels).into_bytes());
    }
    let mut options = Options::default();
    options.title = clean(labels.title);
    options.subtitle = Some(clean(labels.subtitle));
    options.count_name = labels.unit.to_owned();
    options.direction = Direction::Inverted;
    options.deterministic = true;
    options.min_width = 0.05;
    options.no_sort = true;
    let mut picture = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut picture)
        .map_err(|error| ApiError::internal(format!("cannot draw the flame graph: {error}")))?;
    Ok(picture)
}

/// Replaces characters that XML cannot contain by visible ones.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

fn nothing(labels: &Labels<'_>) -> String {
    format!(
        "<?xml version=\"1.0\" standalone=\"no\"?>\n<svg version=\"1.1\" width=\"1200\" height=\"80\" viewBox=\"0 0 1200 80\" \
         xmlns=\"http://www.w3.org/2000/svg\"><text x=\"20\" y=\"32\" font-family=\"sans-serif\" font-size=\"16\">{}</text>\
         <text x=\"20\" y=\"58\" font-family=\"sans-serif\" font-size=\"13\">No samples in this range.</text></svg>\n",
        super::html::escape(&clean(labels.title))
    )
}
