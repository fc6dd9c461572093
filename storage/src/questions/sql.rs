//! SQL text with its parameters. Guarantees: whatever came from outside is bound; the text contains only words of our
//! own, names of tables made from hours, and paths of parts; a part is verified before it is first read, and again when
//! the engine stumbles.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use duckdb::types::Value;

use crate::hot::saturated::{saturated_i64, saturated_u64};
use crate::{
    error::QueryError,
    hot::{
        Grain, Span,
        failure::{self, Kind as FailureKind},
        hours::HOUR_S,
        schema::{column_names, columns, quoted, rows_of, table},
    },
    parts::{Kind, Part},
    questions::columns::Columns,
    range::Step,
    readers::{Failure, Reader},
};

/// The sum of the values of samples. Sums that are known to be small cost half as much in signed numbers; no accepted
/// value is larger, and a roll-up that is larger stays at the maximum.
pub(crate) const SUM_OF_VALUES: &str = saturated_i64!(concat!("sum(", saturated_i64!("s.value"), ")"));

/// The number of samples taken; see [`SUM_OF_VALUES`].
pub(crate) const SUM_OF_SAMPLES: &str = saturated_u64!(concat!("sum(", saturated_i64!("s.samples"), ")"));

/// The condition for the times of a span in rows of some hours; `true` if the hours are entirely in it.
fn times_within(span: &Span, hours: Range<u32>) -> String {
    let hour_s = HOUR_S as u64;
    let (begin_s, end_s) = (u64::from(hours.start) * hour_s, u64::from(hours.end) * hour_s);
    if u64::from(span.from_s) <= begin_s && end_s <= u64::from(span.to_s) {
        return "true".to_owned();
    }
    format!("ts >= {} AND ts < {}", span.from_s, span.to_s)
}

/// A statement, built from left to right.
pub(crate) struct Sql {
    text: String,
    parameters: Vec<Value>,
    parts: Vec<Arc<Part>>,
}

impl Sql {
    pub(crate) fn new(text: &str) -> Sql {
        Sql {
            text: text.to_owned(),
            parameters: Vec::new(),
            parts: Vec::new(),
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

    /// Adds `AND column = value`, if there is a value.
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

    /// Adds the start that rows get; the column holds the start of their window.
    pub(crate) fn start_of_step(&mut self, column: &str, step: Step) -> &mut Sql {
        match step {
            Step::Range => self.push("0::UINTEGER"),
            Step::Window => self.push(column),
            Step::Seconds(seconds) => {
                self.push("CAST(").push(column).push(" - ").push(column).push(" % ");
                self.bind(seconds.max(1)).push(" AS UINTEGER)")
            }
        }
    }

    /// Adds the rows of a kind in the hours of a span, from tables and parts, as one table.
    pub(crate) fn hours(&mut self, kind: Kind, span: &Span) -> &mut Sql {
        let names = column_names(kind);
        let mut selects: Vec<String> = span
            .tables
            .iter()
            .map(|&(hour, generation)| format!("SELECT {names} FROM {}", table(kind, hour, generation)))
            .collect();
        let parts: Vec<Arc<Part>> = span.parts_of(kind).cloned().collect();
        if !parts.is_empty() {
            selects.push(format!("SELECT {names} FROM {}", rows_of(kind, &parts)));
        }
        if selects.is_empty() {
            let typed: Vec<String> = columns(kind)
                .iter()
                .map(|(name, of)| format!("CAST(NULL AS {of}) AS {name}"))
                .collect();
            selects.push(format!("SELECT {} WHERE false", typed.join(", ")));
        }
        self.parts.extend(parts);
        self.push("(").push(&selects.join(" UNION ALL ")).push(")")
    }

    /// Adds the samples of a span, from tables and parts, as one table. Rows from roll-ups are sums over an hour or a
    /// quarter of a day, at its start, and over the processes of a release: their series has no instance. The column
    /// `windows` is the most windows that a row can stand for.
    ///
    /// Times are compared only where a source has rows outside the span: that costs as much as adding up.
    pub(crate) fn samples(&mut self, span: &Span, grain: Grain) -> &mut Sql {
        let names = column_names(Kind::Samples);
        let one = "1::USMALLINT AS windows";
        let mut selects: Vec<String> = span
            .tables
            .iter()
            .map(|&(hour, generation)| {
                let (table, times) = (
                    table(Kind::Samples, hour, generation),
                    times_within(span, hour..hour + 1),
                );
                format!("SELECT {names}, {one} FROM {table} WHERE {times}")
            })
            .collect();
        let parts = span.sample_parts(grain);
        let outside = |of: &Range<u32>| {
            let (from_s, to_s) = (of.start * HOUR_S as u32, of.end * HOUR_S as u32);
            format!("(ts < {from_s} OR ts >= {to_s})")
        };
        // Only needed if the part has other hours.
        let inside = |of: &Range<u32>, hours: &Range<u32>| {
            if of.start <= hours.start && hours.end <= of.end {
                return "true".to_owned();
            }
            let (from_s, to_s) = (of.start * HOUR_S as u32, of.end * HOUR_S as u32);
            format!("ts >= {from_s} AND ts < {to_s}")
        };
        // Parts with the same condition are read together.
        let mut groups: BTreeMap<(&str, String), Vec<Arc<Part>>> = BTreeMap::new();
        for part in &parts.samples {
            let condition = times_within(span, part.name.extent());
            groups.entry((one, condition)).or_default().push(part.clone());
        }
        for part in &parts.ragged {
            let condition = format!(
                "{} AND {}",
                times_within(span, part.name.extent()),
                outside(&parts.hours)
            );
            groups.entry((one, condition)).or_default().push(part.clone());
        }
        for part in &parts.rollups {
            let hours = part.name.extent();
            let condition = format!(
                "{} AND {}",
                times_within(span, hours.clone()),
                inside(&parts.hours, &hours)
            );
            groups.entry(("windows", condition)).or_default().push(part.clone());
        }
        for part in &parts.ragged_rollups {
            let condition = format!(
                "{} AND {}",
                inside(&parts.hours, &part.name.extent()),
                outside(&parts.quarter_hours)
            );
            groups.entry(("windows", condition)).or_default().push(part.clone());
        }
        for part in &parts.quarters {
            let condition = inside(&parts.quarter_hours, &part.name.extent());
            groups.entry(("windows", condition)).or_default().push(part.clone());
        }
        for ((windows, condition), parts) in groups {
            let paths: Vec<String> = parts.iter().map(|part| quoted(&part.path)).collect();
            let paths = paths.join(", ");
            selects.push(format!(
                "SELECT {names}, {windows} FROM read_parquet([{paths}]) WHERE {condition}"
            ));
            self.parts.extend(parts);
        }
        if selects.is_empty() {
            let typed: Vec<String> = columns(Kind::Rollup)
                .iter()
                .map(|(name, of)| format!("CAST(NULL AS {of}) AS {name}"))
                .collect();
            selects.push(format!("SELECT {} WHERE false", typed.join(", ")));
        }
        self.push("(").push(&selects.join(" UNION ALL ")).push(")")
    }

    /// Adds parts to verify before it runs: those whose paths are in the text.
    pub(crate) fn reads(&mut self, parts: Vec<Arc<Part>>) {
        self.parts.extend(parts);
    }

    /// Surrounds the text with words of our own.
    pub(crate) fn wrap(&mut self, before: &str, after: &str) {
        self.text.insert_str(0, before);
        self.text.push_str(after);
    }

    /// The text, for tests that nothing from outside is in it.
    #[cfg(test)]
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// How many values are bound.
    #[cfg(test)]
    pub(crate) fn parameter_count(&self) -> usize {
        self.parameters.len()
    }

    /// Runs it and passes the rows on.
    pub(crate) fn run(
        &self,
        reader: &Reader<'_>,
        mut each: impl FnMut(Columns<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.verify(reader, false)?;
        let result = reader.rows(&self.text, &self.parameters, |chunk| each(Columns::new(chunk)));
        if let Err(Failure::Engine(error)) = &result
            && matches!(
                failure::kind(error),
                FailureKind::Damaged | FailureKind::Fatal | FailureKind::Other
            )
        {
            self.verify(reader, true)?;
        }
        result
    }

    /// True when it returns a row; it should select at most one.
    pub(crate) fn finds_any(&self, reader: &Reader<'_>) -> Result<bool, Failure> {
        let mut found = false;
        self.run(reader, |columns| {
            found |= columns.rows() > 0;
            Ok(())
        })?;
        Ok(found)
    }

    fn verify(&self, reader: &Reader<'_>, again: bool) -> Result<(), Failure> {
        let mut damaged = Vec::new();
        for part in &self.parts {
            reader.check()?;
            match part.is_intact(again) {
                Ok(true) => {}
                Ok(false) => damaged.push(part.clone()),
                Err(error) => {
                    return Err(QueryError::Unavailable {
                        message: format!("{}: {error}", part.path.display()),
                    }
                    .into());
                }
            }
        }
        if damaged.is_empty() {
            return Ok(());
        }
        Err(Failure::Parts(damaged))
    }
}
