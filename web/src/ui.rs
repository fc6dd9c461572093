//! The user interface: files embedded at build time, or a directory on disk during development.
//!
//! Guarantees: every path that is not a file returns the start page, so that the page's own routes can be opened
//! directly; a missing asset is a 404 and never the start page; nothing outside the directory is read. Wrong on
//! purpose: files in a directory on disk are read for each request and not watched.

use std::{
    path::{Component, Path, PathBuf},
    sync::LazyLock,
};

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use rust_embed::RustEmbed;

use crate::{
    api,
    http::error::{ApiError, shorten},
    query::names,
    state::Web,
};

/// Paths besides the endpoints of the API.
pub(crate) const OTHER_ROUTES: [&str; 4] = ["/api/openapi.json", "/metrics", "/-/healthy", "/-/ready"];

/// Files of the built user interface, or of the placeholder page.
#[derive(RustEmbed)]
#[folder = "$EMBERLINE_UI_FOLDER"]
struct Embedded;

/// A file to respond with.
struct File {
    bytes: std::borrow::Cow<'static, [u8]>,
    etag: String,
}

/// Answers every path without a route.
pub(crate) async fn serve(State(web): State<Web>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path();
    if ["/api", "/-"]
        .iter()
        .any(|p| path == *p || path.strip_prefix(p).is_some_and(|rest| rest.starts_with('/')))
    {
        return unknown_address(path).into_response();
    }
    if method != Method::GET && method != Method::HEAD {
        return method_not_allowed().await.into_response();
    }
    let name = path.trim_start_matches('/');
    let found = match load(web.ui_dir.as_deref(), name).await {
        Some(file) if !name.is_empty() => Some((file, name)),
        _ if is_page(name) => load(web.ui_dir.as_deref(), "index.html")
            .await
            .map(|file| (file, "index.html")),
        _ => None,
    };
    match found {
        Some((file, name)) => answer(file, name, &headers),
        None => ApiError::not_found("no_such_file", format!("no such file: `{}`", shorten(path))).into_response(),
    }
}

/// Answers a method that a route does not support.
pub(crate) async fn method_not_allowed() -> ApiError {
    let message = "method not allowed: use GET or HEAD (only `/api/v1/services/{service}` accepts DELETE, `/api/v1/releases` POST)".to_owned();
    ApiError {
        status: StatusCode::METHOD_NOT_ALLOWED,
        code: "method_not_allowed",
        message,
        retry: false,
    }
}

fn unknown_address(path: &str) -> ApiError {
    static QUESTIONS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let endpoints = api::endpoints()
            .into_iter()
            .filter(|endpoint| endpoint.method() == "get");
        endpoints.map(|endpoint| endpoint.path().to_owned()).collect()
    });
    let known = QUESTIONS.iter().map(String::as_str).chain(OTHER_ROUTES);
    let message = format!("unknown address `{}`{}", shorten(path), names::suggestion(path, known));
    ApiError::not_found("unknown_address", message)
}

/// Paths of pages have no extension; `/compare` is one and `/assets/app.js` is not.
fn is_page(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or_default();
    last == "index.html" || (!last.contains('.') && !name.starts_with("assets/"))
}

async fn load(ui_dir: Option<&Path>, name: &str) -> Option<File> {
    let Some(folder) = ui_dir else {
        let file = Embedded::get(name)?;
        return Some(File {
            etag: hex(&file.metadata.sha256_hash()),
            bytes: file.data,
        });
    };
    // Only plain names: no `..`, no drive, no root. Nor may symbolic links lead outside.
    let relative: PathBuf = Path::new(name)
        .components()
        .map(|c| match c {
            Component::Normal(part) => Some(part),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let folder = tokio::fs::canonicalize(folder).await.ok()?;
    let file = tokio::fs::canonicalize(folder.join(relative)).await.ok()?;
    if !file.starts_with(&folder) || !file.is_file() {
        return None;
    }
    let bytes = tokio::fs::read(file).await.ok()?;
    let hash = emberline_model::id::key("ui file", &[&String::from_utf8_lossy(&bytes)]);
    Some(File {
        etag: format!("{hash:016x}"),
        bytes: bytes.into(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(16).map(|b| format!("{b:02x}")).collect()
}

fn answer(file: File, name: &str, asked: &HeaderMap) -> Response {
    // Weak, since the same content may be sent compressed or not.
    let etag = format!("W/\"{}\"", file.etag);
    let unchanged = asked
        .get(header::IF_NONE_MATCH)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|list| list.split(',').any(|tag| tag.trim() == etag || tag.trim() == "*"));
    let mut response = match unchanged {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => Response::new(Body::from(file.bytes)),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(name)));
    let cache = if name.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(
        header::ETAG,
        HeaderValue::from_str(&etag).expect("hexadecimal digits are a header value"),
    );
    response
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" | "webmanifest" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_no_extension() {
        for page in ["", "compare", "service/x", "index.html"] {
            assert!(is_page(page), "{page}");
        }
        for file in ["assets/app.js", "favicon.svg", "assets/missing"] {
            assert!(!is_page(file), "{file}");
        }
    }

    #[tokio::test]
    async fn nothing_outside_the_folder_is_read() {
        let outside = tempfile::tempdir().unwrap();
        let folder = outside.path().join("ui");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("index.html"), "inside").unwrap();
        std::fs::write(outside.path().join("secret"), "outside").unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), folder.join("link")).unwrap();
        assert!(load(Some(&folder), "index.html").await.is_some());
        for name in ["../secret", "link", "/etc/passwd", "./../secret", "", "a/../../secret"] {
            assert!(load(Some(&folder), name).await.is_none(), "{name}");
        }
    }
}
