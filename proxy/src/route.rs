//! Path templates: from a request path to one of the few route names that telemetry may carry. Which service a request
//! is for, by its host, is in [`host`]; conditions of rules are in [`matching`].
//!
//! Guarantees: a route is always a template from the configuration or [`ROUTE_OTHER`], never a raw URL, so the number
//! of routes is bounded by the configuration; literals win over `{param}`, `{param}` over `{*rest}`; matching allocates
//! nothing and visits each node of the tree at most once.
//!
//! Wrong on purpose: percent-encoding is not decoded (`/c%61rt` is `other`), and one trailing slash is ignored.

pub(crate) mod host;
pub(crate) mod matching;

use emberline_model::workload::{MAX_NAME_CHARS, ROUTE_OTHER};

pub use host::HostPattern;

/// Most segments of a template; longer paths can only match a `{*rest}`.
const MAX_SEGMENTS: usize = 64;

/// A path template such as `/cart/{id}` or `/static/{*rest}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Template {
    text: String,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Segment {
    Literal(String),
    Param,
    Rest,
}

/// Why a text is not a path template; the message says how to fix the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{template}` is not a path template: {problem}; use, for example, `/cart/{{id}}` or `/static/{{*rest}}`")]
pub struct InvalidTemplate {
    template: String,
    problem: &'static str,
}

/// Two templates that match the same paths, so that one of them would never match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the templates `{first}` and `{second}` match the same paths: remove one")]
pub struct DuplicateTemplate {
    /// The first one.
    pub first: String,
    /// The duplicate.
    pub second: String,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// When the text is not a valid template; the message says why.
    pub fn parse(text: &str) -> Result<Template, InvalidTemplate> {
        let invalid = |problem| InvalidTemplate {
            template: text.chars().take(80).collect(),
            problem,
        };
        let Some(path) = text.strip_prefix('/') else {
            return Err(invalid("it must begin with `/`"));
        };
        if text.chars().count() > MAX_NAME_CHARS {
            return Err(invalid("it is longer than 256 characters"));
        }
        if text
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || c == '?' || c == '#')
        {
            return Err(invalid("spaces, `?` and `#` are not allowed in a path"));
        }
        let mut segments = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        if !path.is_empty() {
            let count = path.split('/').count();
            for (position, part) in path.split('/').enumerate() {
                let segment = match part.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
                    None if part.is_empty() => return Err(invalid("a segment is empty (`//` or a trailing `/`)")),
                    None if part.contains(['{', '}']) => {
                        return Err(invalid("a parameter must be a whole path segment"));
                    }
                    None => Segment::Literal(part.to_owned()),
                    Some(inner) => {
                        let (name, segment) = match inner.strip_prefix('*') {
                            Some(_) if position + 1 != count => {
                                return Err(invalid("`{*rest}` must be the last segment"));
                            }
                            Some(name) => (name, Segment::Rest),
                            None => (inner, Segment::Param),
                        };
                        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
                            return Err(invalid(
                                "a parameter name may contain only letters, digits, `_` and `-`",
                            ));
                        }
                        if names.contains(&name) {
                            return Err(invalid("a parameter name is used twice"));
                        }
                        names.push(name);
                        segment
                    }
                };
                segments.push(segment);
            }
        }
        if segments.len() > MAX_SEGMENTS {
            return Err(invalid("it has more than 64 segments"));
        }
        Ok(Template {
            text: text.to_owned(),
            segments,
        })
    }

    /// The template as written, which is the name of its route.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// A route of one [`RouteTable`]: a small number, so that the request path handles no names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RouteIndex(u16);

impl RouteIndex {
    /// Position in [`RouteTable::names`].
    pub fn position(self) -> usize {
        usize::from(self.0)
    }
}

/// The routes of one API, as a tree of segments.
#[derive(Debug, Clone)]
pub struct RouteTable {
    nodes: Vec<Node>,
    names: Vec<String>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    /// Sorted by text.
    literals: Vec<(String, usize)>,
    param: Option<usize>,
    rest: Option<RouteIndex>,
    here: Option<RouteIndex>,
}

impl Default for RouteTable {
    /// No templates: everything is `other`.
    fn default() -> RouteTable {
        RouteTable {
            nodes: vec![Node::default()],
            names: vec![ROUTE_OTHER.to_owned()],
        }
    }
}

impl RouteTable {
    /// Maximum number of templates in a table.
    pub const MAX_TEMPLATES: usize = 1000;

    /// Builds the tree.
    ///
    /// # Errors
    /// When two templates match the same paths. Templates beyond [`RouteTable::MAX_TEMPLATES`] are ignored: their paths
    /// belong to the route `other`.
    pub fn new(templates: &[Template]) -> Result<RouteTable, DuplicateTemplate> {
        let mut table = RouteTable {
            nodes: vec![Node::default()],
            names: Vec::new(),
        };
        for (position, template) in templates.iter().take(Self::MAX_TEMPLATES).enumerate() {
            let route = RouteIndex(position as u16);
            let mut at = 0;
            let mut rest = false;
            for segment in &template.segments {
                match segment {
                    Segment::Literal(text) => at = table.literal_child(at, text),
                    Segment::Param => at = table.param_child(at),
                    Segment::Rest => rest = true,
                }
            }
            let node = &mut table.nodes[at];
            let slot = if rest { &mut node.rest } else { &mut node.here };
            if let Some(first) = *slot {
                return Err(DuplicateTemplate {
                    first: templates[first.position()].text.clone(),
                    second: template.text.clone(),
                });
            }
            *slot = Some(route);
            table.names.push(template.text.clone());
        }
        table.names.push(ROUTE_OTHER.to_owned());
        Ok(table)
    }

    fn literal_child(&mut self, at: usize, text: &str) -> usize {
        match self.nodes[at]
            .literals
            .binary_search_by(|(known, _)| known.as_str().cmp(text))
        {
            Ok(found) => self.nodes[at].literals[found].1,
            Err(place) => {
                let child = self.nodes.len();
                self.nodes.push(Node::default());
                self.nodes[at].literals.insert(place, (text.to_owned(), child));
                child
            }
        }
    }

    fn param_child(&mut self, at: usize) -> usize {
        if let Some(child) = self.nodes[at].param {
            return child;
        }
        let child = self.nodes.len();
        self.nodes.push(Node::default());
        self.nodes[at].param = Some(child);
        child
    }

    /// The route of a path. A query string must not be part of `path`.
    pub fn route_of(&self, path: &str) -> RouteIndex {
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        self.walk(0, if path.is_empty() { None } else { Some(path) }, 0)
            .unwrap_or_else(|| self.other())
    }

    /// Searches below a node; `rest` is the rest of the path, `None` at its end.
    fn walk(&self, at: usize, rest: Option<&str>, depth: usize) -> Option<RouteIndex> {
        let node = &self.nodes[at];
        let Some(rest) = rest else {
            return node.here.or(node.rest);
        };
        if depth < MAX_SEGMENTS {
            let (segment, below) = match rest.split_once('/') {
                Some((segment, below)) => (segment, Some(below)),
                None => (rest, None),
            };
            if let Ok(found) = node.literals.binary_search_by(|(known, _)| known.as_str().cmp(segment))
                && let Some(route) = self.walk(node.literals[found].1, below, depth + 1)
            {
                return Some(route);
            }
            if let Some(child) = node.param
                && !segment.is_empty()
                && let Some(route) = self.walk(child, below, depth + 1)
            {
                return Some(route);
            }
        }
        node.rest
    }

    /// The route of paths that match no template.
    pub fn other(&self) -> RouteIndex {
        RouteIndex((self.names.len() - 1) as u16)
    }

    /// Name of a route of this table.
    pub fn name(&self, route: RouteIndex) -> &str {
        self.names.get(route.position()).map_or(ROUTE_OTHER, String::as_str)
    }

    /// All names, by [`RouteIndex::position`]; the last one is `other`.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(templates: &[&str]) -> RouteTable {
        let templates: Vec<Template> = templates.iter().map(|t| Template::parse(t).unwrap()).collect();
        RouteTable::new(&templates).unwrap()
    }

    fn name_of(table: &RouteTable, path: &str) -> String {
        table.name(table.route_of(path)).to_owned()
    }

    #[test]
    fn literals_beat_parameters_and_parameters_beat_rests() {
        let table = table(&[
            "/cart/{id}",
            "/cart/all",
            "/{*rest}",
            "/cart/{id}/items",
            "/",
            "/a/b/c",
            "/a/{x}/d",
        ]);
        for (path, route) in [
            ("/cart/all", "/cart/all"),
            ("/cart/7", "/cart/{id}"),
            ("/cart/7/items", "/cart/{id}/items"),
            ("/cart/all/items", "/cart/{id}/items"),
            ("/cart/7/", "/cart/{id}"),
            ("/cart", "/{*rest}"),
            ("/cart/7/items/9", "/{*rest}"),
            ("/", "/"),
            ("/a/b/c", "/a/b/c"),
            ("/a/b/d", "/a/{x}/d"),
        ] {
            assert_eq!(name_of(&table, path), route, "{path}");
        }
    }

    #[test]
    fn what_no_template_matches_is_other() {
        let table = table(&["/cart/{id}", "/static/{*rest}"]);
        for path in [
            "/",
            "/cart",
            "/cart/",
            "/cart/1/2",
            "/c%61rt/1",
            "*",
            "",
            "/other",
            "//cart/1",
        ] {
            assert_eq!(name_of(&table, path), "other", "{path}");
        }
        assert_eq!(name_of(&table, "/static"), "/static/{*rest}");
        assert_eq!(name_of(&table, "/static/a/b/c"), "/static/{*rest}");
    }

    #[test]
    fn texts_that_are_no_templates_are_refused() {
        for text in [
            "",
            "cart",
            "/a b",
            "/a?b",
            "/{",
            "/{}",
            "/x{id}",
            "/{*rest}/a",
            "/{a}/{a}",
            "/a//b",
            "/a/",
            "/{a b}",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn templates_that_match_the_same_paths_are_refused() {
        let templates = [Template::parse("/a/{x}").unwrap(), Template::parse("/a/{y}").unwrap()];
        let refused = RouteTable::new(&templates).unwrap_err();
        assert_eq!((refused.first.as_str(), refused.second.as_str()), ("/a/{x}", "/a/{y}"));
    }

    proptest! {
        /// A route is never derived from the path: for every path, it is one of the table's names.
        #[test]
        fn a_route_is_always_a_name_of_the_table(path in "(/[a-z{}*%.]{0,4}){0,8}") {
            let table = table(&["/a/{x}", "/a/b/{*rest}", "/{x}/{y}/c"]);
            let route = table.route_of(&path);
            prop_assert!(table.names().iter().any(|n| n == table.name(route)));
        }

        /// Filling a template's parameters with text that matches no literal gives the template back.
        #[test]
        fn a_filled_template_matches_itself(a in "[0-9]{1,6}", b in "[0-9]{1,6}") {
            let table = table(&["/a/{x}", "/a/b/{y}", "/c/{x}/d/{y}", "/e/{*rest}"]);
            prop_assert_eq!(name_of(&table, &format!("/a/{a}")), "/a/{x}");
            prop_assert_eq!(name_of(&table, &format!("/a/b/{b}")), "/a/b/{y}");
            prop_assert_eq!(name_of(&table, &format!("/c/{a}/d/{b}")), "/c/{x}/d/{y}");
            prop_assert_eq!(name_of(&table, &format!("/e/{a}/{b}")), "/e/{*rest}");
        }
    }
}
