//! The Firefox Profiler's processed profile format, version 48: one thread per side, whose samples are the stacks of
//! the tree. Readers upgrade older versions, so this one stays readable.
//!
//! Guarantee: the weights of a thread add up to the API's total for that side; nanoseconds are written as milliseconds,
//! the format's only unit of time for weights. Wrong on purpose: a sum has no times, so a sample is placed as if all
//! stacks had run one after the other, and a stack of more than 2^53 ns loses its last digits.

use std::collections::HashMap;

use emberline_model::{
    function::Program,
    tree::{FlameTree, NodeKind},
};
use serde_json::{Value, json};

use super::UNKNOWN;
use crate::http::error::ApiError;

/// The version written.
const VERSION: u32 = 48;

/// Names and colours of the categories; the format requires a grey one, the default.
const CATEGORIES: [(&str, &str); 2] = [("Other", "grey"), ("Library", "lightblue")];

/// Strings of a thread, each once.
#[derive(Default)]
struct Strings {
    all: Vec<String>,
    index: HashMap<String, usize>,
}

impl Strings {
    fn get(&mut self, text: &str) -> usize {
        if let Some(&index) = self.index.get(text) {
            return index;
        }
        self.all.push(text.to_owned());
        self.index.insert(text.to_owned(), self.all.len() - 1);
        self.all.len() - 1
    }
}

/// Tables shared by all threads of one tree.
struct Tables {
    strings: Vec<String>,
    stacks: Value,
    frames: Value,
    functions: Value,
    resources: Value,
    /// Row of the stack table for each node; the root's is that of code without a function.
    stack_of_node: Vec<Option<usize>>,
}

impl Tables {
    fn of(tree: &FlameTree) -> Tables {
        let mut strings = Strings::default();
        let (mut names, mut files, mut resource_of, mut categories) = (vec![], vec![], vec![], vec![]);
        let (mut resources, mut resource_names): (HashMap<&str, usize>, Vec<usize>) = (HashMap::new(), Vec::new());
        let program = Program::of(&tree.functions, &[]);
        for info in &tree.functions {
            names.push(strings.get(&info.name));
            files.push((!info.file.is_empty()).then(|| strings.get(&info.file)));
            categories.push(usize::from(program.is_library(info)));
            let resource = match info.module.as_str() {
                "" => -1,
                module => *resources.entry(module).or_insert_with(|| {
                    resource_names.push(strings.get(module));
                    resource_names.len() - 1
                }) as i64,
            };
            resource_of.push(resource);
        }
        let unknown = names.len();
        names.push(strings.get(UNKNOWN));
        files.push(None);
        categories.push(0);
        resource_of.push(-1);

        let (mut prefix, mut frame, mut category) = (Vec::new(), Vec::new(), Vec::new());
        let mut path: Vec<usize> = Vec::new();
        let mut stack_of_node = Vec::with_capacity(tree.nodes.len());
        for node in &tree.nodes {
            let (function, parent) = match node.kind {
                NodeKind::Root if node.self_value == [0, 0] => {
                    stack_of_node.push(None);
                    continue;
                }
                NodeKind::Root => (unknown, None),
                // Exports are written from uncut trees.
                NodeKind::Cut(_) => {
                    stack_of_node.push(None);
                    continue;
                }
                NodeKind::Function(function) => {
                    path.truncate(node.depth as usize - 1);
                    (function as usize, path.last().copied())
                }
            };
            let row = prefix.len();
            prefix.push(parent);
            frame.push(function);
            category.push(categories[function]);
            if node.depth > 0 {
                path.push(row);
            }
            stack_of_node.push(Some(row));
        }
        let (functions, rows) = (names.len(), prefix.len());
        let nulls = vec![Value::Null; functions];
        Tables {
            strings: strings.all,
            stacks: json!({
                "length": rows, "prefix": prefix, "frame": frame, "category": category, "subcategory": vec![0; rows],
            }),
            frames: json!({
                "length": functions, "address": vec![-1; functions], "inlineDepth": vec![0; functions],
                "category": categories, "subcategory": vec![0; functions], "func": (0..functions).collect::<Vec<_>>(),
                "nativeSymbol": nulls, "innerWindowID": vec![0; functions], "implementation": nulls, "line": nulls,
                "column": nulls,
            }),
            functions: json!({
                "length": functions, "name": names, "isJS": vec![false; functions],
                "relevantForJS": vec![false; functions], "resource": resource_of, "fileName": files,
                "lineNumber": nulls, "columnNumber": nulls,
            }),
            resources: json!({
                "length": resource_names.len(), "lib": vec![Value::Null; resource_names.len()],
                "host": vec![Value::Null; resource_names.len()],
                // 1 means library.
                "type": vec![1; resource_names.len()], "name": resource_names,
            }),
            stack_of_node,
        }
    }

    fn thread(&self, tree: &FlameTree, side: usize, name: &str, unit: &str) -> Value {
        let milliseconds = unit == "nanoseconds";
        let weigh = |value: i64| match milliseconds {
            true => json!(value as f64 / 1e6),
            false => json!(value),
        };
        let (mut stacks, mut weights, mut times) = (Vec::new(), Vec::new(), Vec::new());
        let mut before = 0i64;
        for (node, stack) in tree.nodes.iter().zip(&self.stack_of_node) {
            let value = node.self_value[side];
            if value == 0 {
                continue;
            }
            stacks.push(*stack);
            weights.push(weigh(value));
            times.push(weigh(before));
            before = before.saturating_add(value);
        }
        json!({
            "name": name, "processName": name, "processType": "default", "isMainThread": true,
            "pid": side.to_string(), "tid": side,
            "processStartupTime": 0, "processShutdownTime": null, "registerTime": 0, "unregisterTime": null,
            "pausedRanges": [],
            "samples": {
                "length": stacks.len(), "stack": stacks, "time": times, "weight": weights,
                "weightType": match unit {
                    "nanoseconds" => "tracing-ms",
                    "bytes" => "bytes",
                    _ => "samples",
                },
            },
            "markers": {
                "length": 0, "data": [], "name": [], "startTime": [], "endTime": [], "phase": [], "category": [],
            },
            "stackTable": self.stacks, "frameTable": self.frames, "funcTable": self.functions,
            "resourceTable": self.resources,
            "nativeSymbols": { "length": 0, "libIndex": [], "address": [], "name": [], "functionSize": [] },
            "stringArray": self.strings,
        })
    }
}

/// Writes a tree; `sides` names the sides to write, starting with side 0. `from_ms` is when the profile began.
pub(crate) fn write(
    tree: &FlameTree,
    title: &str,
    sides: &[&str],
    unit: &str,
    from_ms: i64,
) -> Result<Vec<u8>, ApiError> {
    let tables = Tables::of(tree);
    let threads = sides.iter().enumerate();
    let threads: Vec<Value> = threads
        .map(|(side, name)| tables.thread(tree, side, name, unit))
        .collect();
    let categories: Vec<Value> = CATEGORIES
        .iter()
        .map(|(name, color)| json!({ "name": name, "color": color, "subcategories": ["Other"] }))
        .collect();
    let profile = json!({
        "meta": {
            "version": 27, "preprocessedProfileVersion": VERSION, "interval": 1, "startTime": from_ms,
            "processType": 0, "product": title, "stackwalk": 1, "debug": false, "symbolicated": true,
            "categories": categories, "markerSchema": [],
            "importedFrom": concat!("Emberline ", env!("CARGO_PKG_VERSION")),
        },
        "libs": [],
        "threads": threads,
    });
    serde_json::to_vec(&profile).map_err(|error| ApiError::internal(format!("cannot encode the profile: {error}")))
}
