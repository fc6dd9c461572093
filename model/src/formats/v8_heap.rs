//! V8's `.heapprofile` (Node's `--heap-prof`): what was in use when it was written, by where it was allocated.
//!
//! Guarantee: the total is the sum of `selfSize`, which V8 has already scaled up from its samples.
//!
//! Wrong on purpose: objects are not counted, because the file contains the number of samples, not of the objects they
//! stand for. "In use" means after a garbage collection; what a program freed before its end is not in the file.
//!
//! The tree nests twice per call, deeper than JSON parsers allow: V8 records stacks of 128 frames.

use super::{
    call_tree::{Node, Rows},
    json_tokens::{Token, Tokens},
    read_error::{Outcome, ReadError},
    table::{Column, How, Table, memory},
};

/// What is open while the text is read.
#[derive(Clone, Copy)]
enum Open {
    File,
    Node(usize),
    Children(usize),
    Frame(usize),
}

/// Reads a file.
pub(super) fn read(json: &[u8], how: &How<'_>) -> Result<Outcome, ReadError> {
    let mut table = Table::new(vec![Column::new(memory("inuse_space", "bytes"), 0)], how.memory);
    let mut tokens = Tokens::new(json);
    let mut nodes: Vec<Node> = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let wrong = |tokens: &Tokens<'_>, what: &str| ReadError::byte(tokens.at(), what);
    match tokens.next()? {
        Some(Token::ObjectStart) => open.push(Open::File),
        _ => return Err(wrong(&tokens, "not an object")),
    }
    let node = |nodes: &mut Vec<Node>, table: &mut Table, parent: Option<usize>| -> Result<usize, ReadError> {
        table.charge(160)?;
        nodes.push(Node {
            parent,
            name: String::new(),
            file: String::new(),
            line: -1,
        });
        Ok(nodes.len() - 1)
    };
    let mut values: Vec<(usize, f64)> = Vec::new();
    while let Some(&at) = open.last() {
        let token = tokens.next()?;
        let token = token.ok_or_else(|| wrong(&tokens, "the text ends unexpectedly"))?;
        match (at, token) {
            (_, Token::ObjectEnd | Token::ListEnd) => {
                open.pop();
            }
            (Open::File, Token::Key(key)) if key == "head" => {
                if !matches!(tokens.next()?, Some(Token::ObjectStart)) {
                    return Err(wrong(&tokens, "`head` is not a node"));
                }
                open.push(Open::Node(node(&mut nodes, &mut table, None)?));
            }
            (Open::Node(at), Token::Key(key)) => match &*key {
                "callFrame" => match tokens.next()? {
                    Some(Token::ObjectStart) => open.push(Open::Frame(at)),
                    _ => return Err(wrong(&tokens, "`callFrame` is not an object")),
                },
                "children" => match tokens.next()? {
                    Some(Token::ListStart) => open.push(Open::Children(at)),
                    _ => return Err(wrong(&tokens, "`children` is not a list")),
                },
                "selfSize" => match tokens.next()? {
                    Some(Token::Number(size)) if (0.0..9e18).contains(&size) => values.push((at, size)),
                    _ => return Err(wrong(&tokens, "`selfSize` is not a size")),
                },
                _ => tokens.skip_value()?,
            },
            (Open::Children(parent), Token::ObjectStart) => {
                open.push(Open::Node(node(&mut nodes, &mut table, Some(parent))?));
            }
            (Open::Frame(at), Token::Key(key)) => {
                let known = matches!(&*key, "functionName" | "url" | "lineNumber");
                if !known {
                    tokens.skip_value()?;
                    continue;
                }
                match (&*key, tokens.next()?) {
                    ("functionName", Some(Token::Text(text))) => nodes[at].name = text.into_owned(),
                    ("url", Some(Token::Text(text))) => nodes[at].file = text.into_owned(),
                    ("lineNumber", Some(Token::Number(line))) => nodes[at].line = line as i64,
                    _ => return Err(wrong(&tokens, "a call frame has fields of the wrong type")),
                }
            }
            (Open::File, Token::Key(_)) => tokens.skip_value()?,
            _ => return Err(wrong(&tokens, "not a heap profile")),
        }
    }
    if nodes.is_empty() {
        return Err(ReadError::Content("`head` is missing".to_owned()));
    }
    let mut rows = Rows::new(&nodes);
    for (node, size) in values {
        if size > 0.0 {
            let row = rows.row(node, &mut table)?;
            table.add(row, 0, size as i64, 1)?;
        }
    }
    table.finish(0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_of_any_depth_are_read_up_to_the_longest_stack() {
        let how = How {
            kind: None,
            rate_hz: None,
            memory: 64 << 20,
        };
        let tree = |depth: usize| {
            let frame = r#"{"callFrame":{"functionName":"f","url":"a.js","lineNumber":1},"selfSize":2,"children":["#;
            format!(
                r#"{{"head":{}{},"samples":[{{"size":1}}]}}"#,
                frame.repeat(depth),
                "]}".repeat(depth)
            )
        };
        for depth in [1, 130, 1000] {
            let profiles = read(tree(depth).as_bytes(), &how).unwrap().profiles;
            assert_eq!(profiles[0].total(), 2 * depth as i64);
            assert_eq!(profiles[0].stacks.iter().map(Vec::len).max(), Some(depth));
        }
        let only_leaf = tree(5000).replacen(r#""selfSize":2"#, r#""selfSize":0"#, 4999);
        let error = read(only_leaf.as_bytes(), &how).unwrap_err();
        assert!(error.to_string().contains("4096"), "{error}");
    }
}
