//! The pools of a chunk: stacks, methods, classes and strings that events and pools refer to by number.
//!
//! Guarantees: of the pools, only the positions of entries are kept, and charged; a stack is read when an event refers
//! to it. The chunk's last pool leads to earlier ones, never forward, so that the chain ends.

use std::{borrow::Cow, collections::HashMap};

use super::{
    chunk::Chunk,
    cursor::{Cursor, Text},
    types::{Field, Kind},
};
use crate::formats::{
    read_error::ReadError,
    table::{MAX_DEPTH, Table},
};

const STACKS: usize = 0;
const METHODS: usize = 1;
const CLASSES: usize = 2;
const SYMBOLS: usize = 3;
const STRINGS: usize = 4;
/// The types whose pools are read.
const KEPT: [&str; 5] = [
    "jdk.types.StackTrace",
    "jdk.types.Method",
    "java.lang.Class",
    "jdk.types.Symbol",
    "java.lang.String",
];

/// Positions of the entries of a chunk.
pub(super) struct Pools {
    /// Type id and position, by number in the pool.
    places: [HashMap<i64, usize>; KEPT.len()],
    ids: [Option<i64>; KEPT.len()],
    /// Rows of stacks, and whether they were truncated.
    rows: HashMap<i64, (usize, bool)>,
    /// Locations by method and line.
    frames: HashMap<(i64, i64), u32>,
    names: HashMap<i64, String>,
}

impl Pools {
    /// Reads the positions of the entries.
    pub(super) fn read(chunk: &Chunk<'_>, table: &mut Table) -> Result<Pools, ReadError> {
        let mut pools = Pools {
            places: Default::default(),
            ids: KEPT.map(|name| chunk.types.id_of(name)),
            rows: HashMap::new(),
            frames: HashMap::new(),
            names: HashMap::new(),
        };
        let mut at = chunk.pools_at;
        loop {
            let mut cursor = chunk.at(at);
            cursor.int()?;
            if cursor.long()? != 1 {
                return Err(chunk.at(at).error("no constant pool at the declared offset"));
            }
            // Start and duration.
            cursor.long()?;
            cursor.long()?;
            let before = cursor.long()?;
            cursor.byte()?;
            for _ in 0..cursor.count()? {
                pools.pool(chunk, &mut cursor, table)?;
            }
            if before == 0 {
                return Ok(pools);
            }
            let next = i64::try_from(at)
                .ok()
                .and_then(|at| usize::try_from(at.checked_add(before)?).ok());
            let next = next.filter(|next| *next < at && *next >= 68);
            at = next.ok_or_else(|| {
                chunk
                    .at(at)
                    .error("a constant pool points forward or outside the chunk")
            })?;
        }
    }

    fn pool(&mut self, chunk: &Chunk<'_>, cursor: &mut Cursor<'_>, table: &mut Table) -> Result<(), ReadError> {
        let class = cursor.long()?;
        let kept = self.ids.iter().position(|id| *id == Some(class));
        for _ in 0..cursor.count()? {
            let number = cursor.long()?;
            if let Some(kept) = kept {
                table.charge(40)?;
                self.places[kept].insert(number, cursor.at);
            }
            chunk.types.skip(cursor, class, 0)?;
        }
        Ok(())
    }

    fn place<'a>(&self, chunk: &Chunk<'a>, pool: usize, number: i64) -> Option<Cursor<'a>> {
        self.places[pool].get(&number).map(|&at| chunk.at(at))
    }

    /// The entry's fields `wanted`, which are numbers in other pools; 0 where missing.
    fn references<const N: usize>(
        &self,
        chunk: &Chunk<'_>,
        pool: usize,
        number: i64,
        wanted: [&str; N],
    ) -> Result<[i64; N], ReadError> {
        let mut found = [0; N];
        let (Some(mut cursor), Some(class)) = (self.place(chunk, pool, number), self.ids[pool]) else {
            return Ok(found);
        };
        for field in &chunk.types.class(&cursor, class)?.fields {
            match wanted
                .iter()
                .position(|name| field.name == *name && field.pooled && !field.array)
            {
                Some(at) => found[at] = cursor.long()?,
                None => chunk.types.skip_field(&mut cursor, field, 0)?,
            }
        }
        Ok(found)
    }

    fn text<'a>(&self, chunk: &Chunk<'a>, text: Text<'a>) -> Result<Cow<'a, str>, ReadError> {
        let text = match text {
            Text::Pooled(number) => match self.place(chunk, STRINGS, number) {
                Some(mut cursor) => cursor.text()?,
                None => Text::None,
            },
            other => other,
        };
        Ok(match text {
            Text::Plain(text) => text,
            Text::None | Text::Pooled(_) => Cow::Borrowed(""),
        })
    }

    fn symbol<'a>(&self, chunk: &Chunk<'a>, number: i64) -> Result<Cow<'a, str>, ReadError> {
        let (Some(mut cursor), Some(class)) = (self.place(chunk, SYMBOLS, number), self.ids[SYMBOLS]) else {
            return Ok(Cow::Borrowed(""));
        };
        for field in &chunk.types.class(&cursor, class)?.fields {
            let kind = chunk.types.class(&cursor, field.class)?.kind;
            if field.name == "string" && kind == Kind::Text && !field.pooled && !field.array {
                let text = cursor.text()?;
                return self.text(chunk, text);
            }
            if field.name == "string" && field.pooled {
                let number = cursor.long()?;
                return self.text(chunk, Text::Pooled(number));
            }
            chunk.types.skip_field(&mut cursor, field, 0)?;
        }
        Ok(Cow::Borrowed(""))
    }

    /// `package.Class.method`.
    fn method(&mut self, chunk: &Chunk<'_>, number: i64, table: &mut Table) -> Result<&str, ReadError> {
        if !self.names.contains_key(&number) {
            let [class, name] = self.references(chunk, METHODS, number, ["type", "name"])?;
            let [class_name] = self.references(chunk, CLASSES, class, ["name"])?;
            let (class, method) = (self.symbol(chunk, class_name)?, self.symbol(chunk, name)?);
            let name = match (&*class, &*method) {
                ("", method) => method.to_owned(),
                // async-profiler's native frames have a library in place of a class, or nothing.
                (class, method) => format!("{}.{method}", class.replace('/', ".")),
            };
            table.charge(64 + name.len())?;
            self.names.insert(number, name);
        }
        Ok(self.names.get(&number).map_or("", String::as_str))
    }

    /// The row of a stack, and whether the stack was truncated; a stack that is missing is unknown.
    pub(super) fn row(
        &mut self,
        chunk: &Chunk<'_>,
        number: i64,
        table: &mut Table,
    ) -> Result<(usize, bool), ReadError> {
        if let Some(&known) = self.rows.get(&number) {
            return Ok(known);
        }
        let mut stack = Vec::new();
        let mut truncated = false;
        if let (Some(mut cursor), Some(class)) = (self.place(chunk, STACKS, number), self.ids[STACKS]) {
            for field in &chunk.types.class(&cursor, class)?.fields {
                match &*field.name {
                    "truncated" if chunk.types.class(&cursor, field.class)?.kind == Kind::Fixed(1) && !field.array => {
                        truncated = cursor.byte()? != 0;
                    }
                    "frames" if field.array && !field.pooled => {
                        for _ in 0..cursor.count()? {
                            let frame = self.frame(chunk, &mut cursor, field, table)?;
                            if stack.len() >= MAX_DEPTH {
                                return Err(cursor.error(format!("a stack has more than {MAX_DEPTH} frames")));
                            }
                            stack.push(frame);
                        }
                    }
                    _ => chunk.types.skip_field(&mut cursor, field, 0)?,
                }
            }
        }
        if truncated {
            // Its root is not in the recording.
            stack.push(table.frame("[frames cut]", "", 0)?);
        }
        let known = (table.row(stack)?, truncated);
        table.charge(48)?;
        self.rows.insert(number, known);
        Ok(known)
    }

    fn frame(
        &mut self,
        chunk: &Chunk<'_>,
        cursor: &mut Cursor<'_>,
        of: &Field<'_>,
        table: &mut Table,
    ) -> Result<u32, ReadError> {
        chunk.types.step(cursor)?;
        let (mut method, mut line) = (0, 0);
        for field in &chunk.types.class(cursor, of.class)?.fields {
            let kind = chunk.types.class(cursor, field.class)?.kind;
            match (&*field.name, kind) {
                ("method", _) if field.pooled && !field.array => method = cursor.long()?,
                ("lineNumber", Kind::Whole(bytes)) if !field.array && !field.pooled => line = cursor.whole(bytes)?,
                _ => chunk.types.skip_field(cursor, field, 0)?,
            }
        }
        if let Some(&known) = self.frames.get(&(method, line)) {
            return Ok(known);
        }
        let name = self.method(chunk, method, table)?;
        let location = table.frame(name, "", u32::try_from(line).unwrap_or(0))?;
        table.charge(48)?;
        self.frames.insert((method, line), location);
        Ok(location)
    }
}
