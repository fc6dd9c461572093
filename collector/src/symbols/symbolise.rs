//! Symbolises offsets in one file: the functions at each of them.
//!
//! Guarantees: frames are innermost first, including inlined calls, each with its line in *that* function; names are
//! normalised, so that two builds agree on them. An offset without a symbol has no frames, which is a result, too.
//!
//! Wrong on purpose: file offsets are translated with the file's own program headers, so a file without code (`objcopy
//! --only-keep-debug`) gives no names; it is refused on upload.

use std::{fs::File, path::Path};

use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer, source};
use emberline_model::{Frame, function};

use super::elf;

/// Frames kept per location, the innermost ones.
const MAX_FRAMES: usize = 64;

/// Reads files; caches what it parsed, so drop it when idle.
pub(super) struct Symboliser(Symbolizer);

impl Symboliser {
    pub(super) fn new() -> Symboliser {
        let nowhere: [&Path; 0] = [];
        Symboliser(
            Symbolizer::builder()
                .enable_code_info(true)
                .enable_inlined_fns(true)
                // The model does that, and also removes what differs between builds.
                .enable_demangling(false)
                .enable_auto_reload(false)
                // An uploaded file may refer to others by a debug link; it must not reach those on this machine.
                .set_debug_dirs(Some(nowhere))
                .build(),
        )
    }

    /// The frames at each offset, in the order asked.
    pub(super) fn frames(&self, path: &Path, offsets: &[u64]) -> Result<Vec<(u64, Vec<Frame>)>, String> {
        let code = File::open(path).map_err(|error| error.to_string())?;
        let code = elf::code(&code).map_err(|error| error.to_string())?;
        let source = source::Source::Elf(source::Elf::new(path));
        let found = self
            .0
            .symbolize(&source, Input::FileOffset(offsets))
            .map_err(|error| format!("{error:#}"))?;
        let frames = offsets.iter().zip(&found).map(|(offset, symbolized)| match symbolized {
            // Debug information keeps functions that the linker removed, at addresses without code.
            Symbolized::Sym(symbol) if code.iter().any(|part| part.contains(offset)) => innermost_first(symbol),
            _ => Vec::new(),
        });
        Ok(offsets.iter().copied().zip(frames).collect())
    }
}

/// A symbol comes with the calls inlined into it, outermost first.
fn innermost_first(symbol: &Sym<'_>) -> Vec<Frame> {
    let inlined = symbol
        .inlined
        .iter()
        .rev()
        .map(|call| frame(&call.name, call.code_info.as_ref()));
    let all = inlined.chain([frame(&symbol.name, symbol.code_info.as_deref())]);
    all.filter(|frame| !frame.function.is_empty())
        .take(MAX_FRAMES)
        .collect()
}

fn frame(name: &str, place: Option<&CodeInfo<'_>>) -> Frame {
    let file = place.map(|place| place.to_path().to_string_lossy().into_owned());
    function::frame(
        name,
        file.as_deref().unwrap_or_default(),
        place.and_then(|place| place.line).unwrap_or(0),
    )
}
