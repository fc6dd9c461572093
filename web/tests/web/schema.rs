//! The OpenAPI document describes what is really answered.

use emberline_model::alert::AlertStatus;
use serde_json::Value;

use crate::support::{World, alert, shop};

/// Every address of the API, asked so that the answer is rich.
const QUESTIONS: [(&str, &str); 18] = [
    ("/api/v1/services", "from=now-2m"),
    ("/api/v1/releases", "service=checkout&from=now-2m"),
    ("/api/v1/service", "service=checkout&from=now-2m"),
    ("/api/v1/profile", "service=checkout&from=now-2m"),
    ("/api/v1/diff", "service=checkout&from=now-2m"),
    ("/api/v1/functions", "service=checkout&from=now-2m"),
    ("/api/v1/merge", "from=now-2m"),
    ("/api/v1/series", "group_by=service,version&from=now-2m"),
    ("/api/v1/heatmap", "from=now-2m"),
    ("/api/v1/exemplars", "from=now-2m"),
    ("/api/v1/callers", "function=shop::tax&from=now-2m"),
    ("/api/v1/labels", "from=now-2m"),
    ("/api/v1/label_values", "label=version&from=now-2m"),
    ("/api/v1/profile_types", "from=now-2m"),
    ("/api/v1/cardinality", "from=now-2m"),
    ("/api/v1/topology", "from=now-2m"),
    ("/api/v1/alerts", ""),
    ("/api/v1/status", ""),
];

/// What is wrong with a value, or nothing.
pub(crate) fn check(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document
            .pointer(reference.trim_start_matches('#'))
            .ok_or(format!("{reference} leads nowhere"))?;
        return check(document, target, value, at);
    }
    for any in ["oneOf", "anyOf"] {
        if let Some(choices) = schema[any].as_array() {
            let failures: Vec<String> = choices
                .iter()
                .filter_map(|choice| check(document, choice, value, at).err())
                .collect();
            return if failures.len() < choices.len() {
                Ok(())
            } else {
                Err(failures.join("; "))
            };
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        return if words.contains(value) {
            Ok(())
        } else {
            Err(format!("{at}: {value} is none of {words:?}"))
        };
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let mut kinds: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ if schema["allOf"].is_array() => vec!["object"],
        _ => return Err(format!("{at} has no type in {schema}")),
    };
    if kinds.contains(&"number") {
        kinds.push("integer");
    }
    if !kinds.contains(&kind) {
        return Err(format!("{at}: {value} is no {kinds:?}"));
    }
    if let Value::Array(items) = value {
        return items
            .iter()
            .enumerate()
            .try_for_each(|(n, item)| check(document, &schema["items"], item, &format!("{at}[{n}]")));
    }
    let Value::Object(fields) = value else { return Ok(()) };
    let (mut properties, mut required) = (Vec::new(), Vec::new());
    collect(document, schema, &mut properties, &mut required);
    if properties.is_empty() {
        return Ok(());
    }
    for (name, field) in fields {
        let Some((_, schema)) = properties.iter().find(|(known, _)| known == name) else {
            return Err(format!("{at}.{name} is not described"));
        };
        check(document, schema, field, &format!("{at}.{name}"))?;
    }
    match required.iter().find(|name| !fields.contains_key(**name)) {
        Some(missing) => Err(format!("{at}.{missing} is described as always there and is not")),
        // Every field is always sent, null or not: one that is described and missing was removed.
        None => match properties.iter().find(|(name, _)| !fields.contains_key(name)) {
            Some((missing, _)) => Err(format!("{at}.{missing} is described and not sent")),
            None => Ok(()),
        },
    }
}

/// Properties of an object, those of its parts included.
fn collect<'a>(
    document: &'a Value,
    schema: &'a Value,
    properties: &mut Vec<(String, &'a Value)>,
    required: &mut Vec<&'a str>,
) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).unwrap();
        return collect(document, target, properties, required);
    }
    if let Some(parts) = schema["allOf"].as_array() {
        parts
            .iter()
            .for_each(|part| collect(document, part, properties, required));
    }
    if let Some(own) = schema["properties"].as_object() {
        properties.extend(own.iter().map(|(name, schema)| (name.clone(), schema)));
    }
    if let Some(own) = schema["required"].as_array() {
        required.extend(own.iter().filter_map(Value::as_str));
    }
}

#[tokio::test]
async fn every_answer_is_as_described() {
    let world = World::new(shop()).await;
    let mut resolved = alert(AlertStatus::Resolved);
    resolved.function = None;
    let mut firing = alert(AlertStatus::Firing);
    let diff = world.json("/api/v1/diff?service=checkout&from=now-2m").await;
    firing.functions = serde_json::from_value(diff["functions"].clone()).unwrap();
    firing.latency = serde_json::from_value(diff["latency"].clone()).unwrap();
    assert!(!firing.functions.is_empty() && !firing.latency.quantiles.is_empty());
    world.state.alerts.replace(vec![firing, resolved]);

    let document = world.json("/api/openapi.json").await;
    let described: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    // One more deletes.
    assert_eq!(described.len(), QUESTIONS.len() + 1, "{described:?}");
    for (path, query) in QUESTIONS {
        let operation = &document["paths"][path]["get"];
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        assert!(!schema.is_null(), "{path}");
        let answer = world.json(&format!("{path}?{query}")).await;
        check(&document, schema, &answer, path).unwrap();
    }
    let functions =
        &document["paths"]["/api/v1/functions"]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
    let answer = world
        .json("/api/v1/functions?service=checkout&version=v1&from=now-2m")
        .await;
    check(&document, functions, &answer, "functions of one release").unwrap();
    let error = world.get("/api/v1/diff").await.json();
    let schema =
        &document["paths"]["/api/v1/diff"]["get"]["responses"]["default"]["content"]["application/json"]["schema"];
    check(&document, schema, &error, "error").unwrap();
}

#[test]
fn the_types_of_the_pages_are_those_of_the_server() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/ui/src/api.generated.ts");
    let committed = std::fs::read_to_string(path).unwrap();
    let types = emberline_web::api_types().unwrap();
    let differs = committed.lines().zip(types.lines()).find(|(a, b)| a != b);
    assert!(
        committed == types,
        "{path} is not what the types of the server give: write it anew, as its head says. First difference: {differs:?}"
    );
}

#[tokio::test]
async fn every_described_parameter_is_accepted_and_no_other() {
    let world = World::new(shop()).await;
    let document = world.json("/api/openapi.json").await;
    for (path, _) in QUESTIONS {
        let parameters = document["paths"][path]["get"]["parameters"].as_array().unwrap();
        for parameter in parameters {
            let name = parameter["name"].as_str().unwrap();
            let answer = world.get(&format!("{path}?{name}=")).await;
            assert!(!answer.text().contains("unknown_parameter"), "{path} {name}");
        }
        let answer = world.get(&format!("{path}?surely_not=1")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()["error"]["code"].as_str()),
            (400, Some("unknown_parameter")),
            "{path}"
        );
    }
    let ids: Vec<&str> = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|path| path.as_object().unwrap().values())
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect();
    let mut unique = ids.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), ids.len(), "{ids:?}");
}

#[tokio::test]
async fn alerts_can_be_narrowed_to_those_that_fire() {
    let world = World::new(shop()).await;
    world
        .state
        .alerts
        .replace(vec![alert(AlertStatus::Firing), alert(AlertStatus::Resolved)]);
    assert_eq!(
        world.json("/api/v1/alerts").await["alerts"].as_array().unwrap().len(),
        2
    );
    let firing = world.json("/api/v1/alerts?state=firing").await;
    assert_eq!(firing["alerts"].as_array().unwrap().len(), 1);
    assert_eq!(firing["alerts"][0]["state"], "firing");
    let page = world.json("/api/v1/service?service=checkout&from=now-2m").await;
    assert_eq!(page["alerts"].as_array().unwrap().len(), 2);
    let other = world.json("/api/v1/service?service=cart&from=now-2m").await;
    assert_eq!(other["alerts"].as_array().unwrap().len(), 0);
}
