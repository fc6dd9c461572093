//! The API's responses as TypeScript: `web/ui/src/api.generated.ts`, which the pages are type-checked against.
//!
//! Guarantees: every response to a `GET` and all its parts are included, with the parameters of its query; an unknown
//! kind of schema is an error, never `any`. Every field of a response is always sent (a test of this crate checks
//! that), so none is optional.
//!
//! Hand-written instead of openapi-typescript 7: that needs the programming interface of TypeScript 5, which the
//! TypeScript 7 of the pages no longer has.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

const HEAD: &str = "// Generated from the types of the server; do not edit. To regenerate it:
// cargo build --release --workspace --example api_types && target/release/examples/api_types > web/ui/src/api.generated.ts
";

/// Writes the types of a document.
pub(crate) fn write(document: &Value) -> Result<String, String> {
    let mut text = HEAD.to_owned();
    let mut wanted = BTreeSet::new();
    text.push_str("\n/** Parameters and response type of each query. */\nexport interface Questions {\n");
    let paths: BTreeMap<_, _> = document["paths"].as_object().into_iter().flatten().collect();
    for (path, operations) in paths {
        let asked = &operations["get"];
        if asked.is_null() {
            continue;
        }
        let answer = &asked["responses"]["200"]["content"]["application/json"]["schema"];
        let answer = type_of(answer, &mut wanted).map_err(|why| format!("the answer of {path}: {why}"))?;
        let parameters = asked["parameters"].as_array().into_iter().flatten();
        let parameters: Vec<String> = parameters.map(|one| one["name"].to_string()).collect();
        let parameters = match parameters.is_empty() {
            true => "never".to_owned(),
            false => parameters.join(" | "),
        };
        let path = path.trim_start_matches('/');
        text.push_str(&format!(
            "  {path:?}: {{ parameter: {parameters}; answer: {answer} }};\n"
        ));
    }
    text.push_str("}\n");
    let failure = serde_json::json!({ "$ref": "#/components/schemas/ErrorBody" });
    type_of(&failure, &mut wanted)?;
    let mut written = BTreeMap::new();
    while let Some(name) = wanted.iter().find(|name| !written.contains_key(*name)).cloned() {
        let schema = &document["components"]["schemas"][&name];
        let declared = declaration(&name, schema, &mut wanted).map_err(|why| format!("{name}: {why}"))?;
        written.insert(name, declared);
    }
    written.values().for_each(|declared| text.push_str(declared));
    Ok(text)
}

fn declaration(name: &str, schema: &Value, wanted: &mut BTreeSet<String>) -> Result<String, String> {
    let comment = comment(schema, "\n");
    Ok(match schema["properties"].is_object() {
        true => format!("\n{comment}export interface {name} {}\n", fields(schema, wanted)?),
        false => format!("\n{comment}export type {name} = {};\n", type_of(schema, wanted)?),
    })
}

fn comment(schema: &Value, end: &str) -> String {
    let said = schema["description"].as_str().unwrap_or_default();
    let line: Vec<&str> = said.split_whitespace().collect();
    match line.is_empty() {
        true => String::new(),
        false => format!("/** {} */{end}", line.join(" ").replace("*/", "*\u{200b}/")),
    }
}

/// The fields of an object, one per line.
fn fields(schema: &Value, wanted: &mut BTreeSet<String>) -> Result<String, String> {
    let all: BTreeMap<_, _> = schema["properties"].as_object().into_iter().flatten().collect();
    let mut text = "{\n".to_owned();
    for (name, field) in all {
        let kind = type_of(field, wanted).map_err(|why| format!("{name}: {why}"))?;
        text.push_str(&format!("  {}{name}: {kind};\n", comment(field, " ")));
    }
    text.push('}');
    Ok(text)
}

/// The type of a schema; the names that it refers to are added to `wanted`.
fn type_of(schema: &Value, wanted: &mut BTreeSet<String>) -> Result<String, String> {
    if let Some(name) = schema["$ref"].as_str().and_then(|to| to.rsplit('/').next()) {
        wanted.insert(name.to_owned());
        return Ok(name.to_owned());
    }
    for (key, between) in [("oneOf", " | "), ("anyOf", " | "), ("allOf", " & ")] {
        if let Some(parts) = schema[key].as_array() {
            let mut types: Vec<String> = parts
                .iter()
                .map(|part| type_of(part, wanted))
                .collect::<Result<_, _>>()?;
            // Null comes last.
            types.sort_by_key(|one| one == "null");
            return Ok(types.join(between));
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<String> = words.iter().map(Value::to_string).collect();
        return Ok(words.join(" | "));
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let types = kinds.into_iter().map(|kind| match kind {
        "string" | "boolean" | "null" => Ok(kind.to_owned()),
        "integer" | "number" => Ok("number".to_owned()),
        "array" => Ok(match type_of(&schema["items"], wanted)? {
            several if several.contains(' ') => format!("({several})[]"),
            one => format!("{one}[]"),
        }),
        "object" if schema["properties"].is_object() => fields(schema, wanted),
        "object" if schema["additionalProperties"].is_object() => {
            let value = type_of(&schema["additionalProperties"], wanted)?;
            Ok(format!("Record<string, {value}>"))
        }
        "object" => Ok("Record<string, unknown>".to_owned()),
        other => Err(format!("no type of TypeScript for `{other}` in {schema}")),
    });
    let types: Vec<String> = types.collect::<Result<_, _>>()?;
    match types.is_empty() {
        true => Err(format!("a schema of a kind that cannot be written: {schema}")),
        false => Ok(types.join(" | ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(field: &Value) -> Value {
        json!({
            "paths": {
                "/api/v1/all": { "get": {
                    "parameters": [{ "name": "from" }, { "name": "to" }],
                    "responses": { "200": { "content": { "application/json": { "schema": { "$ref": "#/components/schemas/All" } } } } },
                } },
                "/api/v1/one": { "delete": {} },
            },
            "components": { "schemas": {
                "All": { "type": "object", "description": "All\nof it.", "properties": { "field": field } },
                "Part": { "type": "string", "enum": ["a", "b"] },
                "Unused": { "type": "string" },
                "ErrorBody": { "allOf": [
                    { "$ref": "#/components/schemas/Part" },
                    { "type": "object", "properties": { "n": { "type": ["integer", "null"], "description": "How many." } } },
                ] },
            } },
        })
    }

    #[test]
    fn questions_answers_and_what_they_hold_are_written() {
        let field = json!({ "type": "array", "items": { "oneOf": [{ "type": "null" }, { "$ref": "#/components/schemas/Part" }] } });
        let text = write(&document(&field)).unwrap();
        let expected = format!(
            "{HEAD}
/** Parameters and response type of each query. */
export interface Questions {{
  \"api/v1/all\": {{ parameter: \"from\" | \"to\"; answer: All }};
}}

/** All of it. */
export interface All {{
  field: (Part | null)[];
}}

export type ErrorBody = Part & {{
  /** How many. */ n: number | null;
}};

export type Part = \"a\" | \"b\";
"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn maps_are_records_and_unknown_schemas_are_refused_by_name() {
        let map =
            json!({ "type": "object", "additionalProperties": { "type": "array", "items": { "type": "boolean" } } });
        assert!(
            write(&document(&map))
                .unwrap()
                .contains("field: Record<string, boolean[]>;")
        );
        assert!(
            write(&document(&json!({ "type": "object" })))
                .unwrap()
                .contains("field: Record<string, unknown>;")
        );
        for unknown in [json!({}), json!({ "type": "date" }), json!({ "type": "array" })] {
            let error = write(&document(&unknown)).unwrap_err();
            assert!(error.starts_with("All: field: "), "{error}");
        }
    }
}
