//! `emberline store symbols list|forget`: where the names of builds come from, and how to remove them.
//!
//! Guarantees: `list` changes nothing; `forget` removes names and debug files, but no measurements.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use emberline_collector::{SymbolClaim, forget_symbol_file, symbol_claims};
use emberline_storage::{
    disk::RealDisk,
    inspect::symbols::{self, NamedBuild},
};
use serde_json::json;

use super::{bytes, tell};
use crate::{
    ask::table::draw,
    cli::{StoreArgs, SymbolsCommand},
};

/// What is known about a build, from its names and from its file.
struct Build {
    id: String,
    names: Option<NamedBuild>,
    claim: Option<SymbolClaim>,
}

pub(super) fn run(args: &StoreArgs, command: &SymbolsCommand) -> Result<ExitCode> {
    match command {
        SymbolsCommand::List => list(args),
        SymbolsCommand::Forget { build } => forget(args, build),
    }
}

fn builds(args: &StoreArgs) -> Result<Vec<Build>> {
    let named = symbols::list(&args.data_dir, &RealDisk)?;
    let claims = symbol_claims(&args.data_dir).context("cannot read the directory of debug files")?;
    let mut builds: Vec<Build> = claims
        .into_iter()
        .map(|claim| Build {
            id: claim.build_id.clone(),
            names: None,
            claim: Some(claim),
        })
        .collect();
    for names in named {
        match builds.iter_mut().find(|build| build.id == names.build) {
            Some(build) => build.names = Some(names),
            None => builds.push(Build {
                id: names.build.clone(),
                names: Some(names),
                claim: None,
            }),
        }
    }
    builds.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(builds)
}

fn list(args: &StoreArgs) -> Result<ExitCode> {
    let builds = builds(args)?;
    let report: Vec<_> = builds
        .iter()
        .map(|build| json!({ "build": build.id, "names": build.names, "file": build.claim }))
        .collect();
    tell(args, &report, || {
        let rows: Vec<Vec<String>> = builds.iter().map(row).collect();
        let heading = ["names", "on disk", "file", "digest", "received", "from", "build"];
        draw(&heading, &rows)
    })
}

fn row(build: &Build) -> Vec<String> {
    let unknown = || "–".to_owned();
    let names = build.names.as_ref();
    let claim = build.claim.as_ref();
    let digest = claim.map(|claim| claim.digest.chars().take(12).collect::<String>());
    let from = claim.map(|claim| {
        let who = match (claim.address.as_str(), claim.sender.as_str()) {
            ("", "") => unknown(),
            (address, "") => address.to_owned(),
            (address, sender) => format!("{address} ({sender})"),
        };
        match (&claim.refused, claim.reported_unix_ms) {
            (Some(why), _) => format!("{who}, refused: {why}"),
            (None, None) => format!("{who}, which does not run the build"),
            (None, Some(_)) => who,
        }
    });
    vec![
        names.map_or_else(unknown, |names| names.locations.to_string()),
        names.map_or_else(unknown, |names| bytes(names.bytes)),
        claim.map_or_else(unknown, |claim| bytes(claim.bytes)),
        digest.filter(|digest| !digest.is_empty()).unwrap_or_else(unknown),
        claim.map_or_else(unknown, |claim| claim.received()),
        from.unwrap_or_else(unknown),
        build.id.clone(),
    ]
}

fn forget(args: &StoreArgs, build: &str) -> Result<ExitCode> {
    let forget_file = || forget_symbol_file(&args.data_dir, build);
    let (names, file) = symbols::forget(&args.data_dir, &RealDisk, build, forget_file)?;
    let file = file.context("cannot remove the debug file")?;
    if !names && !file {
        bail!("no symbols or debug file of build `{build}`: `emberline store symbols list` shows the known builds");
    }
    let report = json!({ "build": build, "names_forgotten": names, "file_forgotten": file });
    tell(args, &report, || {
        format!(
            "removed the symbols of {build}: after the next start, its file is requested and its locations are resolved again\n"
        )
    })
}
