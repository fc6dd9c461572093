//! Parses frames of text formats: function, file, line, and what is not a frame at all.
//!
//! Text formats have one string per frame, and every tool puts more into it than a name:
//!
//! | tool | writes | becomes |
//! |---|---|---|
//! | py-spy | `main (app.py:21)`, `run (<frozen runpy>:88)` | `main`, `app.py`, 21 |
//! | py-spy with processes, threads | `process 7:"python app.py"`, `thread (7): worker` | no frame |
//! | perf and V8's basic-prof map, 0x | `JS:*main /srv/a.js:3:14`, `LazyCompile:~main /srv/a.js:3` | `main`, `/srv/a.js`, 3 |
//! | filprofiler | `/srv/app.py:12 (main)` | `main`, `/srv/app.py`, 12 |
//! | heaptrack | `main (busy.c)` | `main`, `busy.c` |
//! | google-pprof | `main<0000000000001199>` | `main` |
//! | perf | `main (inlined)` | `main` |
//! | LuaJIT's profiler | `@0x562d1de3d2c0` (code that is not Lua) | `[C]` |
//! | LuaJIT's profiler | `shop.lua:8`, `shop.lua:0` | `(anonymous)` in line 8, `(main chunk)` of `shop.lua` |
//!
//! Guarantee: any other text is a function's name unchanged, including brackets, blanks and numbers; nothing becomes
//! empty.
//!
//! Wrong on purpose: processes and threads are dropped: another run has other ids, so no two trees would share a frame.

/// A frame of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TextFrame<'t> {
    pub(super) function: &'t str,
    /// Empty if unknown.
    pub(super) file: &'t str,
    /// 0 if unknown.
    pub(super) line: u32,
}

/// V8's name for code without one: anonymous functions, and the code of a whole file.
const ANONYMOUS: &str = "(anonymous)";

/// Name of a function that is known by nothing but its address of this process.
const NATIVE: &str = "[C]";
/// The code of a file of Lua outside of its functions.
const MAIN_CHUNK: &str = "(main chunk)";

/// Takes a frame apart.
pub(super) fn split(text: &str) -> TextFrame<'_> {
    let text = text.trim();
    if is_address(text) {
        return TextFrame {
            function: NATIVE,
            file: "",
            line: 0,
        };
    }
    let text = without_address(text.strip_suffix(" (inlined)").unwrap_or(text));
    javascript(text)
        .or_else(|| unnamed_lua(text))
        .or_else(|| place_and_function(text))
        .or_else(|| function_and_place(text))
        .unwrap_or(TextFrame {
            function: text,
            file: "",
            line: 0,
        })
}

/// `@0x562d1de3d2c0`.
fn is_address(text: &str) -> bool {
    let digits = text.strip_prefix("@0x").unwrap_or_default();
    (6..=16).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `main<0000000000001199>`: the address says only which instruction.
fn without_address(text: &str) -> &str {
    let Some(open) = text.strip_suffix('>').and_then(|text| text.rfind('<')) else {
        return text;
    };
    let digits = &text[open + 1..text.len() - 1];
    let is_address = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    match is_address && open > 0 {
        true => &text[..open],
        false => text,
    }
}

/// `JS:*main /srv/a.js:3:14`: the compilation tier is not part of the name.
fn javascript(text: &str) -> Option<TextFrame<'_>> {
    const KINDS: [&str; 7] = ["JS", "LazyCompile", "Function", "Script", "Eval", "Callback", "RegExp"];
    let (kind, rest) = text.split_once(':')?;
    // `JS::Call` is C++.
    if !KINDS.contains(&kind) || rest.starts_with(':') {
        return None;
    }
    let rest = rest.trim_start_matches(['*', '~', '^', '+', '-', '\'']);
    let (function, place) = match rest.rsplit_once(' ') {
        Some((function, place)) if file_of(place).is_some() => (function, place),
        // Code of a whole file has no name: `JS:~ /srv/a.js:1:1`.
        _ if file_of(rest).is_some() => ("", rest),
        _ => (rest, ""),
    };
    let (file, line) = file_of(place).unwrap_or(("", 0));
    Some(TextFrame {
        function: if function.trim().is_empty() {
            ANONYMOUS
        } else {
            function.trim()
        },
        file,
        line,
    })
}

/// `shop.lua:8`: a function without a name is told by where it is defined.
fn unnamed_lua(text: &str) -> Option<TextFrame<'_>> {
    let (file, line) = numbered(text).filter(|(file, _)| file.ends_with(".lua"))?;
    let function = if line == 0 { MAIN_CHUNK } else { ANONYMOUS };
    Some(TextFrame { function, file, line })
}

/// A file with a line, and perhaps a column, behind it.
fn file_of(place: &str) -> Option<(&str, u32)> {
    let (head, last) = numbered(place)?;
    match numbered(head) {
        Some((file, line)) => Some((file, line)),
        None => Some((head, last)),
    }
}

/// What precedes `:12`, and the number.
fn numbered(text: &str) -> Option<(&str, u32)> {
    let (head, number) = text.rsplit_once(':')?;
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (digits && !head.is_empty()).then(|| (head, number.parse().unwrap_or(u32::MAX)))
}

/// `main (app.py:21)` and `main (busy.c)`.
fn function_and_place(text: &str) -> Option<TextFrame<'_>> {
    let open = opening_bracket(text)?;
    let function = text[..open].trim_end();
    let place = &text[open + 1..text.len() - 1];
    if function.is_empty() || function.len() == open {
        return None;
    }
    match numbered(place) {
        Some((file, line)) if !file.contains("::") => Some(TextFrame { function, file, line }),
        None if looks_like_a_file(place) => Some(TextFrame {
            function,
            file: place,
            line: 0,
        }),
        _ => None,
    }
}

/// `/srv/app.py:12 (main)`.
fn place_and_function(text: &str) -> Option<TextFrame<'_>> {
    let open = opening_bracket(text)?;
    let function = text[open + 1..text.len() - 1].trim();
    let (file, line) = numbered(text[..open].strip_suffix(' ')?)?;
    (!function.is_empty() && looks_like_a_file(file)).then_some(TextFrame { function, file, line })
}

/// The position of the bracket closed by the last character.
fn opening_bracket(text: &str) -> Option<usize> {
    text.strip_suffix(')')?;
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate().rev() {
        match byte {
            b')' => depth += 1,
            b'(' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// A name with an extension, like a file's, or one in `<>` like Python's loaded code; function arguments have neither.
fn looks_like_a_file(text: &str) -> bool {
    if text.starts_with('<') && text.ends_with('>') {
        return text.len() > 2;
    }
    let name = text.rsplit(['/', '\\']).next().unwrap_or_default();
    let Some((stem, ending)) = name.rsplit_once('.') else {
        return false;
    };
    let is_ending = (1..=8).contains(&ending.len()) && ending.bytes().all(|byte| byte.is_ascii_alphanumeric());
    !stem.is_empty() && is_ending && !text.contains([',', '&', '*', '(', ')']) && !text.contains("::")
}

/// True for outermost frames that name a process or a thread, not code.
pub(super) fn is_process_or_thread(text: &str) -> bool {
    let text = text.trim();
    let digits_then = |rest: &str, next: &str| {
        let end = rest.bytes().take_while(u8::is_ascii_digit).count();
        end > 0 && rest[end..].starts_with(next)
    };
    if let Some(rest) = text.strip_prefix("process ") {
        return digits_then(rest, ":\"");
    }
    let Some(rest) = text.strip_prefix("thread (") else {
        return false;
    };
    let rest = rest
        .strip_prefix("0x")
        .or_else(|| rest.strip_prefix("0X"))
        .unwrap_or(rest);
    let end = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
    end > 0 && (&rest[end..] == ")" || rest[end..].starts_with("): "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame<'t>(function: &'t str, file: &'t str, line: u32) -> TextFrame<'t> {
        TextFrame { function, file, line }
    }

    #[test]
    fn what_tools_write_is_taken_apart() {
        for (text, expected) in [
            ("main (app.py:21)", frame("main", "app.py", 21)),
            (
                "_find (<frozen importlib._bootstrap>:1176)",
                frame("_find", "<frozen importlib._bootstrap>", 1176),
            ),
            ("<module> (my app.py:3)", frame("<module>", "my app.py", 3)),
            ("<lambda> (a (1).py:3)", frame("<lambda>", "a (1).py", 3)),
            ("JS:*main /srv/busy.js:3:14", frame("main", "/srv/busy.js", 3)),
            ("JS:~ /srv/busy.js:1:1", frame(ANONYMOUS, "/srv/busy.js", 1)),
            (
                "JS:^get size node:internal/x:9:1",
                frame("get size", "node:internal/x", 9),
            ),
            (
                "LazyCompile:*price /app/price.js:12",
                frame("price", "/app/price.js", 12),
            ),
            ("/srv/app.py:12 (main)", frame("main", "/srv/app.py", 12)),
            ("/srv/app.py:28 (<module>)", frame("<module>", "/srv/app.py", 28)),
            ("main (busy.c)", frame("main", "busy.c", 0)),
            ("leafwork<0000000000001199>", frame("leafwork", "", 0)),
            ("main (inlined)", frame("main", "", 0)),
        ] {
            assert_eq!(split(text), expected, "{text}");
        }
    }

    #[test]
    fn names_with_brackets_blanks_and_numbers_are_names() {
        for name in [
            "operator()(int, char)",
            "shop::price(std::vector<int>)",
            "void f(int) (anonymous namespace)",
            "Foo::bar() const",
            "std::map<int, a<0>>",
            "worker 1",
            "a:1",
            "[unknown]",
            "#<Class:0x000001>#call",
            "<T as shop::Price>::of",
            "(anonymous)",
            "f (x)",
            "java/lang/Thread.run",
            "JS::Call",
            "Function::apply",
            "(shop.c:3)",
        ] {
            assert_eq!(split(name), frame(name, "", 0), "{name}");
        }
    }

    #[test]
    fn processes_and_threads_are_no_frames() {
        for text in [
            "process 19494:\"python app.py\"",
            "thread (19494)",
            "thread (0x7F12): worker 1",
            "thread (7): a;b",
        ] {
            assert!(is_process_or_thread(text), "{text}");
        }
        for text in [
            "process",
            "process_basket",
            "process x:\"",
            "thread (main)",
            "thread_start",
            "thread () x",
        ] {
            assert!(!is_process_or_thread(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_py_spy_writes_is_read_back(function in "[a-z_<>.]{1,12}", file in "[a-z<>./() _-]{0,12}[a-z].py", line in 1u32..100_000) {
            let text = format!("{function} ({file}:{line})");
            let balanced = file.matches('(').count() == file.matches(')').count() && !file.contains(')');
            prop_assume!(balanced);
            prop_assert_eq!(split(&text), frame(&function, &file, line));
        }

        #[test]
        fn what_v8_writes_is_read_back(tier in "[~*^]", function in "[a-zA-Z$_.#]{0,12}", file in "(/[a-z-]{1,6}){1,3}\\.js", line in 1u32..9999, column in 1u32..99) {
            let text = format!("JS:{tier}{function} {file}:{line}:{column}");
            let expected = if function.is_empty() { ANONYMOUS } else { &function };
            prop_assert_eq!(split(&text), frame(expected, &file, line));
        }

        #[test]
        fn what_fil_writes_is_read_back(function in "[a-z_<>]{1,12}", file in "(/[a-z-]{1,6}){1,3}\\.py", line in 1u32..9999) {
            let text = format!("{file}:{line} ({function})");
            prop_assert_eq!(split(&text), frame(&function, &file, line));
        }

        #[test]
        fn text_of_any_kind_keeps_a_name(text in "\\PC{1,40}") {
            prop_assume!(!text.trim().is_empty());
            prop_assert!(!split(&text).function.is_empty());
        }
    }
}
