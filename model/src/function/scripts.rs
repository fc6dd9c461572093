//! Python, Ruby and PHP. Functions have bare names, so they are identified by file as well; Ruby and PHP methods may
//! include their class.
//!
//! Ruby counts nested blocks (`block (2 levels) in total`); unnamed objects are written with their address, PHP
//! closures with their line.

use super::{
    language::{Language, Rules},
    marks::{digits, hex_digits, without_each},
};

pub(super) const PYTHON: Rules = Rules {
    language: Language::Python,
    is_managed: true,
    endings: &["py", "pyx", "pyc", "pyi"],
    no_files: &["<frozen ", "<string>", "<stdin>", "<ipython-input"],
    is_certain: |name, marks| {
        marks.has(b'<')
            && (name.contains(".<locals>.")
                || matches!(
                    name,
                    "<module>" | "<listcomp>" | "<lambda>" | "<dictcomp>" | "<setcomp>" | "<genexpr>"
                ))
    },
    normalise: |name, marks| match marks.has(b'#') {
        // Written by `flame` and the like for any language.
        true => without_each(name, ":L#", digits, ""),
        false => None,
    },
    is_scoped_by_file: |_| true,
    is_library_name: |name| name == "<module>" || name.starts_with("process ") || name.starts_with("thread ("),
    library_folders: &[
        "/site-packages/",
        "/dist-packages/",
        "/lib/python3.",
        "/python3.",
        "<frozen ",
        "<string>",
    ],
    runtime: &[
        "_Py",
        "PyEval_",
        "PyObject_",
        "PyThread_",
        "Py_RunMain",
        "Py_BytesMain",
        "pymain_",
    ],
};

pub(super) const RUBY: Rules = Rules {
    language: Language::Ruby,
    is_managed: true,
    endings: &["rb", "erb", "rake", "ru"],
    no_files: &["<internal:", "(eval at "],
    is_certain: |name, marks| {
        marks.has(b' ')
            && ["block in ", "block (", "rescue in ", "ensure in "]
                .iter()
                .any(|begin| name.starts_with(begin))
            || marks.has(b'<') && (name == "<main>" || name == "<top (required)>" || name.starts_with("<class:"))
            || marks.has(b'#') && is_method(name)
    },
    normalise: |name, marks| {
        let blocks = match marks.has(b'(') {
            true => without_each(name, "block (", levels, "block in "),
            false => None,
        };
        let text = blocks.as_deref().unwrap_or(name);
        let addressed = match marks.has(b'#') {
            true => without_each(text, ":0x", hex_digits, ""),
            false => None,
        };
        addressed.or(blocks)
    },
    // `Cart#total` and `Cart.total` include their class.
    is_scoped_by_file: |name| !name.contains(['#', '.']) && !name.contains("::"),
    is_library_name: |name| {
        const CLASSES: [&str; 16] = [
            "Array#",
            "Hash#",
            "Integer#",
            "String#",
            "Kernel#",
            "Enumerable#",
            "Class#",
            "Module#",
            "Thread#",
            "IO#",
            "Range#",
            "ActiveRecord::",
            "ActiveSupport::",
            "ActionController::",
            "Rack::",
            "Puma::",
        ];
        matches!(name, "<main>" | "<top (required)>" | "(unknown)" | "<cfunc>")
            || CLASSES.iter().any(|class| name.starts_with(class))
    },
    library_folders: &["/gems/", "/lib/ruby/", "<internal:", "/vendor/bundle/"],
    runtime: &[
        "rb_vm_",
        "vm_exec",
        "rb_ec_",
        "ruby_run_node",
        "ruby_exec_node",
        "rb_funcall",
    ],
};

pub(super) const PHP: Rules = Rules {
    language: Language::Php,
    is_managed: true,
    endings: &["php", "phtml", "inc"],
    no_files: &[],
    is_certain: |name, marks| {
        marks.has(b'\\') && !marks.has(b'/') && !marks.has(b':')
            || marks.has(b'\\') && name.contains("::")
            || name == "{closure}"
            || name.starts_with("{closure:")
            || name.contains("@anonymous")
    },
    normalise: |name, marks| {
        // `{closure:Shop\Cart::total():12}`.
        let line = |text: &str| match digits(text) {
            0 => 0,
            line if text[line..].starts_with('}') => line,
            _ => 0,
        };
        let closure = match marks.has(b'{') {
            true => without_each(name, "():", line, "()"),
            false => None,
        };
        let text = closure.as_deref().unwrap_or(name);
        // After a NUL, already replaced here, come path, line and counter, up to the method.
        let path = |text: &str| match text.starts_with(['\u{fffd}', '\0']) {
            true => text.find("::").or_else(|| text.find("->")).unwrap_or(text.len()),
            false => 0,
        };
        without_each(text, "@anonymous", path, "@anonymous").or(closure)
    },
    is_scoped_by_file: |name| !name.contains(['\\', '>']) && !name.contains("::"),
    is_library_name: |name| {
        const SPACES: [&str; 9] = [
            "Symfony\\",
            "Illuminate\\",
            "Doctrine\\",
            "Composer\\",
            "Monolog\\",
            "GuzzleHttp\\",
            "Twig\\",
            "PDO",
            "Psr\\",
        ];
        matches!(name, "<main>" | "{main}" | "main()" | "<internal>")
            || SPACES.iter().any(|space| name.starts_with(space))
    },
    library_folders: &["/vendor/"],
    runtime: &["zend_", "execute_ex", "php_", "ZEND_"],
};

/// `2 levels) in `.
fn levels(text: &str) -> usize {
    let end = " levels) in ";
    match digits(text) {
        0 => 0,
        number if text[number..].starts_with(end) => number + end.len(),
        _ => 0,
    }
}

/// `Shop::Cart#total`.
fn is_method(name: &str) -> bool {
    let Some((class, method)) = name.split_once('#') else {
        return false;
    };
    class.starts_with(|c: char| c.is_ascii_uppercase() || c == '<')
        && class
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, ':' | '_' | '<' | '>'))
        && !method.is_empty()
        && !method.contains([' ', '{'])
}
