//! pprof files of profiles (one value type) and comparisons (`baseline_cpu` and `candidate_cpu`).

use emberline_model::{
    ProfileType,
    pprof::{PprofMeta, write as write_pprof},
    tree::FlameTree,
};
use emberline_storage::Range;

use super::stacks_of;

/// Writes a tree; two values per stack with `both`. `range` becomes the file's time and duration.
pub(crate) fn write(tree: &FlameTree, profile_type: &ProfileType, range: Range, both: bool) -> Vec<u8> {
    const NS: i64 = 1_000_000_000;
    let (resolved, rows) = stacks_of(tree);
    let meta = PprofMeta {
        profile_type: profile_type.clone(),
        time_ns: range.from_unix_s.saturating_mul(NS),
        duration_ns: (range.to_unix_s - range.from_unix_s).saturating_mul(NS),
        period: 0,
    };
    write_pprof(&meta, &resolved, &rows, both)
}
