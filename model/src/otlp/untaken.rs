//! Unsupported OTLP signals: how many spans or log records a request contained, for the response.
//!
//! Guarantee: counting keeps nothing of the content in memory, and follows only the three levels of the messages.

use serde::{Deserialize, de::IgnoredAny};

use super::{DecodeError, generations::for_messages};

/// Spans or log records of a request in protobuf; both have the same shape: resources, scopes, items.
///
/// # Errors
/// When the bytes are not such a message.
pub fn count_items(bytes: &[u8]) -> Result<u64, DecodeError> {
    let mut items = 0;
    for_messages(bytes, 0..bytes.len(), 1, &mut |resource| {
        for_messages(bytes, resource, 2, &mut |scope| {
            for_messages(bytes, scope, 2, &mut |_| {
                items += 1;
                Ok(())
            })
        })
    })?;
    Ok(items)
}

/// The same for a request in JSON.
///
/// # Errors
/// When the text is not such a message.
pub fn count_items_in_json(text: &[u8]) -> Result<u64, serde_json::Error> {
    let request: Request = serde_json::from_slice(text)?;
    let scopes = request.resources.iter().flat_map(|resource| &resource.scopes);
    Ok(scopes.map(|scope| scope.items.len() as u64).sum())
}

#[derive(Deserialize)]
struct Request {
    #[serde(default, alias = "resourceSpans", alias = "resourceLogs")]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    #[serde(default, alias = "scopeSpans", alias = "scopeLogs")]
    scopes: Vec<Scope>,
}

#[derive(Deserialize)]
struct Scope {
    #[serde(default, alias = "spans", alias = "logRecords")]
    items: Vec<IgnoredAny>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_counted_in_both_forms() {
        // Two scopes of one resource, with two items and one; then a resource without any.
        let scope = |items: &[u8]| [&[0x12, items.len() as u8][..], items].concat();
        let resource = [scope(&[0x12, 0, 0x12, 1, 0x08]), scope(&[0x12, 0])].concat();
        assert!(count_items(&[&[0x0a, resource.len() as u8][..], &resource].concat()).is_ok_and(|n| n == 3));
        assert!(count_items(&[]).is_ok_and(|n| n == 0));
        assert!(count_items(&[0x0a, 9, 1]).is_err());
        for (name, scopes, items) in [
            ("resourceSpans", "scopeSpans", "spans"),
            ("resourceLogs", "scopeLogs", "logRecords"),
        ] {
            let text = format!(
                r#"{{"{name}":[{{"resource":{{}},"{scopes}":[{{"{items}":[{{"a":[1]}},{{}}]}},{{}}]}},{{}}]}}"#
            );
            assert_eq!(count_items_in_json(text.as_bytes()).unwrap(), 2, "{text}");
        }
        assert_eq!(count_items_in_json(b"{}").unwrap(), 0);
        assert!(count_items_in_json(b"[").is_err());
    }
}
