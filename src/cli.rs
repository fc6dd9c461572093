//! The command line, as data. The server's options are its settings ([`crate::config`]).
//!
//! One file because it is one page of declarations that is read beside `--help`. What the arguments do is in a file per command.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use emberline_client::Tls;

use crate::config::ServerSettingsArgs;

/// Continuous profiling for a service mesh: which release, route and function got slower.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run the server: ingest, storage, verdicts and the web pages, in one process.
    Serve(Box<ServeArgs>),
    /// Run the sample mesh against a server of its own, with a planted regression.
    Demo(DemoArgs),
    /// Compare two profiles of any format that is read, without a server.
    Diff(DiffArgs),
    /// Ask a running server: the costliest functions, a series over time, two releases compared.
    Query(QueryArgs),
    /// Write a profile of a running server for another program.
    Export(Box<ExportArgs>),
    /// Send recorded profiles to a server: pprof, collapsed stacks, `perf script` text or speedscope files.
    Import(ImportArgs),
    /// Look at the files of a store, check every byte of them, or repair them.
    Store(StoreArgs),
    /// Read debug information for a server: what it starts in a process of its own.
    #[command(hide = true)]
    ReadSymbols,
    /// Check a configuration file: the server's or a proxy's.
    Check(CheckArgs),
    /// Show the server's configuration, or what can be configured.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Args, Clone)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) settings: ServerSettingsArgs,
    /// End when standard input is closed, so that the server does not outlive whoever started it.
    #[arg(long, hide = true)]
    pub(crate) exit_on_stdin_close: bool,
}

#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print what a server started this way would use, and where each value comes from.
    Show(Box<ServerSettingsArgs>),
    /// Print every key of the server's file and of a proxy's: type, default, what is allowed, what it does.
    Reference,
}

#[derive(Args, Clone)]
pub(crate) struct DemoArgs {
    /// Route of the changing service to make slower: quote, coupon or order.
    #[arg(long, value_name = "ROUTE", default_value = "quote", value_parser = parse_plant)]
    pub(crate) plant: PlantRoute,
    /// Release the second version without a regression.
    #[arg(long, conflicts_with = "plant")]
    pub(crate) no_regression: bool,
    /// End after so many seconds; runs until Ctrl-C if not given.
    #[arg(long)]
    pub(crate) seconds: Option<u64>,
    /// Port of the pages; a free one if it is 0.
    #[arg(long, default_value_t = 4040)]
    pub(crate) port: u16,
    /// Schedules of the load follow from it.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Where data and logs go; a temporary directory, removed at the end, if not given.
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
    /// How to report progress.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

/// A route that can be planted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlantRoute {
    /// Word for the command line.
    pub(crate) name: &'static str,
    /// Template.
    pub(crate) route: &'static str,
}

/// The routes of the changing service that can be made slower.
pub(crate) const PLANT_ROUTES: [PlantRoute; 3] = [
    PlantRoute {
        name: "quote",
        route: "/quote/{id}",
    },
    PlantRoute {
        name: "coupon",
        route: "/coupon/{code}",
    },
    PlantRoute {
        name: "order",
        route: "/order/{id}",
    },
];

fn parse_plant(text: &str) -> Result<PlantRoute, String> {
    let known = PLANT_ROUTES.iter().find(|p| p.name == text || p.route == text);
    known.copied().ok_or_else(|| {
        let all: Vec<String> = PLANT_ROUTES
            .iter()
            .map(|p| format!("{} ({})", p.name, p.route))
            .collect();
        format!("choose one of {}", all.join(", "))
    })
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Sentences.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Args)]
pub(crate) struct DiffArgs {
    /// The profile compared with.
    pub(crate) baseline: PathBuf,
    /// The profile judged.
    pub(crate) candidate: PathBuf,
    /// Value to compare, for example `cpu` or `cpu/nanoseconds`; the one the file names if not given, else the last of a pprof
    /// file and the first of others.
    #[arg(long)]
    pub(crate) value: Option<String>,
    /// Format of both files (pprof, folded, perf-script, speedscope, jfr, cpuprofile, ...); found out if not given.
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// What numbers without a unit are: cpu, wall, cpu_nanoseconds, inuse_space, ...; samples of CPU time if not given.
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// Samples per second, for numbers without a unit.
    #[arg(long, value_name = "HZ")]
    pub(crate) sample_rate: Option<u32>,
    /// Rows of the table.
    #[arg(long, default_value_t = 30)]
    pub(crate) rows: usize,
    /// Compare shares of each file's total instead of plain values.
    #[arg(long)]
    pub(crate) share: bool,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = DiffOutput::Text)]
    pub(crate) output: DiffOutput,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DiffOutput {
    /// A table.
    Text,
    /// One JSON object.
    Json,
    /// A differential flame graph.
    Svg,
    /// The flame graph as a page that needs nothing else.
    Html,
}

#[derive(Args)]
pub(crate) struct ServerArgs {
    /// The server to ask.
    #[arg(
        long,
        env = "EMBERLINE_SERVER",
        default_value = "http://127.0.0.1:4040",
        global = true
    )]
    pub(crate) server: String,
    /// How long to wait for an answer.
    #[arg(long, default_value_t = 60, global = true)]
    pub(crate) timeout_seconds: u64,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

/// TLS to a server with an `https://` address.
#[derive(Args, Default)]
pub(crate) struct TlsArgs {
    /// CAs (PEM) that the certificate of an https server may be signed by, instead of those that the system trusts.
    #[arg(long, env = "EMBERLINE_CA_FILE", value_name = "FILE", global = true)]
    ca_file: Option<PathBuf>,
    /// Certificate (PEM) to show to an https server that demands one.
    #[arg(long, env = "EMBERLINE_CERT_FILE", value_name = "FILE", global = true)]
    cert_file: Option<PathBuf>,
    /// Private key (PEM) of --cert-file.
    #[arg(long, env = "EMBERLINE_KEY_FILE", value_name = "FILE", global = true)]
    key_file: Option<PathBuf>,
    /// Name that the certificate of an https server is for, where it is not the host of its address.
    #[arg(long, env = "EMBERLINE_SERVER_NAME", value_name = "NAME", global = true)]
    server_name: Option<String>,
}

impl TlsArgs {
    pub(crate) fn settings(&self) -> Tls {
        Tls {
            ca_file: self.ca_file.clone(),
            cert_file: self.cert_file.clone(),
            key_file: self.key_file.clone(),
            server_name: self.server_name.clone(),
        }
    }
}

#[derive(Args)]
pub(crate) struct RangeArgs {
    /// Start: unix seconds, `now`, or `now-15m` (s, m, h, d).
    #[arg(long, default_value = "now-1h")]
    pub(crate) from: String,
    /// End, as --from.
    #[arg(long, default_value = "now")]
    pub(crate) to: String,
}

#[derive(Args)]
pub(crate) struct SelectionArgs {
    /// Whose samples, for example '{service="checkout",version=~"v1|v2"}'; all if not given.
    #[arg(long)]
    pub(crate) selector: Option<String>,
    /// What is measured; CPU if not given.
    #[arg(long)]
    pub(crate) profile_type: Option<String>,
    #[command(flatten)]
    pub(crate) range: RangeArgs,
}

#[derive(Args)]
pub(crate) struct QueryArgs {
    #[command(subcommand)]
    pub(crate) command: QueryCommand,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = TableOutput::Table, global = true)]
    pub(crate) output: TableOutput,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TableOutput {
    /// A table.
    Table,
    /// JSON.
    Json,
}

#[derive(Subcommand)]
pub(crate) enum QueryCommand {
    /// The functions that take most.
    Top(QueryTopArgs),
    /// Values over time.
    Series(QuerySeriesArgs),
    /// What changed between two releases.
    Diff(QueryDiffArgs),
}

#[derive(Args)]
pub(crate) struct QueryTopArgs {
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
    /// Rows of the table.
    #[arg(long, default_value_t = 30)]
    pub(crate) rows: usize,
}

#[derive(Args)]
pub(crate) struct QuerySeriesArgs {
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
    /// Labels that series are told apart by, separated by commas, for example `service,version`.
    #[arg(long)]
    pub(crate) group_by: Option<String>,
    /// Seconds per point.
    #[arg(long)]
    pub(crate) step: Option<u32>,
}

#[derive(Args)]
pub(crate) struct QueryDiffArgs {
    /// The service.
    #[arg(long)]
    pub(crate) service: String,
    /// Its namespace, where several hold one of that name.
    #[arg(long)]
    pub(crate) namespace: Option<String>,
    /// Version compared with; the release before the candidate if not given.
    #[arg(long)]
    pub(crate) baseline: Option<String>,
    /// Version judged; the newest if not given.
    #[arg(long)]
    pub(crate) candidate: Option<String>,
    /// Only this route.
    #[arg(long)]
    pub(crate) route: Option<String>,
    #[command(flatten)]
    pub(crate) range: RangeArgs,
    /// Rows of the table.
    #[arg(long, default_value_t = 30)]
    pub(crate) rows: usize,
}

#[derive(Args)]
pub(crate) struct ExportArgs {
    /// Form of the file.
    #[arg(long, value_enum, default_value_t = ExportFormat::Pprof)]
    pub(crate) format: ExportFormat,
    /// Where to write; standard output if not given.
    #[arg(long)]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
    /// Compare two releases of this service instead.
    #[arg(long, value_name = "SERVICE", conflicts_with = "selector")]
    pub(crate) compare: Option<String>,
    /// Version compared with; the release before the candidate if not given.
    #[arg(long, requires = "compare")]
    pub(crate) baseline: Option<String>,
    /// Version judged; the newest if not given.
    #[arg(long, requires = "compare")]
    pub(crate) candidate: Option<String>,
    /// Only this route.
    #[arg(long, requires = "compare")]
    pub(crate) route: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// Gzipped pprof.
    Pprof,
    /// One stack a line.
    Folded,
    /// For speedscope.
    Speedscope,
    /// For the Firefox Profiler.
    Firefox,
    /// A flame graph.
    Svg,
    /// The flame graph as a page that needs nothing else.
    Html,
    /// The API's own.
    Json,
}

impl ExportFormat {
    /// The API's word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            ExportFormat::Pprof => "pprof",
            ExportFormat::Folded => "folded",
            ExportFormat::Speedscope => "speedscope",
            ExportFormat::Firefox => "firefox",
            ExportFormat::Svg => "svg",
            ExportFormat::Html => "html",
            ExportFormat::Json => "json",
        }
    }
}

#[derive(Args)]
pub(crate) struct ImportArgs {
    /// The files, packed with gzip or zstd or not.
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Service they were recorded of.
    #[arg(long)]
    pub(crate) service: String,
    /// Its version.
    #[arg(long)]
    pub(crate) version: String,
    /// Namespace of the service.
    #[arg(long)]
    pub(crate) namespace: Option<String>,
    /// Instance of the service.
    #[arg(long)]
    pub(crate) instance: Option<String>,
    /// Route of samples that carry none.
    #[arg(long)]
    pub(crate) route: Option<String>,
    /// Format of the files (pprof, folded, perf-script, speedscope, jfr, cpuprofile, ...); found out if not given.
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// What numbers without a unit are: cpu, wall, cpu_nanoseconds, inuse_space, alloc_objects, ...; samples of CPU time if
    /// not given.
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// Samples per second, for numbers without a unit.
    #[arg(long, value_name = "HZ")]
    pub(crate) sample_rate: Option<u32>,
    /// When the recording began, in seconds since the Unix epoch or finer; belongs with --until.
    #[arg(long, requires = "until", conflicts_with = "now")]
    pub(crate) from: Option<i64>,
    /// When it ended.
    #[arg(long, requires = "from")]
    pub(crate) until: Option<i64>,
    /// File them as if they had just been recorded, whatever time they carry.
    #[arg(long)]
    pub(crate) now: bool,
    /// OTLP/HTTP address of the server.
    #[arg(long, env = "EMBERLINE_URL", default_value = "http://127.0.0.1:4318")]
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    /// Form of the report.
    #[arg(long, value_enum, default_value_t = TableOutput::Table)]
    pub(crate) output: TableOutput,
}

#[derive(Args)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    pub(crate) command: StoreCommand,
    /// The store's directory, as the server was given it.
    #[arg(
        long,
        visible_alias = "data",
        env = "EMBERLINE_DATA_DIR",
        default_value = "emberline-data",
        global = true
    )]
    pub(crate) data_dir: PathBuf,
    /// Form of the report.
    #[arg(long, value_enum, default_value_t = TableOutput::Table, global = true)]
    pub(crate) output: TableOutput,
}

#[derive(Subcommand)]
pub(crate) enum StoreCommand {
    /// What lies in the directory; of a running server also what it counts.
    Stats(ServerArgs),
    /// Read every byte and compare checksums, changing nothing; fails when something is damaged. The server must not run.
    Verify(StoreCheckArgs),
    /// Set damaged files aside, bring the query engine up to date, remove leftovers. The server must not run.
    Repair(StoreCheckArgs),
    /// Delete everything that a service reported; not to be undone. The server must not run: a running one takes
    /// `DELETE /api/v1/services/NAME?confirm=NAME` if it was started with `--allow-delete`.
    Delete(StoreDeleteArgs),
    /// Where the names of builds are from, and how to be rid of wrong ones.
    #[command(subcommand)]
    Symbols(SymbolsCommand),
}

#[derive(Subcommand)]
pub(crate) enum SymbolsCommand {
    /// Each build with names or a file of debug information: how many, how large, from whom and when.
    List,
    /// Forget the names of a build and its file; the next start asks for the file again. The server must not run.
    Forget {
        /// The build id.
        build: String,
    },
}

#[derive(Args)]
pub(crate) struct StoreDeleteArgs {
    /// Name of the service.
    #[arg(long, value_name = "NAME")]
    pub(crate) service: String,
    /// Its namespace; needed only when several hold one of that name. Empty for the one without a name.
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) check: StoreCheckArgs,
}

#[derive(Args)]
pub(crate) struct StoreCheckArgs {
    /// Memory that the query engine may use, in MB.
    #[arg(long, env = "EMBERLINE_MEMORY_LIMIT_MB", default_value_t = 192)]
    pub(crate) memory_limit_mb: u64,
}

#[derive(Args)]
pub(crate) struct CheckArgs {
    /// The file that is given as `--config` to `emberline serve` or to `emberline-proxy`.
    pub(crate) file: PathBuf,
}

/// Prints a completion script.
pub(crate) fn completions(shell: clap_complete::Shell) {
    clap_complete::generate(shell, &mut Cli::command(), "emberline", &mut std::io::stdout());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
