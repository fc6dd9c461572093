//! A store with a month of data, for the benches that need one. Loading it takes minutes of CPU, so it is kept in
//! `<target>/bench-data` and used again as long as its plan is the same; delete that folder to load it anew.
//!
//! Wrong on purpose: a store that an older version of Emberline loaded is used again too. That is what an upgrade meets, but
//! for a figure of the current version's size the folder must go first.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use emberline_storage::{Options, Store};
use emberline_tests::{
    bulk::{self, HandClock, Loaded, Phase, Plan},
    generator::{mesh::Shape, pinned},
};
use serde_json::{Value, json};

use crate::{cost::Watch, figures_path, setting};

/// The busy service.
pub(crate) const SERVICE: &str = "checkout";
const DAY_S: i64 = 24 * 3600;

/// A month of which the last two days are dense: a release on each. `EMBERLINE_BENCH_DAYS` and
/// `EMBERLINE_BENCH_INSTANCES` make it smaller or larger.
pub(crate) fn plan() -> Plan {
    let days = setting("EMBERLINE_BENCH_DAYS").unwrap_or(30).max(2);
    let instances = setting("EMBERLINE_BENCH_INSTANCES").unwrap_or(2).max(1) as usize;
    let phase = |version, hours, instances, every_s| Phase {
        version,
        hours,
        instances,
        every_s,
    };
    Plan {
        service: SERVICE.to_owned(),
        shape: Shape::BUSY,
        phases: vec![
            phase(1, (days - 2) * 24, 1, 120),
            phase(1, 24, instances, 10),
            phase(2, 24, instances, 10),
        ],
        neighbours: 10,
        requests: false,
        start_s: pinned::START - days * DAY_S,
    }
}

/// A loaded store, closed.
pub(crate) struct MeshStore {
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// What it holds.
    pub(crate) loaded: Loaded,
    /// What was asked for.
    pub(crate) plan: Plan,
}

impl MeshStore {
    /// Loads it, or finds it loaded.
    pub(crate) fn get() -> Result<MeshStore> {
        let plan = plan();
        let root = figures_path().with_file_name("bench-data");
        let (dir, note) = (root.join("mesh"), root.join("mesh.json"));
        let known: Option<Value> = fs::read(&note)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(known) = known
            && known["plan"] == plan.to_string()
        {
            println!("using {} again; delete it to load anew", dir.display());
            let loaded = Loaded::from_json(&known["loaded"])?;
            return Ok(MeshStore { dir, loaded, plan });
        }
        let _ = fs::remove_file(&note);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&root)?;
        let mut watch = Watch::start();
        let clock = Arc::new(HandClock::at(plan.start_s));
        let mut made = MeshStore {
            dir,
            loaded: Loaded::from_json(&json!({"rows": 0, "profiles": 0, "hours": []}))?,
            plan,
        };
        let store = made.open_at(clock.clone())?;
        let runtime = runtime()?;
        made.loaded = runtime.block_on(bulk::load(&store, &clock, &made.plan, |loaded| {
            if loaded.hours.len() % 24 == 0 {
                println!("{} days, {} rows", loaded.hours.len() / 24, loaded.rows);
            }
        }))?;
        store.close();
        drop(store);
        let cost = watch.lap();
        println!(
            "loaded and sealed {} rows of {} profiles: {cost}, {:.2} M rows per CPU-second, generator included",
            made.loaded.rows,
            made.loaded.profiles,
            made.loaded.rows as f64 / cost.cpu_ms / 1e3
        );
        let text = json!({"plan": made.plan.to_string(), "loaded": made.loaded.to_json()});
        fs::write(&note, text.to_string())?;
        Ok(made)
    }

    /// The second after the last hour.
    pub(crate) fn end_s(&self) -> i64 {
        self.plan.start_s + self.plan.phases.iter().map(|phase| phase.hours).sum::<i64>() * 3600
    }

    /// Opens the store, with the product's own bounds of memory and threads.
    pub(crate) fn open(&self) -> Result<Store> {
        self.open_at(Arc::new(HandClock::at(self.end_s() + 700)))
    }

    fn open_at(&self, clock: Arc<HandClock>) -> Result<Store> {
        let mut options = Options::new(&self.dir);
        // Single samples of the whole month are kept, so that sizes and questions can be compared with and without roll-ups.
        options.retention = Duration::from_secs(60 * DAY_S as u64);
        options.rollup_retention = options.retention;
        // Of wall-clock time, which a busy machine stretches.
        options.max_query_seconds = 600;
        Store::open(options, clock).context("the store does not open")
    }

    /// Sealed files: what they hold, and how many bytes.
    pub(crate) fn files(&self) -> Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.dir.join("parts"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = name.split('-').next().unwrap_or_default().to_owned();
            files.push((kind, entry.metadata()?.len()));
        }
        ensure!(!files.is_empty(), "nothing is sealed");
        files.sort();
        Ok(files)
    }

    /// Asks the system to forget what it holds of the files in memory. What it cannot forget it keeps.
    pub(crate) fn forget_pages(&self) -> Result<()> {
        for folder in [self.dir.clone(), self.dir.join("parts"), self.dir.join("symbols")] {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries {
                let path = entry?.path();
                if path.is_file() {
                    let file = fs::File::open(&path)?;
                    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
                }
            }
        }
        Ok(())
    }
}

/// A runtime for questions and batches; the store has threads of its own.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}
