//! `emberline store stats|verify|repair|delete|symbols`: inspects and repairs a store's files from outside the server.
//!
//! Guarantees: `stats` and `verify` change nothing; `verify` exits with 1 if anything is damaged; `delete` does nothing
//! without confirmation. The work is done in [`emberline_storage::inspect`]; this only reports it.

mod symbols;

use std::{
    io::{BufRead, IsTerminal, Write},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, bail};
use emberline_model::time::SystemClock;
use emberline_storage::{
    DeleteProgress, Options,
    disk::RealDisk,
    inspect::{self, Damage, Files, StoreContents, Verified},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    ask::{
        print, read,
        table::{amount, draw},
    },
    cli::{ServerArgs, StoreArgs, StoreCheckArgs, StoreCommand, StoreDeleteArgs, TableOutput},
    client::{self, Server, Target},
    progress::Progress,
};

/// The longest response of a running server.
const MAX_STATUS_BYTES: usize = 1 << 20;

pub(crate) fn run(args: &StoreArgs) -> Result<ExitCode> {
    match &args.command {
        StoreCommand::Stats(server) => stats(args, server),
        StoreCommand::Verify(check) => verify(args, check),
        StoreCommand::Repair(check) => repair(args, check),
        StoreCommand::Delete(what) => delete(args, what),
        StoreCommand::Symbols(command) => symbols::run(args, command),
    }
}

fn tell(args: &StoreArgs, value: &impl serde::Serialize, table: impl FnOnce() -> String) -> Result<ExitCode> {
    let text = match args.output {
        TableOutput::Table => table(),
        TableOutput::Json => format!("{:#}\n", serde_json::to_value(value)?),
    };
    print(text.as_bytes())
}

fn bytes(count: u64) -> String {
    amount(count as f64, "bytes")
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn stats(args: &StoreArgs, server: &ServerArgs) -> Result<ExitCode> {
    let contents = inspect::describe(&args.data_dir, &RealDisk)?;
    let running = contents.in_use_by.map(|pid| Running::ask(pid, server));
    let report = json!({
        "data_dir": args.data_dir.display().to_string(),
        "files": serde_json::to_value(&contents)?,
        "server": running.as_ref().map(Running::as_json),
    });
    tell(args, &report, || {
        let mut text = contents_table(args, &contents);
        if let Some(running) = &running {
            text.push_str(&running.table());
        }
        text
    })
}

fn contents_table(args: &StoreArgs, contents: &StoreContents) -> String {
    let row = |name: &str, of: Files, rows: String| vec![of.files.to_string(), bytes(of.bytes), rows, name.to_owned()];
    let mut rows = vec![row("journal", contents.journal, String::new())];
    rows.extend(contents.sealed.iter().map(|of| {
        let files = Files {
            files: of.files,
            bytes: of.bytes,
        };
        row(&format!("sealed {}", of.kind), files, of.rows.to_string())
    }));
    rows.push(row("symbols", contents.symbols, String::new()));
    rows.push(row("query engine (disposable)", contents.hot, String::new()));
    rows.push(row("set aside as damaged", contents.quarantine, String::new()));
    rows.push(row(
        "left over from an interrupted write",
        contents.leftovers,
        String::new(),
    ));
    let mut text = draw(&["files", "bytes", "rows", "what"], &rows);
    text.push_str(&format!(
        "{} in {}, {} free on its disk; {} sealed\n",
        bytes(contents.bytes),
        args.data_dir.display(),
        bytes(contents.free_bytes),
        counted(contents.sealed_hours, "hour", "hours"),
    ));
    let sealed_bytes: u64 = contents.sealed.iter().map(|of| of.bytes).sum();
    let samples = contents.sealed.iter().find(|of| of.kind == "samples");
    if let Some(samples) = samples.filter(|of| of.rows > 0) {
        text.push_str(&format!(
            "{:.2} bytes per sealed sample row, including all other sealed data\n",
            sealed_bytes as f64 / samples.rows as f64
        ));
    }
    text
}

/// A process that has the store open.
struct Running {
    pid: u32,
    /// Its own counters, or why they are unavailable.
    status: Result<Value, String>,
}

impl Running {
    fn ask(pid: u32, args: &ServerArgs) -> Running {
        let status = status(args)
            .map_err(|error| format!("{error:#}"))
            .and_then(|status| match status.pid == pid {
                true => Ok(status.store),
                false => Err(format!(
                    "{} is a different process: pass the address of process {pid} with --server",
                    args.server
                )),
            });
        Running { pid, status }
    }

    fn as_json(&self) -> Value {
        match &self.status {
            Ok(counters) => json!({ "pid": self.pid, "store": counters }),
            Err(error) => json!({ "pid": self.pid, "error": error }),
        }
    }

    fn table(&self) -> String {
        let pid = self.pid;
        match &self.status {
            Ok(counters) => {
                let rows: Vec<Vec<String>> = counters
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(name, value)| vec![value.to_string(), name.clone()])
                    .collect();
                format!(
                    "\nProcess {pid} has the store open, so files are changing. Its counters since start-up:\n{}",
                    draw(&["value", "counter"], &rows)
                )
            }
            Err(error) => format!("\nProcess {pid} has the store open, but its counters are unavailable: {error}\n"),
        }
    }
}

/// The part of `/api/v1/status` that is used; counters keep their names.
#[derive(Deserialize)]
struct Status {
    pid: u32,
    store: Value,
}

fn status(args: &ServerArgs) -> Result<Status> {
    let limit = Duration::from_secs(args.timeout_seconds);
    let server = Server::new(&args.server, "--server", &args.tls, limit, ": raise --timeout-seconds")?;
    let answer = client::run(server.get(Target::new("/api/v1/status"), MAX_STATUS_BYTES))?;
    read(&answer)
}

fn verify(args: &StoreArgs, check: &StoreCheckArgs) -> Result<ExitCode> {
    let progress = Progress::of_bytes();
    let found = inspect::verify(
        &args.data_dir,
        &RealDisk,
        check.memory_limit_mb,
        &mut |file, done, all| progress.show_of(file, done, all),
    );
    drop(progress);
    let found = found?;
    tell(args, &found, || verified_table(&found))?;
    Ok(match found.damage.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn verified_table(found: &Verified) -> String {
    let mut text = format!(
        "read {} with {}: {} in the journal, {} sealed, {}\n",
        counted(found.files, "file", "files"),
        bytes(found.bytes),
        counted(found.journal_batches, "intact batch", "intact batches"),
        counted(found.sealed_rows, "intact row", "intact rows"),
        counted(found.symbols, "named address", "named addresses"),
    );
    if found.leftovers > 0 {
        text.push_str(&format!(
            "{} left over from a killed process: no data is lost; `emberline store repair` removes them\n",
            counted(found.leftovers, "file", "files")
        ));
    }
    text.push_str(&damage_table(&found.damage));
    text
}

fn damage_table(damage: &[Damage]) -> String {
    if damage.is_empty() {
        return "nothing is damaged\n".to_owned();
    }
    let mut text = format!("{} damaged:\n", counted(damage.len() as u64, "place", "places"));
    for one in damage {
        text.push_str(&format!("  {}: {}\n    held {}\n", one.file, one.what, one.held));
    }
    text
}

fn repair(args: &StoreArgs, check: &StoreCheckArgs) -> Result<ExitCode> {
    let options = Options {
        memory_limit_mb: check.memory_limit_mb,
        ..Options::new(&args.data_dir)
    };
    let progress = Progress::of_bytes();
    let mut show = |file: &std::path::Path, done, all| progress.show_of(file, done, all);
    let repaired = client::run(async { Ok(inspect::repair(options, Arc::new(SystemClock), &mut show).await?) });
    drop(progress);
    let repaired = repaired?;
    tell(args, &repaired, || {
        let mut text = verified_table(&repaired.found);
        match repaired.done.is_empty() {
            true => text.push_str("nothing to repair\n"),
            false => repaired
                .done
                .iter()
                .for_each(|step| text.push_str(&format!("- {step}\n"))),
        }
        text
    })
}

fn delete(args: &StoreArgs, what: &StoreDeleteArgs) -> Result<ExitCode> {
    if !what.yes && !is_meant(args, what)? {
        eprintln!("nothing was deleted");
        return Ok(ExitCode::FAILURE);
    }
    let options = Options {
        memory_limit_mb: what.check.memory_limit_mb,
        ..Options::new(&args.data_dir)
    };
    let progress = Progress::of_bytes();
    let folder = args.data_dir.join("parts");
    let mut show = |step: DeleteProgress| progress.show_of(&folder, step.done_bytes, step.all_bytes);
    let (namespace, service) = (what.namespace.as_deref(), what.service.as_str());
    let deleted = client::run(async {
        Ok(inspect::delete(options, Arc::new(SystemClock), namespace, service, &mut show).await?)
    });
    drop(progress);
    let (namespace, deleted) = deleted?;
    let report = json!({
        "namespace": namespace,
        "service": service,
        "rows": deleted.rows,
        "files": deleted.files,
        "bytes_freed": deleted.bytes_freed,
    });
    tell(args, &report, || {
        format!(
            "deleted {} of `{service}` from {}, {} freed\n",
            counted(deleted.rows, "row", "rows"),
            counted(deleted.files, "sealed file", "sealed files"),
            bytes(deleted.bytes_freed),
        )
    })
}

/// Asks for confirmation on the terminal; fails without one.
fn is_meant(args: &StoreArgs, what: &StoreDeleteArgs) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("deleting a service cannot be undone: pass --yes when not interactive");
    }
    eprint!(
        "Everything service `{}` reported will be deleted from {}. This cannot be undone. Type its name to continue: ",
        what.service,
        args.data_dir.display()
    );
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim() == what.service)
}
