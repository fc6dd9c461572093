//! Responses with their tree as typed arrays, for programs that draw: JsonSlabs, the container of the Firefox Profiler.
//! The first slab is the response of `format=json`, in which the columns of `tree` are references `{"$s": n}` to slabs.
//!
//! Guarantees: the same nodes in the same order as in JSON, with the same values: `scale` times the contents of a
//! column of self values, which is u32 if that is exact and f64 otherwise. Omitted on purpose: totals. A node's total
//! is its self value plus the totals of its children, and its children are the nodes after it that are one level
//! deeper, up to the first that is not deeper: depth and preorder determine all of it.

use json_slabs::{Builder, SlabPlaceholder};
use serde::Serialize;
use serde_json::{Value, json};

use crate::http::error::ApiError;

/// The content type.
pub(crate) const CONTENT_TYPE: &str = "application/vnd.emberline.columns";

/// A tree, column by column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) names: Vec<String>,
    pub(crate) modules: Vec<String>,
    pub(crate) name: Vec<u32>,
    pub(crate) module: Vec<u32>,
    pub(crate) depth: Vec<u32>,
    pub(crate) kind: Vec<u8>,
    /// Columns of self values, with their names.
    pub(crate) self_values: Vec<(&'static str, Vec<i64>)>,
    /// For comparisons: rows of the function table.
    pub(crate) function: Option<Vec<i32>>,
    /// For all nodes: what to query to see what was cut there; empty for other nodes.
    pub(crate) node: Vec<String>,
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The common factor of all values, if the quotients fit into 32 bits.
fn exact_scale(columns: &[(&'static str, Vec<i64>)]) -> Option<u64> {
    let (mut common, mut largest) = (0, 0);
    for &value in columns.iter().flat_map(|(_, values)| values) {
        let value = u64::try_from(value).ok()?;
        common = gcd(common, value);
        largest = largest.max(value);
    }
    let scale = common.max(1);
    (largest / scale <= u64::from(u32::MAX)).then_some(scale)
}

fn reference(slab: SlabPlaceholder) -> Value {
    json!({ "$s": slab.0 })
}

/// Writes a response whose `tree` was left empty.
pub(crate) fn write(answer: &impl Serialize, tree: Columns) -> Result<Vec<u8>, ApiError> {
    let mut skeleton = serde_json::to_value(answer)
        .map_err(|error| ApiError::internal(format!("cannot encode the response: {error}")))?;
    let mut slabs = Builder::new();
    let mut columns = json!({
        "names": tree.names,
        "modules": tree.modules,
        "name": reference(slabs.add_slab_from_vec(tree.name)),
        "module": reference(slabs.add_slab_from_vec(tree.module)),
        "depth": reference(slabs.add_slab_from_vec(tree.depth)),
        "kind": reference(slabs.add_slab_from_vec(tree.kind)),
    });
    let scale = exact_scale(&tree.self_values);
    columns["scale"] = json!(scale.unwrap_or(1));
    for (name, values) in tree.self_values {
        let slab = match scale {
            Some(scale) => {
                let scaled = |&value: &i64| u32::try_from(value.unsigned_abs() / scale).unwrap_or(u32::MAX);
                slabs.add_slab_from_vec(values.iter().map(scaled).collect::<Vec<u32>>())
            }
            None => slabs.add_slab_from_vec(values.iter().map(|&value| value as f64).collect::<Vec<f64>>()),
        };
        columns[name] = reference(slab);
    }
    if let Some(function) = tree.function {
        columns["function"] = reference(slabs.add_slab_from_vec(function));
    }
    let (at, node): (Vec<u32>, Vec<String>) = (0u32..).zip(tree.node).filter(|(_, node)| !node.is_empty()).unzip();
    columns["cut"] = json!({ "at": reference(slabs.add_slab_from_vec(at)), "node": node });
    skeleton["tree"] = columns;
    Ok(slabs.finish(skeleton.to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use json_slabs::ParsedFile;
    use proptest::prelude::*;

    use super::*;

    /// Self values of a response, as a reader computes them.
    fn read(bytes: &[u8], name: &str) -> Vec<f64> {
        let file = ParsedFile::parse(bytes).unwrap();
        let root: Value = serde_json::from_slice(file.root_json_bytes()).unwrap();
        let tree = &root["tree"];
        let slab = SlabPlaceholder(tree[name]["$s"].as_u64().unwrap() as _);
        let scale = tree["scale"].as_f64().unwrap();
        match file.read::<u32>(slab) {
            Ok(values) => values.iter().map(|&v| f64::from(v) * scale).collect(),
            Err(_) => file.read::<f64>(slab).unwrap().iter().map(|v| v * scale).collect(),
        }
    }

    fn tree(a: Vec<i64>, b: Vec<i64>) -> Columns {
        Columns {
            self_values: vec![("self_a", a), ("self_b", b)],
            ..Columns::default()
        }
    }

    proptest! {
        #[test]
        fn values_come_back_exactly(
            values in prop::collection::vec((0i64..1 << 20, 0i64..1 << 20), 0..50),
            factor in prop::sample::select(vec![1i64, 10_000_000, 1 << 32, 10_000_019]),
        ) {
            let (a, b): (Vec<i64>, Vec<i64>) = values.iter().map(|(a, b)| (a * factor, b * factor)).unzip();
            let bytes = write(&json!({}), tree(a.clone(), b.clone())).unwrap();
            let exact = |values: Vec<i64>| values.into_iter().map(|v| v as f64).collect::<Vec<_>>();
            prop_assert_eq!(read(&bytes, "self_a"), exact(a));
            prop_assert_eq!(read(&bytes, "self_b"), exact(b));
        }
    }

    #[test]
    fn values_without_a_common_factor_are_floating_point() {
        assert_eq!(exact_scale(&[("self", vec![1 << 40, 1])]), None);
        assert_eq!(exact_scale(&[("self", vec![-1])]), None);
        assert_eq!(exact_scale(&[("self", vec![0, 0])]), Some(1));
        let bytes = write(&json!({}), tree(vec![1 << 40, 1], vec![0, -7])).unwrap();
        assert_eq!(read(&bytes, "self_a"), [(1u64 << 40) as f64, 1.0]);
        assert_eq!(read(&bytes, "self_b"), [0.0, -7.0]);
    }
}
