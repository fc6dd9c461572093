//! `emberline export`: a profile or a comparison as a file for another program, never cut.

use std::process::ExitCode;

use anyhow::{Context, Result};

use super::print;
use crate::{cli::ExportArgs, client::Target};

pub(crate) fn run(args: &ExportArgs) -> Result<ExitCode> {
    print(&answer(args)?)
}

/// The output for standard output: nothing if a file is written.
pub(super) fn answer(args: &ExportArgs) -> Result<Vec<u8>> {
    let question = match &args.compare {
        None => Target::new("/api/v1/merge").selection(&args.selection),
        Some(service) => Target::new("/api/v1/diff")
            .with("service", service)
            .maybe("baseline", args.baseline.as_ref())
            .maybe("candidate", args.candidate.as_ref())
            .maybe("route", args.route.as_ref())
            .maybe("profile_type", args.selection.profile_type.as_ref())
            .range(&args.selection.range),
    };
    let question = question.with("format", args.format.as_str()).with("limit", &0);
    let answer = question.ask(&args.server)?;
    match &args.file {
        Some(path) => {
            std::fs::write(path, &answer).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(Vec::new())
        }
        None => Ok(answer),
    }
}
