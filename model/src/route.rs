//! Route templates in one spelling: `/cart/{id}` and `/static/{*rest}`, as in a proxy's configuration.
//!
//! Frameworks write the same template as `/cart/<int:id>`, `/cart/:id`, `/cart/[id]`, `/cart/(?P<id>[0-9]+)/$` and
//! more, and telemetry carries their spelling. Guarantees: a valid template of a proxy is unchanged; a parameter keeps
//! its name and loses its type; the result is a name of at most [`MAX_NAME_CHARS`](crate::workload::MAX_NAME_CHARS)
//! characters without a query. Nothing is guessed from values: a path that is not a template is left as it is.
//!
//! Wrong on purpose: two frameworks that name a parameter differently have two routes.
//!
//! One file because a template is one small language: its dialects differ in single letters and are distinguished in
//! one pass. The table of examples is the test of all of them together.

use std::borrow::Cow;

use crate::workload::{ROUTE_OTHER, clean_name};

/// Methods that some frameworks write before the route.
const METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "HTTP",
];
/// The name of unnamed parameters.
const UNNAMED: &str = "param";
const UNNAMED_REST: &str = "rest";
/// Type names in `<type:name>`; Bottle writes `<name:type>`.
const TYPES: [&str; 9] = ["int", "string", "float", "path", "uuid", "slug", "any", "str", "re"];
/// Deepest nesting of groups that is followed.
const MAX_DEPTH: usize = 8;

/// Canonical spelling of a template known to be a path, such as `http.route`: some frameworks omit the leading `/`.
pub fn of_path(route: &str) -> Cow<'_, str> {
    let written = route.trim();
    if written.is_empty()
        || written == ROUTE_OTHER
        || written.starts_with(['/', '^'])
        || method_before(written).is_some()
    {
        return normalise(route);
    }
    Cow::Owned(normalise(&format!("/{written}")).into_owned())
}

/// Canonical spelling of a template.
pub fn normalise(route: &str) -> Cow<'_, str> {
    if is_plain(route) {
        return Cow::Borrowed(route);
    }
    let trimmed = route.trim();
    let path = method_before(trimmed).unwrap_or(trimmed);
    let is_regex = path.starts_with('^') || path.contains("(?P<") || path.contains("(?<");
    let mut pieces = Vec::new();
    let mut path = path.trim_start_matches('^');
    if is_regex {
        while let Some(shorter) = ["$", "\\Z", "/?", "\\/?"].iter().find_map(|end| path.strip_suffix(end)) {
            path = shorter;
        }
    }
    let chars: Vec<char> = path.chars().collect();
    Scanner {
        is_regex,
        pieces: &mut pieces,
    }
    .scan(&chars, MAX_DEPTH);
    Cow::Owned(written(&pieces, is_regex))
}

/// Whether it is already in our spelling.
fn is_plain(route: &str) -> bool {
    if route.is_empty() || route == ROUTE_OTHER {
        return true;
    }
    let ends_well = route.len() == 1 || !route.ends_with('/');
    let segment = |segment: &str| {
        let inner = segment.strip_prefix('{').and_then(|inner| inner.strip_suffix('}'));
        match inner.map(|inner| inner.strip_prefix('*').unwrap_or(inner)) {
            Some(name) => !name.is_empty() && name.chars().all(|c| is_name(c) || c == '-'),
            None => segment
                .chars()
                .all(|c| is_name(c) || matches!(c, '-' | '.' | '~' | '@' | '%' | ',')),
        }
    };
    route.starts_with('/') && ends_well && !route.contains("//") && route.split('/').all(segment) && route.len() <= 256
}

/// The path after a method, as in `GET /cart/{id}`.
fn method_before(text: &str) -> Option<&str> {
    let (first, rest) = text.split_once(' ')?;
    let rest = rest.trim_start();
    if first == "HTTP"
        && let Some(path) = method_before(rest)
    {
        return Some(path);
    }
    (METHODS.contains(&first) && rest.starts_with('/')).then_some(rest)
}

/// A part of a template.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(char),
    Parameter { name: String, rest: bool },
}

struct Scanner<'p> {
    is_regex: bool,
    pieces: &'p mut Vec<Piece>,
}

/// The index at which the group opened by the first character closes.
fn closing(chars: &[char], open: char, close: char) -> Option<usize> {
    let (mut depth, mut in_class, mut escaped) = (0usize, false, false);
    for (at, &c) in chars.iter().enumerate() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' if open == '(' => in_class = true,
            ']' if open == '(' => in_class = false,
            _ if in_class => {}
            _ if c == open => depth += 1,
            _ if c == close => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// A pattern that matches across `/`.
fn matches_all(pattern: &str) -> bool {
    let pattern = pattern.trim_matches(['(', ')', '^', '$']);
    matches!(pattern, ".*" | ".+" | ".*?" | ".+?" | "path" | "[\\s\\S]*")
}

impl Scanner<'_> {
    fn scan(&mut self, chars: &[char], depth: usize) {
        let mut at = 0;
        while at < chars.len() {
            let rest = &chars[at..];
            let used = match rest[0] {
                _ if depth == 0 => None,
                '{' => self.braces(rest, depth),
                '<' => self.angles(rest),
                '[' => self.brackets(rest),
                ':' => self.colon(rest),
                '*' => self.star(rest),
                '(' => self.group(rest, depth),
                '\\' if self.is_regex && rest.len() > 1 && rest[1].is_ascii_punctuation() => {
                    self.pieces.push(Piece::Text(rest[1]));
                    Some(2)
                }
                // In a regular expression it makes the preceding element optional.
                '?' | '$' | '^' if self.is_regex => Some(1),
                // What follows is a query, not part of the route.
                '?' => return,
                _ => None,
            };
            at += used.unwrap_or_else(|| {
                self.pieces.push(Piece::Text(rest[0]));
                1
            });
        }
    }

    fn parameter(&mut self, name: &str, rest: bool) {
        let mut kept: String = name
            .chars()
            .map(|c| if is_name(c) || c == '-' { c } else { '_' })
            .collect();
        kept.truncate(64);
        if kept.is_empty() {
            if rest { UNNAMED_REST } else { UNNAMED }.clone_into(&mut kept);
        }
        self.pieces.push(Piece::Parameter { name: kept, rest });
    }

    fn begins_segment(&self) -> bool {
        matches!(self.pieces.last(), None | Some(Piece::Text('/')))
    }

    /// `{id}`, `{id:[0-9]+}`, `{id:int}`, `{id?}`, `{*rest}`, `{**rest}`, `{rest...}`, `{+rest}`, `{?page}`, `{$}`, `{/:id}`.
    fn braces(&mut self, chars: &[char], depth: usize) -> Option<usize> {
        let end = closing(chars, '{', '}')?;
        let inner: String = chars[1..end].iter().collect();
        let inner = inner.trim();
        match inner.chars().next() {
            Some('?' | '&') => {}
            Some('$') if inner == "$" => {}
            Some('/') => self.scan(&inner.chars().collect::<Vec<char>>(), depth - 1),
            Some(':') => {
                let _ = self.colon(&inner.chars().collect::<Vec<char>>());
            }
            _ => {
                let split = inner.find([':', '=', '?', ',']).unwrap_or(inner.len());
                let (name, constraint) = inner.split_at(split);
                let name = name.trim();
                let all = constraint.get(1..).is_some_and(|pattern| matches_all(pattern.trim()));
                let bare = name.trim_matches(['*', '+', '#', '.']);
                self.parameter(bare, all || bare.len() < name.len());
            }
        }
        Some(end + 1)
    }

    /// `<id>`, `<int:id>`, `<string(length=2):id>`, `<id:int>`, `<path:rest>`, `<path..>`.
    fn angles(&mut self, chars: &[char]) -> Option<usize> {
        let end = closing(chars, '<', '>')?;
        let inner: String = chars[1..end].iter().collect();
        let kind_of = |text: &str| text.split('(').next().unwrap_or_default().to_owned();
        let (kind, name) = match inner.rsplit_once(':') {
            None => (String::new(), inner.as_str()),
            Some((kind, name)) => match inner.split_once(':') {
                Some((name, kind))
                    if TYPES.contains(&kind_of(kind).as_str()) && !TYPES.contains(&kind_of(name).as_str()) =>
                {
                    (kind_of(kind), name)
                }
                Some((name, kind)) if kind.starts_with("re:") => (kind[3..].to_owned(), name),
                _ => (kind_of(kind), name),
            },
        };
        let bare = name.trim_end_matches('.');
        if bare.is_empty() || !bare.chars().all(|c| is_name(c) || c == '-') {
            return None;
        }
        self.parameter(bare, matches_all(&kind) || bare.len() < name.len());
        Some(end + 1)
    }

    /// `[id]`, `[id=matcher]`, `[[lang]]`, `[...slug]`, `[[...slug]]`.
    fn brackets(&mut self, chars: &[char]) -> Option<usize> {
        if self.is_regex {
            return self.class(chars);
        }
        let end = closing(chars, '[', ']')?;
        let inner: String = chars[1..end].iter().collect();
        let inner = inner
            .strip_prefix('[')
            .and_then(|inner| inner.strip_suffix(']'))
            .unwrap_or(&inner);
        let name = inner.strip_prefix("...").unwrap_or(inner);
        let bare = name.split('=').next().unwrap_or_default();
        if bare.is_empty() || !bare.chars().all(|c| is_name(c) || c == '-') {
            return None;
        }
        self.parameter(bare, name.len() < inner.len());
        Some(end + 1)
    }

    /// A character class outside a group of a regular expression.
    fn class(&mut self, chars: &[char]) -> Option<usize> {
        let end = chars.iter().position(|c| *c == ']')?;
        self.parameter("", false);
        Some(end + 1 + quantifier(&chars[end + 1..]))
    }

    /// `:id`, `:id?`, `:id(\\d+)`, `:rest*`, `:rest(.*)`, at the start of a segment or after `-` and `.` in one with
    /// parameters.
    fn colon(&mut self, chars: &[char]) -> Option<usize> {
        let behind = matches!(
            self.pieces.as_slice(),
            [.., Piece::Parameter { .. }, Piece::Text('-' | '.' | '~')]
        );
        if !self.begins_segment() && !behind {
            return None;
        }
        let name: String = chars[1..].iter().take_while(|c| is_name(**c)).collect();
        if name.is_empty() {
            return None;
        }
        let mut used = 1 + name.len();
        let mut rest = false;
        if chars.get(used) == Some(&'(')
            && let Some(end) = closing(&chars[used..], '(', ')')
        {
            let pattern: String = chars[used..=used + end].iter().collect();
            // Rails' `(.:format)` is a part of its own.
            if !pattern.starts_with("(.:") {
                rest = matches_all(&pattern);
                used += end + 1;
            }
        }
        match chars.get(used) {
            Some('*' | '+') => {
                rest = true;
                used += 1;
            }
            Some('?') => used += 1,
            _ => {}
        }
        self.parameter(&name, rest);
        Some(used)
    }

    /// `*`, `**`, `*rest`, `**:rest`, at the start of a segment.
    fn star(&mut self, chars: &[char]) -> Option<usize> {
        if self.is_regex || !self.begins_segment() {
            return None;
        }
        let stars = chars.iter().take_while(|c| **c == '*').count();
        let colon = usize::from(chars.get(stars) == Some(&':'));
        let name: String = chars[stars + colon..].iter().take_while(|c| is_name(**c)).collect();
        self.parameter(&name, true);
        Some(stars + colon + name.len())
    }

    /// `(?P<id>[0-9]+)`, `(?<id>…)`, `(?:…)`, `([0-9]+)`, `(.:format)`, `(/:page)`.
    fn group(&mut self, chars: &[char], depth: usize) -> Option<usize> {
        let end = closing(chars, '(', ')')?;
        let inner: String = chars[1..end].iter().collect();
        let used = end
            + 1
            + if self.is_regex {
                quantifier(&chars[end + 1..])
            } else {
                0
            };
        let named = inner.strip_prefix("?P<").or_else(|| inner.strip_prefix("?<"));
        if let Some((name, pattern)) = named.and_then(|named| named.split_once('>')) {
            self.parameter(name, matches_all(pattern));
        } else if let Some(inner) = inner.strip_prefix("?:") {
            self.scan(&inner.chars().collect::<Vec<char>>(), depth - 1);
        } else if inner.starts_with(".:") {
        } else if inner.contains('/') && !self.is_regex {
            self.scan(&inner.chars().collect::<Vec<char>>(), depth - 1);
        } else if inner.contains(['\\', '*', '+', '[', '|']) || (self.is_regex && !inner.is_empty()) {
            self.parameter("", matches_all(&inner));
        } else {
            return None;
        }
        Some(used)
    }
}

/// Length of a quantifier: `*`, `+`, `?`, `{2,3}`.
fn quantifier(chars: &[char]) -> usize {
    match chars.first() {
        Some('*' | '+' | '?') => 1,
        Some('{') => closing(chars, '{', '}').map_or(0, |end| end + 1),
        _ => 0,
    }
}

fn written(pieces: &[Piece], is_regex: bool) -> String {
    let is_path = is_regex
        || pieces
            .iter()
            .any(|p| matches!(p, Piece::Parameter { .. } | Piece::Text('/')));
    let last = pieces.iter().rposition(|piece| *piece != Piece::Text('/'));
    let mut text = String::new();
    if is_path && pieces.first() != Some(&Piece::Text('/')) {
        text.push('/');
    }
    for (at, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Text('/') if text.ends_with('/') => {}
            Piece::Text(c) => text.push(*c),
            // Only the last parameter can be all that remains.
            Piece::Parameter { name, rest: true } if Some(at) == last => text.push_str(&format!("{{*{name}}}")),
            Piece::Parameter { name, .. } => text.push_str(&format!("{{{name}}}")),
        }
    }
    if text.len() > 1 && text.ends_with('/') {
        text.pop();
    }
    clean_name(&text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Frameworks' spelling, and the result.
    const SPELLINGS: &[(&str, &str, &str)] = &[
        ("ours, axum, FastAPI, Spring", "/quote/{id}", "/quote/{id}"),
        ("ours", "/static/{*rest}", "/static/{*rest}"),
        ("ours", "other", "other"),
        ("ours, literal", "/v1/items:batchGet", "/v1/items:batchGet"),
        ("gRPC", "/shop.Cart/Add", "/shop.Cart/Add"),
        ("Flask", "/quote/<id>", "/quote/{id}"),
        ("Flask", "/quote/<int:id>", "/quote/{id}"),
        ("Flask", "/<string(length=2):lang>/<uuid:id>/", "/{lang}/{id}"),
        ("Flask", "/files/<path:rest>", "/files/{*rest}"),
        ("Bottle", "/quote/<id:int>", "/quote/{id}"),
        ("Bottle", "/quote/<id:re:[a-z]+>", "/quote/{id}"),
        ("Rocket", "/files/<rest..>", "/files/{*rest}"),
        ("Django", "quote/<int:id>/", "/quote/{id}"),
        (
            "Django, regular expression",
            r"^quote/(?P<id>[0-9]{4})/$",
            "/quote/{id}",
        ),
        (
            "Django, regular expression",
            r"^quote/(?P<year>\d{4})/(?:page-(?P<page>\d+)/)?$",
            "/quote/{year}/page-{page}",
        ),
        ("Django, regular expression", r"^files/(?P<rest>.*)$", "/files/{*rest}"),
        (
            "Django, regular expression",
            r"^v1\.0/quote/([0-9]+)/?$",
            "/v1.0/quote/{param}",
        ),
        ("Express", "/quote/:id", "/quote/{id}"),
        ("Express", r"/quote/:id(\\d+)", "/quote/{id}"),
        ("Express", "/quote/:id?", "/quote/{id}"),
        ("Express", "/flights/:from-:to", "/flights/{from}-{to}"),
        ("Express", "/files/*", "/files/{*rest}"),
        ("Express 5", "/files/*path", "/files/{*path}"),
        ("Express 5", "/users{/:id}/edit", "/users/{id}/edit"),
        ("Koa", "/files/:rest(.*)", "/files/{*rest}"),
        ("Fastify", "/quote/:id(^\\d+).json", "/quote/{id}.json"),
        ("Vue, path-to-regexp", "/files/:rest*", "/files/{*rest}"),
        ("Next.js", "/quote/[id]", "/quote/{id}"),
        ("Next.js", "/docs/[...slug]", "/docs/{*slug}"),
        ("Next.js", "/docs/[[...slug]]", "/docs/{*slug}"),
        ("SvelteKit", "/[[lang]]/quote/[id=integer]", "/{lang}/quote/{id}"),
        ("Nitro", "/docs/**:slug", "/docs/{*slug}"),
        ("Gin, httprouter", "/files/*filepath", "/files/{*filepath}"),
        ("gorilla, chi", "/quote/{id:[0-9]{1,3}}", "/quote/{id}"),
        ("chi", "/admin/*", "/admin/{*rest}"),
        ("Go 1.22", "GET /quote/{id}", "/quote/{id}"),
        ("Go 1.22", "/files/{rest...}", "/files/{*rest}"),
        ("Go 1.22", "/quote/{$}", "/quote"),
        ("Rails", "/quote/:id(.:format)", "/quote/{id}"),
        ("Rails", "/quote(/:page)", "/quote/{page}"),
        ("JAX-RS", "/quote/{id: [0-9]+}", "/quote/{id}"),
        ("JAX-RS", "/files/{rest: .*}", "/files/{*rest}"),
        ("Spring", "/files/**", "/files/{*rest}"),
        ("Spring", "/files/*/raw", "/files/{rest}/raw"),
        ("Micronaut", "/quote/{id}{?max,offset}", "/quote/{id}"),
        ("Micronaut", "/files/{+rest}", "/files/{*rest}"),
        ("ASP.NET", "quote/{id:int}", "/quote/{id}"),
        ("ASP.NET", "/quote/{id:int:min(1)}/{page?}", "/quote/{id}/{page}"),
        ("ASP.NET", "/files/{**rest}", "/files/{*rest}"),
        ("Starlette", "/files/{rest:path}", "/files/{*rest}"),
        ("span names", "HTTP GET /quote/:id", "/quote/{id}"),
        ("a query is no part of it", "/quote/{id}?full=1", "/quote/{id}"),
        ("a name that is no path", "checkout", "checkout"),
        ("root", "/", "/"),
        ("root", "^$", "/"),
        ("broken", "/quote/{id", "/quote/{id"),
        ("broken", "/a<b", "/a<b"),
    ];

    #[test]
    fn spellings_of_frameworks_are_one_template() {
        for (framework, written, template) in SPELLINGS {
            assert_eq!(normalise(written), *template, "{framework}: {written}");
            assert_eq!(normalise(template), *template, "{framework}: {template} again");
        }
        assert_eq!(of_path("checkout"), "/checkout");
        assert_eq!(of_path("other"), "other");
        assert_eq!(of_path(""), "");
        assert_eq!(of_path("POST /a/"), "/a");
        assert!(matches!(normalise("/quote/{id}"), Cow::Borrowed(_)));
    }

    fn segment() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z][a-zA-Z0-9_.~@,-]{0,6}",
            "[a-z]{1,4}:[a-z]{1,4}",
            r"\{[a-z][a-z0-9_-]{0,6}\}"
        ]
    }

    proptest! {
        #[test]
        fn templates_of_proxies_stay_as_they_are(segments in prop::collection::vec(segment(), 0..6), rest: bool) {
            let mut template: String = segments.iter().map(|segment| format!("/{segment}")).collect();
            if rest || template.is_empty() {
                template.push_str("/{*rest}");
            }
            prop_assert_eq!(normalise(&template), template.as_str());
            prop_assert_eq!(of_path(&template), template.as_str());
        }

        #[test]
        fn any_text_becomes_a_name(text in "[/{}<>:*\\[\\]()?^$\\\\a-z.|+=\u{202e}]{0,40}") {
            let once = normalise(&text).into_owned();
            prop_assert!(once.chars().count() <= 256);
            prop_assert!(!once.chars().any(crate::workload::misleads) || once == text);
            prop_assert!(!once.contains("//") || once == text);
        }

        #[test]
        fn parameters_of_all_frameworks_agree(names in prop::collection::vec("[a-z]{1,5}", 1..4)) {
            let spelled = |open: &str, close: &str| names.iter().map(|name| format!("/x/{open}{name}{close}")).collect::<String>();
            let ours = spelled("{", "}");
            for (open, close) in [("<", ">"), ("<int:", ">"), (":", ""), ("[", "]"), ("{", ":[0-9]+}"), ("{", ":int}"), (":", "(\\d+)")] {
                let theirs = spelled(open, close);
                prop_assert_eq!(normalise(&theirs), ours.as_str());
            }
            let theirs = format!("^{}/$", spelled("(?P<", ">[^/]+)"));
            prop_assert_eq!(normalise(&theirs), ours);
        }
    }
}
