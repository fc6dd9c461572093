//! Sealing: a finished hour is moved from the engine's tables to parts.
//!
//! Guarantees: for every question a row is in the table or in a part, never in both or neither; the journal is trimmed
//! only after the parts are durable; a failure before the first rename leaves everything as it was; after a later one,
//! the engine is reopened, which does what a start after a crash does: rows that a part covers are removed from the
//! tables. Late rows make another part of their hour. Sums (`sums`) are written with the rows they are made of.

use std::{collections::BTreeMap, io, sync::Arc};

use arrow::{
    array::{Array, AsArray, StructArray},
    datatypes::{Schema, UInt64Type},
};
use duckdb::Connection;
use emberline_model::ProfileType;

use super::{
    Shared,
    chunks::{CHUNK_ROWS, series_ranges},
    cut::QUARTER_OF_HOUR,
    database::Database,
    hours,
    schema::{column_names, order, table},
    sums::{self, RequestSums},
};
use crate::hot::saturated::saturated_u64;
use crate::{
    ids::IdMap,
    journal::Lsn,
    parts::{
        self, Draft, DraftFile, Kind, Part, PartName,
        dictionary::{
            BuildName, LabelSetName, MappingName, Names, NamesWriter, SeriesName, StacksWriter, WorkloadSpan,
        },
        rows::RowWriter,
    },
    questions::columns::Columns,
    readers::Failure,
};

/// Why an hour was not sealed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SealError {
    /// The engine failed; nothing changed.
    #[error("the query engine failed: {0}")]
    Engine(#[from] duckdb::Error),
    /// The disk failed; nothing changed.
    #[error("cannot write parts: {0}; free space or repair the disk")]
    Disk(#[from] io::Error),
    /// The dictionary does not fit its rows; nothing changed.
    #[error("{0}; this is a bug in Emberline")]
    Internal(String),
    /// It failed so late that only the folder knows what is sealed.
    #[error("cannot rename parts: {0}; free space or repair the disk")]
    Unknown(io::Error),
}

impl From<Failure> for SealError {
    fn from(failure: Failure) -> SealError {
        match failure {
            Failure::Engine(error) => SealError::Engine(error),
            Failure::Question(error) => SealError::Internal(error.to_string()),
            Failure::Parts(_) | Failure::NoRoom | Failure::Cancelled => {
                SealError::Internal("sealing was cancelled".to_owned())
            }
        }
    }
}

/// A number for the release of a series `d`: requests are added up over its processes, so these stay together.
const RELEASE: &str = "hash(d.namespace, d.service, d.version)";

/// An hour being sealed.
pub(super) struct Seal<'a> {
    shared: &'a Shared,
    database: &'a Database,
    hour: u32,
    generation: u32,
    sequence: u32,
    drafts: Vec<Draft>,
}

/// Writes the tables of an hour as parts and names them. Without rows there are no parts.
pub(super) fn seal(
    shared: &Shared,
    database: &Database,
    hour: u32,
    generation: u32,
) -> Result<Vec<Arc<Part>>, SealError> {
    let dir = parts::folder(&shared.options.data_dir);
    shared.disk.create_dir_all(&dir)?;
    let mut seal = Seal {
        shared,
        database,
        hour,
        generation,
        sequence: shared.next_sequence(hour),
        drafts: Vec::new(),
    };
    let mut extents = BTreeMap::new();
    for kind in parts::ROW_KINDS {
        if let Some(extent) = database.extent(kind, hour, generation)? {
            extents.insert(kind, extent);
        }
    }
    let (Some(first), Some(last)) = (extents.values().map(|e| e.0).min(), extents.values().map(|e| e.1).max()) else {
        return Ok(Vec::new());
    };
    // The dictionary is named first: no rows without their names.
    let with_stacks = extents.contains_key(&Kind::Samples) || extents.contains_key(&Kind::Exemplars);
    seal.dictionary((first, last), with_stacks)?;
    for (kind, extent) in extents {
        let table = seal.table(kind);
        let conditions = match kind {
            Kind::Samples | Kind::Requests => seal.chunks(&format!("{table} s"), "s")?,
            _ => vec![String::new()],
        };
        let pieces: Vec<String> = conditions
            .iter()
            .map(|condition| {
                let (names, order) = (column_names(kind), order(kind));
                format!("SELECT {names} FROM {table} s {condition} ORDER BY {order}")
            })
            .collect();
        seal.rows(kind, extent, &pieces)?;
        match kind {
            Kind::Samples => {
                seal.rollup(extent)?;
                let cpu = sums::of_cpu(&table, &seal.table(Kind::Windows));
                seal.rows(Kind::Totals, extent, &[sums::sorted(Kind::Totals, &[cpu])])?;
            }
            Kind::Requests => seal.requests(extent)?,
            Kind::Windows => {
                let runs = sums::of_windows(&table);
                seal.rows(Kind::Runs, extent, &[sums::sorted(Kind::Runs, &[runs])])?;
            }
            _ => {}
        }
    }
    parts::publish(&shared.disk, &dir, seal.drafts).map_err(SealError::Unknown)
}

fn each_chunk(
    connection: &Connection,
    sql: &str,
    mut each: impl FnMut(&StructArray) -> Result<(), SealError>,
) -> Result<(), SealError> {
    let mut statement = connection.prepare(sql)?;
    drop(statement.stream_arrow([])?);
    while let Some(chunk) = statement.step()? {
        each(&chunk)?;
    }
    Ok(())
}

impl Seal<'_> {
    fn table(&self, kind: Kind) -> String {
        table(kind, self.hour, self.generation)
    }

    /// The query of all stacks that the rows mention.
    fn stack_ids(&self) -> String {
        format!(
            "SELECT stack_id FROM {} UNION SELECT stack_id FROM {}",
            self.table(Kind::Samples),
            self.table(Kind::Exemplars)
        )
    }

    fn name(&self, kind: Kind, (first_lsn, last_lsn): (Lsn, Lsn), rows: u64) -> PartName {
        PartName {
            kind,
            hour: self.hour,
            hours: 1,
            sequence: self.sequence,
            first_lsn,
            last_lsn,
            rows,
            checksum: 0,
        }
    }

    fn create(&self, kind: Kind) -> io::Result<DraftFile> {
        let dir = parts::folder(&self.shared.options.data_dir);
        DraftFile::create(&self.shared.disk, &dir, kind.word())
    }

    /// Conditions on the series of one of the tables in `from` that together select every row once, in ascending order,
    /// as many rows at a time as can be sorted in memory.
    fn chunks(&self, from: &str, of: &str) -> Result<Vec<String>, SealError> {
        let ranges = self.ranges(from, &format!("{of}.series_id"), CHUNK_ROWS)?.into_iter();
        Ok(ranges
            .map(|(first, last)| format!("WHERE {of}.series_id BETWEEN {first} AND {last}"))
            .collect())
    }

    /// Ranges of a number computed from each row, with at most `most` rows each unless a single number has more.
    fn ranges(&self, from: &str, number: &str, most: u64) -> Result<Vec<(u64, u64)>, SealError> {
        let mut counts: Vec<(u64, u64)> = Vec::new();
        let sql = format!("SELECT {number}, CAST(count(*) AS UBIGINT) FROM {from} GROUP BY 1 ORDER BY 1");
        each_chunk(&self.database.connection, &sql, |chunk| {
            let columns = Columns::new(chunk);
            counts.extend(columns.u64(0)?.iter().copied().zip(columns.u64(1)?.iter().copied()));
            Ok(())
        })?;
        Ok(series_ranges(&counts, most))
    }

    /// Writes the rows of queries, one after another, as a part.
    fn rows(&mut self, kind: Kind, extent: (Lsn, Lsn), pieces: &[String]) -> Result<(), SealError> {
        let mut writer: Option<RowWriter> = None;
        for sql in pieces {
            each_chunk(&self.database.connection, sql, |chunk| {
                let writer = match &mut writer {
                    Some(writer) => writer,
                    none => {
                        let schema = Schema::new(chunk.fields().clone());
                        none.insert(RowWriter::new(self.create(kind)?, Arc::new(schema))?)
                    }
                };
                Ok(writer.write(chunk)?)
            })?;
        }
        if let Some(writer) = writer {
            self.drafts.push(writer.finish(self.name(kind, extent, 0))?);
        }
        Ok(())
    }

    /// Adds up the samples of the hour over the processes of each release, and writes them as a part.
    fn rollup(&mut self, extent: (Lsn, Lsn)) -> Result<(), SealError> {
        let table = self.table(Kind::Samples);
        let samples_by_release = format!(
            "{table} s JOIN series d ON d.series_id = s.series_id
             JOIN series r ON r.namespace = d.namespace AND r.service = d.service AND r.version = d.version
                AND r.instance = '' AND r.component = d.component AND r.profile_type = d.profile_type"
        );
        let count = |from: &str| -> duckdb::Result<u64> {
            let sql = format!("SELECT count(*) FROM {from}");
            self.database.connection.query_row(&sql, [], |row| row.get(0))
        };
        let (rows, found) = (count(&table)?, count(&samples_by_release)?);
        if rows != found {
            return Err(SealError::Internal(format!("{found} of {rows} samples have a release")));
        }
        let sql = |condition: &String| {
            format!(
                "SELECT CAST({start} AS UINTEGER) AS ts, r.series_id, s.label_set, s.stack_id,
                {sum_of_values} AS value,
                {sum_of_samples} AS samples,
                CAST(count(DISTINCT CASE WHEN r.profile_type <> '{cpu}' THEN s.ts END) AS USMALLINT) AS windows
             FROM {samples_by_release} {condition} GROUP BY r.series_id, s.label_set, s.stack_id ORDER BY {order}",
                start = i64::from(self.hour) * hours::HOUR_S,
                cpu = ProfileType::CPU,
                order = order(Kind::Rollup),
                sum_of_values = saturated_u64!("sum(s.value)"),
                sum_of_samples = saturated_u64!("sum(s.samples)"),
            )
        };
        let pieces: Vec<String> = self.chunks(&samples_by_release, "r")?.iter().map(sql).collect();
        self.rows(Kind::Rollup, extent, &pieces)
    }

    /// Adds up the requests of the hour over the processes of each release, and writes them as a part.
    fn requests(&mut self, extent: (Lsn, Lsn)) -> Result<(), SealError> {
        let (table, windows) = (self.table(Kind::Requests), self.table(Kind::Windows));
        let by_release = format!("{table} s JOIN series d ON d.series_id = s.series_id");
        let mut writer: Option<RowWriter> = None;
        for (first, last) in self.ranges(&by_release, RELEASE, sums::SEALED_ROWS)? {
            let condition = format!("{RELEASE} BETWEEN {first} AND {last}");
            let sql = sums::of_requests(&table, &windows, &condition);
            let mut requests = RequestSums::new(QUARTER_OF_HOUR);
            each_chunk(&self.database.connection, &sql, |chunk| {
                Ok(requests.add(&Columns::new(chunk))?)
            })?;
            let Some(rows) = requests.finish() else { continue };
            let writer = match &mut writer {
                Some(writer) => writer,
                none => none.insert(RowWriter::new(
                    self.create(Kind::Sums)?,
                    Arc::new(Schema::new(rows.fields().clone())),
                )?),
            };
            writer.write(&rows)?;
        }
        if let Some(writer) = writer {
            self.drafts.push(writer.finish(self.name(Kind::Sums, extent, 0))?);
        }
        Ok(())
    }

    /// Writes what the rows mention.
    fn dictionary(&mut self, extent: (Lsn, Lsn), with_stacks: bool) -> Result<(), SealError> {
        let (mut names, mapping_index) = self.names()?;
        names
            .series
            .sort_by(|a, b| (&a.service, &a.version, &a.instance).cmp(&(&b.service, &b.version, &b.instance)));
        let mut file = self.create(Kind::Names)?;
        let mut writer = NamesWriter::new(&mut file, &names)?;
        let mut index: IdMap<u32> = IdMap::default();
        let sql = format!(
            "SELECT location_id, mapping_id, file_offset, functions, files, lines FROM locations WHERE location_id IN
                (SELECT unnest(locations) FROM stacks WHERE stack_id IN ({}))
             ORDER BY mapping_id NULLS LAST, file_offset, location_id",
            self.stack_ids()
        );
        each_chunk(&self.database.connection, &sql, |chunk| {
            let columns = Columns::new(chunk);
            let (id, offset) = (columns.u64(0)?, columns.u64(2)?);
            let mapping = chunk.column(1).as_primitive::<UInt64Type>();
            let (functions, files, lines) = (columns.list(3)?, columns.list(4)?, columns.list(5)?);
            for row in 0..columns.rows() {
                index.insert(id[row], index.len() as u32);
                if mapping.is_valid(row) {
                    let mapping = mapping_index
                        .get(&mapping.value(row))
                        .ok_or_else(|| SealError::Internal("a location refers to an unknown file".to_owned()))?;
                    writer.native(*mapping, offset[row])?;
                } else {
                    let frames = functions.texts(row)?.into_iter().zip(files.texts(row)?);
                    let frames = frames.zip(lines.u32(row)?);
                    writer.named(frames.map(|((function, file), line)| (function, file, line)))?;
                }
            }
            Ok(())
        })?;
        writer.finish()?;
        let rows = (names.series.len() + names.label_sets.len() + index.len()) as u64;
        self.drafts.push(file.finish(self.name(Kind::Names, extent, rows))?);
        if with_stacks {
            self.stacks(extent, &index)?;
        }
        Ok(())
    }

    fn stacks(&mut self, extent: (Lsn, Lsn), index: &IdMap<u32>) -> Result<(), SealError> {
        let mut file = self.create(Kind::Stacks)?;
        let mut writer = StacksWriter::new(&mut file);
        let mut rows = 0;
        let mut root_first: Vec<u32> = Vec::new();
        let sql = format!(
            "SELECT list_reverse(locations) AS root_first FROM stacks WHERE stack_id IN ({})
             ORDER BY root_first",
            self.stack_ids()
        );
        each_chunk(&self.database.connection, &sql, |chunk| {
            let columns = Columns::new(chunk);
            let locations = columns.list(0)?;
            for row in 0..columns.rows() {
                root_first.clear();
                for location in locations.u64(row)? {
                    let index = index
                        .get(&location)
                        .ok_or_else(|| SealError::Internal("a stack refers to an unknown location".to_owned()))?;
                    root_first.push(*index);
                }
                writer.push(&root_first)?;
                rows += 1;
            }
            Ok(())
        })?;
        writer.finish()?;
        self.drafts.push(file.finish(self.name(Kind::Stacks, extent, rows))?);
        Ok(())
    }

    /// Names of everything but locations, and the index of each mapping.
    fn names(&self) -> Result<(Names, IdMap<u32>), SealError> {
        let [windows, requests, samples, exemplars] = parts::ROW_KINDS.map(|kind| self.table(kind));
        let workloads = format!(
            "SELECT workload_id FROM {windows} UNION SELECT workload_id FROM series WHERE series_id IN
                (SELECT series_id FROM {requests} UNION SELECT series_id FROM {samples}
                    UNION SELECT series_id FROM {exemplars})"
        );
        let mut names = Names::default();
        let each = |sql: &str, each: &mut dyn FnMut(&Columns<'_>) -> Result<(), Failure>| {
            each_chunk(&self.database.connection, sql, |chunk| {
                each(&Columns::new(chunk)).map_err(SealError::from)
            })
        };
        each(
            &format!(
                "SELECT namespace, service, version, instance, component, profile_type FROM series
                 WHERE workload_id IN ({workloads}) OR (instance = '' AND (namespace, service, version) IN
                    (SELECT (namespace, service, version) FROM series WHERE workload_id IN ({workloads})))"
            ),
            &mut |columns| {
                let text = [0, 1, 2, 3, 5].map(|n| columns.text(n));
                let [namespace, service, version, instance, profile_type] = text;
                let (namespace, service, version) = (namespace?, service?, version?);
                let (instance, profile_type, component) = (instance?, profile_type?, columns.u8(4)?);
                names.series.extend((0..columns.rows()).map(|row| SeriesName {
                    namespace: namespace.string(row),
                    service: service.string(row),
                    version: version.string(row),
                    instance: instance.string(row),
                    component: u32::from(component[row]),
                    profile_type: profile_type.string(row),
                }));
                Ok(())
            },
        )?;
        each(
            &format!(
                "SELECT side, route, peer_namespace, peer_service, peer_version FROM label_sets
                 WHERE label_set IN (SELECT label_set FROM {samples} UNION SELECT label_set FROM {exemplars})
                 ORDER BY 2, 1, 4, 5"
            ),
            &mut |columns| {
                let (side, route) = (columns.u8(0)?, columns.text(1)?);
                let (namespace, service, version) = (columns.text(2)?, columns.text(3)?, columns.text(4)?);
                names.label_sets.extend((0..columns.rows()).map(|row| LabelSetName {
                    side: u32::from(side[row]),
                    route: route.string(row),
                    peer_namespace: namespace.get(row).map(str::to_owned),
                    peer_service: service.get(row).map(str::to_owned),
                    peer_version: version.get(row).map(str::to_owned),
                }));
                Ok(())
            },
        )?;
        let mut mapping_index: IdMap<u32> = IdMap::default();
        each(
            &format!(
                "SELECT mapping_id, build_id, path FROM mappings WHERE mapping_id IN
                    (SELECT mapping_id FROM workload_builds WHERE workload_id IN ({workloads}))
                 OR mapping_id IN (SELECT mapping_id FROM locations WHERE mapping_id IS NOT NULL) ORDER BY 1"
            ),
            &mut |columns| {
                let (id, build_id, path) = (columns.u64(0)?, columns.text(1)?, columns.text(2)?);
                for (row, &id) in id.iter().enumerate() {
                    mapping_index.insert(id, names.mappings.len() as u32);
                    names.mappings.push(MappingName {
                        build_id: build_id.string(row),
                        path: path.string(row),
                    });
                }
                Ok(())
            },
        )?;
        each(
            &format!(
                "SELECT workload_id, component, mapping_id FROM workload_builds WHERE workload_id IN ({workloads})"
            ),
            &mut |columns| {
                let (workload, component, mapping) = (columns.u64(0)?, columns.u8(1)?, columns.u64(2)?);
                for row in 0..columns.rows() {
                    if let Some(&mapping) = mapping_index.get(&mapping[row]) {
                        names.builds.push(BuildName {
                            workload_id: workload[row],
                            component: u32::from(component[row]),
                            mapping,
                        });
                    }
                }
                Ok(())
            },
        )?;
        // All of them: there are too few for it to matter which are mentioned.
        each("SELECT id FROM salted ORDER BY 1", &mut |columns| {
            names.salted.extend_from_slice(columns.u64(0)?);
            Ok(())
        })?;
        each(
            &format!("SELECT workload_id, min(ts), max(ts) FROM {windows} GROUP BY 1 ORDER BY 1"),
            &mut |columns| {
                let (workload, first, last) = (columns.u64(0)?, columns.u32(1)?, columns.u32(2)?);
                names.spans.extend((0..columns.rows()).map(|row| WorkloadSpan {
                    workload_id: workload[row],
                    first_s: first[row],
                    last_s: last[row],
                }));
                Ok(())
            },
        )?;
        Ok((names, mapping_index))
    }
}
