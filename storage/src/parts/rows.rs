//! Rows as Parquet. Guarantee: what the engine reads back are the rows that were written, with their types; any reader
//! of Parquet can. Written in order, so that equal identifiers lie side by side: that is what makes them cheap.

use std::io;

use arrow::{array::StructArray, datatypes::SchemaRef, record_batch::RecordBatch};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::{EnabledStatistics, WriterProperties},
};

use super::{Draft, DraftFile, PartName};

/// Rows of a row group: an identifier is written once for each, and the writer holds one in memory, encoded.
const ROW_GROUP_ROWS: usize = 1 << 20;
/// A row group ends early when the writer holds so much of it.
const ROW_GROUP_BYTES: usize = 24 << 20;
/// Rows that are taken at a time: of lists the writer notes the place of each value.
const BATCH_ROWS: usize = 2_048;
/// Distinct values of a column in a row group may take so much before the writer falls back to plain values.
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
        // The disk's own error comes out as it went in: "no space" must stay recognisable.
        parquet::errors::ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(source) => io::Error::other(source),
        },
        error => io::Error::other(error),
    }
}

fn properties() -> io::Result<WriterProperties> {
    let level = ZstdLevel::try_new(ZSTD_LEVEL).map_err(other)?;
    // Every column by its distinct values, times too: an hour has at most 360 windows.
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

    /// Keeps the rows so far apart from those that follow: a question that needs only some of them passes over the others.
    pub(crate) fn begin_group(&mut self) -> io::Result<()> {
        self.writer.flush().map_err(other)
    }

    /// Ends the file and makes it durable; `name` gets the number of rows and the checksum.
    pub(crate) fn finish(self, name: PartName) -> io::Result<Draft> {
        let rows = self.rows;
        let file = self.writer.into_inner().map_err(other)?;
        file.finish(PartName { rows, ..name })
    }
}
