//! SQL text and its parameters, side by side. Guarantee: whatever came from outside is bound; the text holds only
//! words of our own and names of tables made from hours.

use duckdb::types::Value;

use crate::{
    hot::{Span, database::table},
    questions::columns::Columns,
    readers::{Failure, Reader},
};

/// A statement being put together from left to right.
pub(crate) struct Sql {
    text: String,
    parameters: Vec<Value>,
}

impl Sql {
    pub(crate) fn new(text: &str) -> Sql {
        Sql {
            text: text.to_owned(),
            parameters: Vec::new(),
        }
    }

    /// Adds words of our own.
    pub(crate) fn push(&mut self, text: &str) -> &mut Sql {
        self.text.push_str(text);
        self
    }

    /// Adds a value.
    pub(crate) fn bind(&mut self, value: impl Into<Value>) -> &mut Sql {
        self.text.push('?');
        self.parameters.push(value.into());
        self
    }

    /// Adds `AND column = value`, when there is a value.
    pub(crate) fn and_equals(&mut self, column: &str, value: Option<&String>) -> &mut Sql {
        if let Some(value) = value {
            self.push(" AND ").push(column).push(" = ").bind(value.clone());
        }
        self
    }

    /// Adds `column >= from AND column < to`.
    pub(crate) fn within(&mut self, column: &str, span: &Span) -> &mut Sql {
        self.push(column)
            .push(" >= ")
            .bind(span.from_s)
            .push(" AND ")
            .push(column)
            .push(" < ")
            .bind(span.to_s)
    }

    /// Adds the tables of a kind for the hours of a span, as one; there must be one at least.
    pub(crate) fn hours(&mut self, kind: &str, span: &Span) -> &mut Sql {
        let selects: Vec<String> = span
            .hours
            .iter()
            .map(|&hour| format!("FROM {}", table(kind, hour)))
            .collect();
        self.push("(").push(&selects.join(" UNION ALL ")).push(")")
    }

    /// The words, for tests that nothing from outside is among them.
    #[cfg(test)]
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// How many values are bound.
    #[cfg(test)]
    pub(crate) fn parameter_count(&self) -> usize {
        self.parameters.len()
    }

    /// Runs it and hands over the rows.
    pub(crate) fn run(
        &self,
        reader: &Reader<'_>,
        mut each: impl FnMut(Columns<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        reader.rows(&self.text, &self.parameters, |chunk| each(Columns::new(chunk)))
    }
}
