//! Bytes at rest: of a sample, everything that is needed to read it included, on the pinned data set; and of a row among
//! tens of millions.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Result, ensure};
use emberline_model::{Batch, ProfileType};
use emberline_storage::{Options, Range, StackQuery, Store, WorkloadFilter};
use emberline_tests::{
    bulk::HandClock,
    generator::pinned::{self, Pinned},
};

use crate::{
    Figure,
    cost::Watch,
    mesh_store::{MeshStore, runtime},
};

const COMMAND: &str = "make bench NAME=store";
/// The word that files of roll-ups begin with.
const ROLLUP: &str = "rollup";

pub(crate) fn run() -> Result<Vec<Figure>> {
    let mut figures = pinned_set()?;
    figures.extend(many_rows()?);
    Ok(figures)
}

/// Seals the pinned data set and adds up its files.
fn pinned_set() -> Result<Vec<Figure>> {
    let shape = Pinned::default();
    println!("{shape}");
    let dir = tempfile::tempdir()?;
    let mut options = Options::new(dir.path());
    options.min_free_mb = 0;
    // The hour goes on while it is filled, however long that takes: sealed twice, it would have two dictionaries.
    let clock = Arc::new(HandClock::at(pinned::START + 1800));
    let store = Store::open(options, clock.clone())?;
    let mut rows = 0u64;
    let (before, after, sealing) = runtime()?.block_on(async {
        for batch in shape.batches() {
            rows += samples(&batch);
            store.append(batch).await?;
        }
        store.flush_applied().await?;
        let everything = StackQuery::new(WorkloadFilter::default(), ProfileType::CPU, Range::ALL);
        let before = store.ask(everything.clone()).await?;
        clock.set(pinned::START + 3600 + 600);
        let mut watch = Watch::start();
        store.seal().await?;
        let sealing = watch.lap();
        anyhow::Ok((before, store.ask(everything).await?, sealing))
    })?;
    let stats = store.stats();
    ensure!(
        stats.seal_failures == 0 && stats.hours == stats.sealed_hours,
        "not everything was sealed"
    );
    ensure!(before == after, "sealing changed an answer");
    let mut by_kind: BTreeMap<String, u64> = BTreeMap::new();
    for entry in std::fs::read_dir(dir.path().join("parts"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = name.split('-').next().unwrap_or_default().to_owned();
        *by_kind.entry(kind).or_default() += entry.metadata()?.len();
    }
    println!("{rows} rows, {} stacks seen, sealed in {sealing}", before.rows.len());
    for (kind, bytes) in &by_kind {
        println!(
            "  {kind:9} {bytes:>10} bytes, {:.3} per sample",
            *bytes as f64 / rows as f64
        );
    }
    let all: u64 = by_kind.values().sum();
    // Roll-ups repeat what the samples say; they are kept for the time after them, and are stated apart.
    let rollup = by_kind.get(ROLLUP).copied().unwrap_or(0);
    let per_row = |bytes: u64| bytes as f64 / rows as f64;
    Ok(vec![
        Figure::plain("store_bytes_per_sample", per_row(all - rollup), "B", 1, COMMAND),
        Figure::plain("store_rollup_bytes_per_sample", per_row(rollup), "B", 1, COMMAND),
    ])
}

fn samples(batch: &Batch) -> u64 {
    let profiles = batch.windows.iter().flat_map(|window| &window.profiles);
    profiles.map(|profile| profile.samples.len() as u64).sum()
}

/// Adds up the files of the large store.
fn many_rows() -> Result<Vec<Figure>> {
    let mesh = MeshStore::get()?;
    println!("{}", mesh.plan);
    let mut by_kind: BTreeMap<String, u64> = BTreeMap::new();
    let mut files = 0;
    for (kind, bytes) in mesh.files()? {
        files += 1;
        *by_kind.entry(kind).or_default() += bytes;
    }
    let rows = mesh.loaded.rows;
    for (kind, bytes) in &by_kind {
        println!(
            "  {kind:9} {bytes:>11} bytes, {:.3} per row",
            *bytes as f64 / rows as f64
        );
    }
    let samples = by_kind.get("samples").copied().unwrap_or(0);
    let all: u64 = by_kind.values().sum();
    println!("  {files} files, {rows} rows");
    Ok(vec![
        Figure::plain("store_bytes_per_row", samples as f64 / rows as f64, "B", 1, COMMAND),
        Figure::plain("store_bytes_per_row_all_in", all as f64 / rows as f64, "B", 1, COMMAND),
        Figure::plain("store_rows_measured", rows as f64, "rows", 1, COMMAND),
    ])
}
