//! The part of a source file's path that is the same wherever the code is checked out, built and installed.
//!
//! Inside a package (`site-packages`, `node_modules`, `gems`, Composer's `vendor`, Python's own library) that is the
//! path within the package, without its version. Elsewhere nothing shows where the checkout ends: it is the file's
//! name, plus its folder if the name is a common one (`__init__.py`, `index.js`, `views.py`) and the folder does not
//! look like a checkout's.
//!
//! Wrong on purpose: two functions with the same name in two files with the same name are one function.

use std::borrow::Cow;

/// Folders that contain packages, and whether a folder of the package's version may follow its name.
const PACKAGE_FOLDERS: [&str; 6] = [
    "/site-packages/",
    "/dist-packages/",
    "/node_modules/",
    "/gems/",
    "/vendor/bundle/",
    "/vendor/",
];

/// Names, without extension, that occur in many folders of one program.
const COMMON_NAMES: [&str; 24] = [
    "__init__",
    "__main__",
    "index",
    "views",
    "view",
    "models",
    "model",
    "urls",
    "admin",
    "serializers",
    "tasks",
    "forms",
    "signals",
    "routes",
    "router",
    "controller",
    "service",
    "handler",
    "handlers",
    "helpers",
    "utils",
    "util",
    "types",
    "schema",
];

/// Folders that contain a whole program.
const PROGRAM_FOLDERS: [&str; 12] = [
    "app",
    "src",
    "code",
    "work",
    "workspace",
    "html",
    "www",
    "current",
    "dist",
    "build",
    "repo",
    "tmp",
];

/// The part of a path that is the same in every checkout.
pub(super) fn stable(file: &str) -> Cow<'_, str> {
    let file = file.split(['?', '#']).next().unwrap_or(file);
    if file.starts_with('<') || file.starts_with("node:") {
        return Cow::Borrowed(file);
    }
    // With a leading slash, so that a path relative to the parent of a package folder is found as well.
    let path = match file.starts_with('/') || !file.contains('/') {
        true => Cow::Borrowed(file),
        false => Cow::Owned(format!("/{file}")),
    };
    for folder in PACKAGE_FOLDERS {
        if let Some(at) = path.rfind(folder) {
            let inside = &path[at + folder.len()..];
            let versioned = folder == "/gems/";
            return Cow::Owned(match inside.split_once('/') {
                Some((package, rest)) if versioned => format!("{}/{rest}", without_version(package)),
                _ => inside.to_owned(),
            });
        }
    }
    if let Some(at) = python_library(&path) {
        return Cow::Owned(path[at..].to_owned());
    }
    let (folder, name) = match file.rsplit_once(['/', '\\']) {
        Some((folders, name)) => (folders.rsplit(['/', '\\', ':']).next().unwrap_or_default(), name),
        None => ("", file),
    };
    let stem = name.split('.').next().unwrap_or_default();
    if COMMON_NAMES.contains(&stem) && is_part_of_a_program(folder) {
        return Cow::Owned(format!("{folder}/{}", without_content_hash(name)));
    }
    without_content_hash(name)
}

/// Where the path within Python's own library begins: after `/python3.11/`.
fn python_library(path: &str) -> Option<usize> {
    let at = path.rfind("/python3.")? + "/python3.".len();
    let digits = path[at..].bytes().take_while(u8::is_ascii_digit).count();
    (digits > 0 && path[at + digits..].starts_with('/')).then_some(at + digits + 1)
}

/// A package of the program itself; a checkout folder has a version, a branch or a number in its name, or is a common
/// one.
fn is_part_of_a_program(folder: &str) -> bool {
    !folder.is_empty()
        && folder.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && !PROGRAM_FOLDERS.contains(&folder)
}

/// `rack` of `rack-3.0.8`.
fn without_version(package: &str) -> &str {
    match package.rsplit_once('-') {
        Some((name, version)) if version.starts_with(|c: char| c.is_ascii_digit()) => name,
        _ => package,
    }
}

/// `main.js` for `main.8e0d62a03e.js`: bundlers add a content hash.
fn without_content_hash(name: &str) -> Cow<'_, str> {
    let is_hash = |part: &str| {
        part.len() >= 8
            && part.bytes().all(|byte| byte.is_ascii_hexdigit())
            && part.bytes().any(|byte| byte.is_ascii_digit())
    };
    let Some((stem, ending)) = name.rsplit_once('.') else {
        return Cow::Borrowed(name);
    };
    match stem.rsplit_once(['.', '-']) {
        Some((head, hash)) if is_hash(hash) => Cow::Owned(format!("{head}.{ending}")),
        _ => Cow::Borrowed(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_path_is_the_same_in_every_checkout() {
        for (paths, expected) in [
            (
                &[
                    "/app/src/cart.js",
                    "/home/ci/build-12/src/cart.js",
                    "src/cart.js",
                    "cart.js",
                ][..],
                "cart.js",
            ),
            (
                &[
                    "file:///app/cart.mjs",
                    "/srv/v2/cart.mjs",
                    "webpack://shop/./src/cart.mjs?a1b2",
                ],
                "cart.mjs",
            ),
            (
                &["/app/cart/views.py", "/home/ci/shop-1.2/cart/views.py", "cart/views.py"],
                "cart/views.py",
            ),
            (&["/app/views.py", "/home/ci/build-12/views.py", "views.py"], "views.py"),
            (&["/app/dist/main.8e0d62a03e.js", "main.1a2b3c4d5e.js"], "main.js"),
            (
                &[
                    "/usr/lib/python3/dist-packages/flask/app.py",
                    "/srv/venv/lib/python3.11/site-packages/flask/app.py",
                ],
                "flask/app.py",
            ),
            (
                &[
                    "/usr/lib/python3.11/json/decoder.py",
                    "/opt/python/lib/python3.12/json/decoder.py",
                ],
                "json/decoder.py",
            ),
            (
                &[
                    "/app/node_modules/.pnpm/lodash@4.17.20/node_modules/lodash/index.js",
                    "/srv/node_modules/lodash/index.js",
                    "node_modules/lodash/index.js",
                ],
                "lodash/index.js",
            ),
            (
                &[
                    "/var/lib/gems/3.1.0/gems/rack-3.0.8/lib/rack.rb",
                    "/srv/vendor/bundle/ruby/3.1.0/gems/rack-3.1.1/lib/rack.rb",
                ],
                "rack/lib/rack.rb",
            ),
            (&["<frozen importlib._bootstrap>"], "<frozen importlib._bootstrap>"),
            (&["node:internal/timers"], "node:internal/timers"),
        ] {
            for path in paths {
                assert_eq!(stable(path), expected, "{path}");
            }
        }
        assert_ne!(stable("/app/cart/views.py"), stable("/app/price/views.py"));
        assert_ne!(stable("src/cart.js"), stable("src/price.js"));
    }
}
