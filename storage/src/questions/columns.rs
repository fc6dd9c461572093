//! Columns of a chunk of rows, with their types checked.

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, StringArray, StructArray},
    datatypes::{ArrowPrimitiveType, Float64Type, Int16Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type},
};
use emberline_model::Workload;

use crate::{error::QueryError, readers::Failure};

/// A chunk of rows.
pub(crate) struct Columns<'a> {
    chunk: &'a StructArray,
}

/// A column of nullable text.
pub(crate) struct Texts<'a>(&'a StringArray);

/// A column of lists.
pub(crate) struct Lists<'a>(&'a ListArray);

fn mismatch(what: &str) -> Failure {
    QueryError::Internal {
        message: format!("a column is not of type {what}"),
    }
    .into()
}

fn primitive<'a, T: ArrowPrimitiveType>(array: &'a ArrayRef, what: &str) -> Result<&'a [T::Native], Failure> {
    array
        .as_primitive_opt::<T>()
        .map(|a| a.values().as_ref())
        .ok_or_else(|| mismatch(what))
}

/// Four columns that identify a process: namespace, service, version, instance.
pub(crate) struct Workloads<'a>([Texts<'a>; 4]);

impl<'a> Columns<'a> {
    pub(crate) fn new(chunk: &'a StructArray) -> Columns<'a> {
        Columns { chunk }
    }

    pub(crate) fn rows(&self) -> usize {
        self.chunk.len()
    }

    pub(crate) fn u64(&self, column: usize) -> Result<&'a [u64], Failure> {
        primitive::<UInt64Type>(self.chunk.column(column), "UBIGINT")
    }

    pub(crate) fn i64(&self, column: usize) -> Result<&'a [i64], Failure> {
        primitive::<Int64Type>(self.chunk.column(column), "BIGINT")
    }

    pub(crate) fn u32(&self, column: usize) -> Result<&'a [u32], Failure> {
        primitive::<UInt32Type>(self.chunk.column(column), "UINTEGER")
    }

    pub(crate) fn u16(&self, column: usize) -> Result<&'a [u16], Failure> {
        primitive::<UInt16Type>(self.chunk.column(column), "USMALLINT")
    }

    pub(crate) fn u8(&self, column: usize) -> Result<&'a [u8], Failure> {
        primitive::<UInt8Type>(self.chunk.column(column), "UTINYINT")
    }

    pub(crate) fn f64(&self, column: usize) -> Result<&'a [f64], Failure> {
        primitive::<Float64Type>(self.chunk.column(column), "DOUBLE")
    }

    pub(crate) fn flag(&self, column: usize) -> Result<&'a BooleanArray, Failure> {
        self.chunk
            .column(column)
            .as_boolean_opt()
            .ok_or_else(|| mismatch("BOOLEAN"))
    }

    pub(crate) fn text(&self, column: usize) -> Result<Texts<'a>, Failure> {
        self.chunk
            .column(column)
            .as_string_opt()
            .map(Texts)
            .ok_or_else(|| mismatch("VARCHAR"))
    }

    /// The four columns from `first` on.
    pub(crate) fn workloads(&self, first: usize) -> Result<Workloads<'a>, Failure> {
        let text = |at: usize| self.text(first + at);
        Ok(Workloads([text(0)?, text(1)?, text(2)?, text(3)?]))
    }

    pub(crate) fn list(&self, column: usize) -> Result<Lists<'a>, Failure> {
        self.chunk
            .column(column)
            .as_list_opt()
            .map(Lists)
            .ok_or_else(|| mismatch("LIST"))
    }
}

impl<'a> Texts<'a> {
    /// The text of a row; `None` for null.
    pub(crate) fn get(&self, row: usize) -> Option<&'a str> {
        self.0.is_valid(row).then(|| self.0.value(row))
    }

    /// The text of a row; empty for null.
    pub(crate) fn string(&self, row: usize) -> String {
        self.get(row).unwrap_or_default().to_owned()
    }
}

impl Workloads<'_> {
    /// The process of a row.
    pub(crate) fn get(&self, row: usize) -> Workload {
        let [namespace, service, version, instance] = &self.0;
        Workload {
            namespace: namespace.string(row),
            service: service.string(row),
            version: version.string(row),
            instance: instance.string(row),
        }
    }
}

impl Lists<'_> {
    /// The numbers of a row.
    pub(crate) fn u64(&self, row: usize) -> Result<Vec<u64>, Failure> {
        primitive::<UInt64Type>(&self.0.value(row), "UBIGINT[]").map(<[u64]>::to_vec)
    }

    /// The numbers of a row.
    pub(crate) fn u32(&self, row: usize) -> Result<Vec<u32>, Failure> {
        primitive::<UInt32Type>(&self.0.value(row), "UINTEGER[]").map(<[u32]>::to_vec)
    }

    /// The numbers of a row.
    pub(crate) fn i16(&self, row: usize) -> Result<Vec<i16>, Failure> {
        primitive::<Int16Type>(&self.0.value(row), "SMALLINT[]").map(<[i16]>::to_vec)
    }

    /// The texts of a row; null counts as empty.
    pub(crate) fn texts(&self, row: usize) -> Result<Vec<String>, Failure> {
        let values = self.0.value(row);
        let texts = Texts(values.as_string_opt().ok_or_else(|| mismatch("VARCHAR[]"))?);
        Ok((0..values.len()).map(|at| texts.string(at)).collect())
    }
}
