//! What a chunk's metadata says about its types.
//!
//! Guarantees: types are charged as they are read; skipping a value costs a step per field, and a chunk has as many
//! steps as its bytes allow, so that recursive types, or arrays of nothing, end.

use std::{borrow::Cow, cell::Cell, collections::HashMap};

use super::cursor::{Cursor, Text};
use crate::formats::{read_error::ReadError, table::Table};

/// Deepest nesting of the metadata and of values.
const MAX_DEPTH: usize = 16;

/// What a value consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An integer of so many bytes.
    Whole(usize),
    /// So many bytes, never compressed.
    Fixed(usize),
    /// A text.
    Text,
    /// Fields.
    Fields,
}

/// A field of a type.
#[derive(Debug, Clone)]
pub(super) struct Field<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) class: i64,
    /// The value is a number in the pool of the type.
    pub(super) pooled: bool,
    pub(super) array: bool,
    /// In ticks of the chunk's clock.
    pub(super) ticks: bool,
}

/// A type.
#[derive(Debug, Clone)]
pub(super) struct Type<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) kind: Kind,
    pub(super) fields: Vec<Field<'a>>,
}

/// All types of a chunk.
#[derive(Debug)]
pub(super) struct Types<'a> {
    by_id: HashMap<i64, Type<'a>>,
    steps: Cell<u64>,
}

fn kind_of(name: &str, has_fields: bool) -> Kind {
    match name {
        "boolean" | "byte" => Kind::Fixed(1),
        "char" | "short" => Kind::Whole(2),
        "int" => Kind::Whole(4),
        "long" => Kind::Whole(8),
        "float" => Kind::Fixed(4),
        "double" => Kind::Fixed(8),
        "java.lang.String" if !has_fields => Kind::Text,
        _ => Kind::Fields,
    }
}

struct Reader<'a, 't> {
    cursor: Cursor<'a>,
    strings: Vec<Cow<'a, str>>,
    types: HashMap<i64, Type<'a>>,
    table: &'t mut Table,
}

impl<'a> Reader<'a, '_> {
    /// The index of a string.
    fn string(&mut self) -> Result<usize, ReadError> {
        let index = usize::try_from(self.cursor.int()?).ok();
        let found = index.filter(|index| *index < self.strings.len());
        found.ok_or_else(|| self.cursor.error("the metadata refers to a missing string"))
    }

    /// The value of an attribute, not copied: strings may be long and references to them short.
    fn get(&self, attributes: &[(usize, usize)], wanted: &str) -> Option<&Cow<'a, str>> {
        let found = attributes.iter().find(|(key, _)| self.strings[*key] == wanted);
        found.map(|(_, value)| &self.strings[*value])
    }

    fn name(&mut self, attributes: &[(usize, usize)]) -> Result<Cow<'a, str>, ReadError> {
        let name = self.get(attributes, "name").cloned().unwrap_or_default();
        self.table.charge(160 + name.len())?;
        Ok(name)
    }

    /// Reads an element; classes are added, fields belong to the enclosing class.
    fn element(&mut self, open: Option<i64>, depth: usize) -> Result<(), ReadError> {
        if depth > MAX_DEPTH {
            return Err(self.cursor.error(format!("metadata nests deeper than {MAX_DEPTH}")));
        }
        let name = self.string()?;
        let mut attributes: Vec<(usize, usize)> = Vec::new();
        for _ in 0..self.cursor.count()? {
            let pair = (self.string()?, self.string()?);
            if attributes.len() < 32 {
                attributes.push(pair);
            }
        }
        let number = |reader: &Self, wanted: &str| {
            reader
                .get(&attributes, wanted)
                .and_then(|text| text.parse::<i64>().ok())
        };
        let mut inside = open;
        match &*self.strings[name] {
            "class" => {
                let id = number(self, "id").ok_or_else(|| self.cursor.error("a type has no number"))?;
                let class = Type {
                    name: self.name(&attributes)?,
                    kind: Kind::Fields,
                    fields: Vec::new(),
                };
                self.types.insert(id, class);
                inside = Some(id);
            }
            "field" => {
                let class = number(self, "class").ok_or_else(|| self.cursor.error("a field has no type"))?;
                let field = Field {
                    name: self.name(&attributes)?,
                    class,
                    pooled: self.get(&attributes, "constantPool").is_some_and(|text| text == "true"),
                    array: number(self, "dimension").unwrap_or(0) > 0,
                    ticks: false,
                };
                if let Some(open) = open.and_then(|id| self.types.get_mut(&id)) {
                    open.fields.push(field);
                }
            }
            "annotation" => {
                let ticks = self.get(&attributes, "value").is_some_and(|text| text == "TICKS");
                let field = open.and_then(|id| self.types.get_mut(&id)?.fields.last_mut());
                if let Some(field) = field.filter(|_| ticks) {
                    field.ticks = true;
                }
            }
            _ => {}
        }
        for _ in 0..self.cursor.count()? {
            self.element(inside, depth + 1)?;
        }
        Ok(())
    }
}

impl<'a> Types<'a> {
    /// Reads the metadata at a position in the chunk.
    pub(super) fn read(mut cursor: Cursor<'a>, table: &mut Table) -> Result<Types<'a>, ReadError> {
        cursor.int()?;
        if cursor.long()? != 0 {
            return Err(cursor.error("no metadata at the declared offset"));
        }
        // Start, duration, metadata id.
        for _ in 0..3 {
            cursor.long()?;
        }
        let mut strings = Vec::new();
        for _ in 0..cursor.count()? {
            let text = match cursor.text()? {
                Text::Plain(text) => text,
                Text::None | Text::Pooled(_) => Cow::Borrowed(""),
            };
            table.charge(48 + text.len())?;
            strings.push(text);
        }
        let steps = cursor.bytes.len() as u64 * 16;
        let mut reader = Reader {
            cursor,
            strings,
            types: HashMap::new(),
            table,
        };
        reader.element(None, 0)?;
        let mut by_id = reader.types;
        for class in by_id.values_mut() {
            class.kind = kind_of(&class.name, !class.fields.is_empty());
        }
        Ok(Types {
            by_id,
            steps: Cell::new(steps),
        })
    }

    /// A type by its number.
    pub(super) fn get(&self, id: i64) -> Option<&Type<'a>> {
        self.by_id.get(&id)
    }

    /// The name of a type; empty if there is none.
    pub(super) fn name_of(&self, id: i64) -> &str {
        self.get(id).map_or("", |class| &class.name)
    }

    /// The number of a type by its name.
    pub(super) fn id_of(&self, name: &str) -> Option<i64> {
        self.by_id
            .iter()
            .filter(|(_, class)| class.name == name)
            .map(|(id, _)| *id)
            .min()
    }

    /// The type of a field.
    pub(super) fn class(&self, cursor: &Cursor<'_>, id: i64) -> Result<&Type<'a>, ReadError> {
        self.get(id)
            .ok_or_else(|| cursor.error(format!("a value has type {id}, which the metadata does not define")))
    }

    /// Counts one step.
    pub(super) fn step(&self, cursor: &Cursor<'_>) -> Result<(), ReadError> {
        let left = self.steps.get().checked_sub(1);
        self.steps
            .set(left.ok_or_else(|| cursor.error("decoding the values takes more work than the chunk's size allows"))?);
        Ok(())
    }

    /// Skips the value of a field.
    pub(super) fn skip_field(&self, cursor: &mut Cursor<'_>, field: &Field<'_>, depth: usize) -> Result<(), ReadError> {
        let times = if field.array { cursor.count()? } else { 1 };
        for _ in 0..times {
            self.step(cursor)?;
            if field.pooled {
                cursor.long()?;
            } else {
                self.skip(cursor, field.class, depth)?;
            }
        }
        Ok(())
    }

    /// Skips a value of a type.
    pub(super) fn skip(&self, cursor: &mut Cursor<'_>, class: i64, depth: usize) -> Result<(), ReadError> {
        if depth > MAX_DEPTH {
            return Err(cursor.error(format!("values nest deeper than {MAX_DEPTH}")));
        }
        self.step(cursor)?;
        let class = self.class(cursor, class)?;
        match class.kind {
            Kind::Whole(bytes) => drop(cursor.whole(bytes)?),
            Kind::Fixed(bytes) => drop(cursor.take(bytes)?),
            Kind::Text => drop(cursor.text()?),
            Kind::Fields => {
                for field in &class.fields {
                    self.skip_field(cursor, field, depth + 1)?;
                }
            }
        }
        Ok(())
    }
}
