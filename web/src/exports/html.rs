//! A page with a flame graph and its description, in one file without external references, to keep or to send.

use super::Labels;
use crate::http::error::ApiError;

/// Wraps a picture of [`super::svg`]; `sentence` is shown above it unless it is empty.
pub(crate) fn page(svg: Vec<u8>, labels: &Labels<'_>, sentence: &str) -> Result<Vec<u8>, ApiError> {
    let svg = String::from_utf8(svg).map_err(|_| ApiError::internal("the flame graph is not UTF-8"))?;
    // The XML prolog and the document type (a URL on another host) do not belong inside a page.
    let from = svg
        .find("<svg")
        .ok_or_else(|| ApiError::internal("the flame graph contains no image"))?;
    let title = escape(labels.title);
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>body {{ font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem; color: #24292f; background: #fff; }} svg {{ width: 100%; }}</style>\n\
         </head>\n<body>\n<h1>{title}</h1>\n{}<p>{}</p>\n{}\n</body>\n</html>\n",
        if sentence.is_empty() {
            String::new()
        } else {
            format!("<p>{}</p>\n", escape(sentence))
        },
        escape(labels.subtitle),
        &svg[from..]
    );
    Ok(page.into_bytes())
}

/// Text for element content and attribute values.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
