//! The embedded profile store: journal, hot DuckDB tables, dictionary, symbols, one function per question.
//!
//! ```text
//! append ─▶ journal (number, CRC32C, one sync per group) ─▶ acknowledged
//!                └▶ hot.duckdb (tables per hour, number applied in the same transaction) ◀──────────┬─ questions
//!                       └▶ sealed parts (an hour that is over: sorted, rolled up) ◀─┤
//!                              └▶ compacted parts (a day that is over) ◀────────────┘
//! ```
//!
//! What it guarantees:
//! - A batch is acknowledged after the sync that puts it on disk, and stored once however often it arrives.
//! - DuckDB answers questions and is trusted with nothing: its file can be deleted, damaged or left behind, and is
//!   brought up to date from journal and parts while batches are still accepted.
//! - The journal holds what is not sealed yet; an hour that is over is sealed into immutable files whose names are the
//!   manifest. No crash stores a row twice or loses one.
//! - No damage prevents a start. A flipped bit, a torn tail or a full disk costs at most what it hit, and is counted in
//!   [`StoreStats`].
//! - Everything is bounded: the queue, a batch, a transaction, DuckDB's memory, the dictionary cache, what answers
//!   hold, the number and the time of questions; errors name the setting.
//!
//! Missing on purpose: symbol files are never deleted.
//!
//! Files below the data directory: `LOCK`, `journal/<first number>.log`, `journal/dedup.bin`, `hot.duckdb`,
//! `parts/<kind>-<hour>-<hours>-<sequence>-<first number>-<last number>-<rows>-<checksum>.<parquet or dict>`,
//! `parts/compacted-<hour>-<hours>-<sequence>.commit`,
//! `symbols/<build>.sym`, `deleted.bin`, `releases.bin`, `alerts.bin`, `names.bin`, `secret.bin`, `quarantine/`, `tmp/`.

mod answers;
mod checks;
mod dedup;
mod deletions;
mod dictionary;
pub mod disk;
mod error;
mod framing;
mod history;
mod hot;
mod ids;
pub mod inspect;
mod journal;
mod lock;
#[cfg(test)]
mod mutations;
mod options;
mod packed_frames;
mod parts;
mod pressure;
mod quarantine;
mod questions;
mod range;
mod readers;
mod records;
mod stats;
mod store;
mod symbols;
#[doc(hidden)]
pub mod untrusted;

pub use answers::{AnswerMemory, Holding};
pub use deletions::{DeleteProgress, Deleted, ServiceName};
pub use error::{AppendError, DeleteError, OpenError, QueryError, StateError, SymbolError};
pub use history::ReleaseBeginning;
pub use journal::{Appended, Lsn};
pub use options::Options;
pub use packed_frames::PackedFrames;
pub use pressure::Pressure;
pub use questions::{
    Question,
    costs::{CostQuery, CostRow},
    exemplars::{ExemplarQuery, ExemplarRow, Exemplars},
    heat_map::{HeatCell, HeatMapQuery},
    open::{OpenQuery, OpenRow},
    profile_types::ProfileTypesQuery,
    requests::{Dividing, RequestQuery, RequestRow},
    sample_series::{SampleSeries, SampleSeriesQuery, StackCount, StackCountsQuery},
    selected::{Label, LabelFilter, MAX_SELECTED_VALUES, SelectedQuery, SelectedRow},
    selection::{NO_LABEL, WorkloadFilter},
    served::{ServedQuery, ServedRow},
    services::{ReleaseInfo, ServiceInfo, Services, ServicesQuery, baseline_of},
    side_data::{BothSides, SideQuery},
    stacks::{StackQuery, StackRow, StackRows},
    totals::{TotalRow, TotalsQuery},
    windows::{Complete, ReportQuery, ReportRow, UsualWindow, UsualWindowQuery, WindowMark, WindowQuery},
};
pub use range::{Range, Step};
pub use stats::StoreStats;
pub use store::Store;
pub use symbols::BuildInfo;
