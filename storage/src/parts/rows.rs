//! Rows as Parquet. Guarantee: the engine, like any reader of Parquet, reads back the rows that were written, with
//! their types. Rows are written in order, so that equal identifiers are next to each other: that is what makes them
//! cheap.

use std::io;

use arrow::{array::StructArray, datatypes::SchemaRef, record_batch::RecordBatch};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::{EnabledStatistics, WriterProperties},
};

use super::{Draft, DraftFile, PartName};

/// Rows per row group: each identifier is written once per group, and the writer holds one encoded group in memory.
const ROW_GROUP_ROWS: usize = 1 << 20;
/// A row group ends early when the writer holds this much of it.
const ROW_GROUP_BYTES: usize = 24 << 20;
/// Rows written at a time: for lists, the writer records the position of each value.
const BATCH_ROWS: usize = 2_048;
/// Size of a column's distinct values in a row group above which the writer falls back to plain values.
const DICTIONARY_BYTES: usize = 8 << 20;
/// Parts are written once an hour and read often.
const ZSTD_LEVEL: i32 = 9;

/// Writes chunks of rows to a part.
pub(crate) struct RowWriter {
    writer: ArrowWriter<DraftFile>,
    rows: u64,
}

fn other(error: parquet::errors::ParquetError) -> io::Error {
    match error {
        // The disk's own error is passed through unchanged: "no space" must stay recognisable.
        parquet::errors::ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(source) => io::Error::other(source),
        },
        error => io::Error::other(error),
    }
}

fn properties() -> io::Result<WriterProperties> {
    let level = ZstdLevel::try_new(ZSTD_LEVEL).map_err(other)?;
    // Every column is dictionary-encoded, even times: an hour has at most 360 windows.
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .build())
}

impl RowWriter {
    pub(crate) fn new(file: DraftFile, schema: SchemaRef) -> io::Result<RowWriter> {
        let writer = ArrowWriter::try_new(file, schema, Some(properties()?)).map_err(other)?;
        Ok(RowWriter { writer, rows: 0 })
    }

    pub(crate) fn write(&mut self, chunk: &StructArray) -> io::Result<()> {
        let batch = RecordBatch::from(chunk);
        let rows = batch.num_rows();
        self.rows += rows as u64;
        for from in (0..rows).step_by(BATCH_ROWS) {
            let piece = batch.slice(from, BATCH_ROWS.min(rows - from));
            self.writer.write(&piece).map_err(other)?;
            if self.writer.memory_size() > ROW_GROUP_BYTES {
                self.writer.flush().map_err(other)?;
            }
        }
        Ok(())
    }

    /// Separates the rows so far from those that follow: a question that needs only some of them skips the others.
    pub(crate) fn begin_group(&mut self) -> io::Result<()> {
        self.writer.flush().map_err(other)
    }

    /// Ends the file and makes it durable; the number of rows and the checksum go into `name`.
    pub(crate) fn finish(self, name: PartName) -> io::Result<Draft> {
        let rows = self.rows;
        let file = self.writer.into_inner().map_err(other)?;
        file.finish(PartName { rows, ..name })
    }
}
