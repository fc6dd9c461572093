//! Flame graphs of trees from outside the store, for the command line: the same pictures as the API's.

use emberline_model::tree::FlameTree;

use crate::{
    exports::{html, svg},
    http::error::ApiError,
};

pub use crate::exports::Labels;

/// A comparison as SVG. `divisors` are baseline's and candidate's: equal values per divisor have no colour.
pub fn diff_svg(tree: &FlameTree, divisors: [f64; 2], labels: &Labels<'_>) -> Result<Vec<u8>, ApiError> {
    svg::diff(tree, divisors, labels)
}

/// The picture of [`diff_svg`] in a single-file page, below `sentence`.
pub fn diff_html(
    tree: &FlameTree,
    divisors: [f64; 2],
    labels: &Labels<'_>,
    sentence: &str,
) -> Result<Vec<u8>, ApiError> {
    html::page(svg::diff(tree, divisors, labels)?, labels, sentence)
}
