//! The engine with what is known about its tables: opening it, and setting a damaged file aside.

use std::collections::BTreeMap;

use super::{ROOM_BYTES, Shared};
use crate::{
    hot::{
        database::{self, Database},
        failure::{self, Kind},
        reconcile::{self, Reconciled},
        rows::Seen,
    },
    journal::Lsn,
    parts::PartSet,
    quarantine,
};

/// The open engine.
pub(crate) struct Engine {
    pub(super) database: Database,
    pub(super) seen: Seen,
    pub(super) applied: Lsn,
    /// For each hour with tables: a batch before which it has no rows, and since when it has had any.
    pub(super) waiting: BTreeMap<u32, (Lsn, i64)>,
    /// The generation of the next tables.
    pub(super) next_generation: u32,
    /// Rows of deleted services still have to be removed from the tables.
    pub(super) holds_deleted: bool,
}

impl Engine {
    /// Opens the engine and publishes what it holds to the rest of the store. A damaged file is set aside and replaced
    /// by an empty one; any other failure is for the caller to retry.
    pub(crate) fn open(shared: &Shared) -> Result<Engine, String> {
        let (database, reconciled) = match open(shared)? {
            Ok(opened) => opened,
            Err(error) => match failure::kind(&error) {
                Kind::Full | Kind::InUse | Kind::Memory | Kind::Interrupted => return Err(error.to_string()),
                _ => {
                    tracing::error!(%error, "cannot open the query engine's file; rebuilding it from journal and parts");
                    shared.counters.set_hot_error(Some(error.to_string()));
                    set_aside(shared)?;
                    open(shared)?.map_err(|error| error.to_string())?
                }
            },
        };
        let base = database.connection.try_clone().map_err(|error| error.to_string())?;
        shared.readers.open(base);
        shared.counters.set_hot_error(None);
        if let Err(error) = derive_history(shared, &database) {
            return Err(error.to_string());
        }
        shared.applied.send_replace(reconciled.applied);
        let since_s = shared.clock.now_unix_s();
        let waiting = reconciled.first.iter().map(|(&hour, &first)| (hour, (first, since_s)));
        Ok(Engine {
            waiting: waiting.collect(),
            next_generation: reconciled.next_generation,
            holds_deleted: reconciled.holds_deleted,
            database,
            seen: reconciled.seen,
            applied: reconciled.applied,
        })
    }

    /// Removes rows of deleted services that a crash left in the tables. Postponed while the disk is full: questions
    /// must not wait for that.
    pub(super) fn remove_deleted(
        shared: &Shared,
        database: &Database,
        tables: &BTreeMap<u32, u32>,
    ) -> duckdb::Result<Removed> {
        let deleted = shared.deletions.lock().all().to_vec();
        if deleted.is_empty() {
            return Ok(Removed::Nothing);
        }
        if shared.disk.free_bytes(&shared.options.data_dir).unwrap_or(u64::MAX) < ROOM_BYTES {
            return Ok(Removed::Later);
        }
        match database.remove_deleted(tables, &deleted)? {
            0 => Ok(Removed::Nothing),
            _ => Ok(Removed::Something),
        }
    }

    /// Number of the last batch applied.
    pub(crate) fn applied(&self) -> Lsn {
        self.applied
    }
}

/// What happened to rows of deleted services in the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removed {
    Nothing,
    Something,
    /// There is no space for it.
    Later,
}

/// Opens the file and makes it agree with the parts. The outer error comes from the folder of parts.
fn open(shared: &Shared) -> Result<duckdb::Result<(Database, Reconciled)>, String> {
    let parts = PartSet::list(&shared.disk, &shared.options.data_dir)
        .map_err(|error| format!("cannot read the directory of sealed parts: {error}"))?;
    Ok(
        Database::open(&shared.options, &shared.checks).and_then(|(database, mut contents)| {
            let removed = Engine::remove_deleted(shared, &database, &contents.tables)?;
            if removed == Removed::Something {
                contents = database.contents()?;
            }
            let mut reconciled = reconcile::first(shared, &database, contents, parts)?;
            reconciled.holds_deleted = removed == Removed::Later;
            Ok((database, reconciled))
        }),
    )
}

/// Adds the releases that are in the windows but not in the history.
pub(super) fn derive_history(shared: &Shared, database: &Database) -> duckdb::Result<()> {
    let releases = database.releases()?;
    let spans = shared.known.spans.read();
    let mut history = shared.history.lock();
    for (workload, release) in &releases {
        if let Some(&(first_s, last_s)) = spans.get(workload) {
            history.derive(release, i64::from(first_s), i64::from(last_s));
        }
    }
    Ok(())
}

/// Moves the engine's files to the quarantine folder; removes them when they cannot be moved.
pub(super) fn set_aside(shared: &Shared) -> Result<(), String> {
    shared.counters.hot_rebuilds.add(1);
    let path = database::path_of(&shared.options.data_dir);
    for file in [database::wal_of(&path), path] {
        if !file.exists() {
            continue;
        }
        let name = file
            .file_name()
            .map_or_else(|| "hot".into(), |n| n.to_string_lossy().into_owned());
        let place = quarantine::place(
            &*shared.disk,
            &shared.options.data_dir,
            &name,
            shared.clock.now_unix_ms(),
        );
        if std::fs::rename(&file, &place).is_err() {
            std::fs::remove_file(&file).map_err(|error| format!("cannot remove {}: {error}", file.display()))?;
        }
    }
    Ok(())
}
