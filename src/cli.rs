//! The command line, as data. The server's options are its settings ([`crate::config`]).
//!
//! One file because it is one page of declarations that is read next to `--help`. What the arguments do is in a file per command.

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
    /// Run the server: ingest, storage, verdicts and the UI, in one process.
    Serve(Box<ServeArgs>),
    /// Run the sample mesh with its own server and a planted regression.
    Demo(DemoArgs),
    /// Compare two profiles in any supported format, without a server.
    Diff(DiffArgs),
    /// Query a running server: most expensive functions, values over time, comparisons of releases.
    Query(QueryArgs),
    /// Export a profile from a running server.
    Export(Box<ExportArgs>),
    /// Send recorded profiles to a server: pprof, collapsed stacks, `perf script` text, speedscope, JFR, V8, Chrome traces, Austin,
    /// gperftools, jemalloc, bpftrace, callgrind or pstats.
    Import(ImportArgs),
    /// Inspect, verify, repair or delete data of a store.
    Store(StoreArgs),
    /// Read debug information in a separate process; started by the server.
    #[command(hide = true)]
    ReadSymbols,
    /// Check a configuration file: the server's or a proxy's.
    Check(CheckArgs),
    /// Show the server's configuration, or document every setting.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a shell completion script.
    Completions {
        /// Shell to generate the script for.
        shell: clap_complete::Shell,
    },
}

#[derive(Args, Clone)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) settings: ServerSettingsArgs,
    /// Exit when standard input is closed, so that the server does not outlive its parent.
    #[arg(long, hide = true)]
    pub(crate) exit_on_stdin_close: bool,
}

#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the values a server started this way would use, and where each comes from.
    Show(Box<ServerSettingsArgs>),
    /// Print the reference of every key in the server's and the proxy's configuration.
    Reference,
}

#[derive(Args, Clone)]
pub(crate) struct DemoArgs {
    /// Route to make slower: quote, coupon or order.
    #[arg(long, value_name = "ROUTE", default_value = "quote", value_parser = parse_plant)]
    pub(crate) plant: PlantRoute,
    /// Release the second version without a regression.
    #[arg(long, conflicts_with = "plant")]
    pub(crate) no_regression: bool,
    /// Stop after N seconds; by default, run until Ctrl-C.
    #[arg(long)]
    pub(crate) seconds: Option<u64>,
    /// Port of the UI; 0 picks a free one.
    #[arg(long, default_value_t = 4040)]
    pub(crate) port: u16,
    /// Seed of the load schedule.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Directory for data and logs; by default a temporary one, removed at the end.
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Output format of progress reports.
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
    /// Plain text.
    Text,
    /// One JSON object per line.
    Json,
}

#[derive(Args)]
pub(crate) struct DiffArgs {
    /// Baseline profile.
    pub(crate) baseline: PathBuf,
    /// Candidate profile.
    pub(crate) candidate: PathBuf,
    /// Value to compare, for example `cpu` or `cpu/nanoseconds`; default: the one the file declares, otherwise the last in a
    /// pprof file and the first in other formats.
    #[arg(long)]
    pub(crate) value: Option<String>,
    /// Format of both files (pprof, folded, perf-script, speedscope, jfr, cpuprofile, ...); detected by default.
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// Type of unitless values: cpu, wall, cpu_nanoseconds, inuse_space, ...; default: CPU samples.
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// Sampling rate of unitless values.
    #[arg(long, value_name = "HZ")]
    pub(crate) sample_rate: Option<u32>,
    /// Rows of the table.
    #[arg(long, default_value_t = 30)]
    pub(crate) rows: usize,
    /// Compare shares of each file's total instead of absolute values.
    #[arg(long)]
    pub(crate) share: bool,
    /// Output format.
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
    /// A flame graph as self-contained HTML.
    Html,
}

#[derive(Args)]
pub(crate) struct ServerArgs {
    /// URL of the server.
    #[arg(
        long,
        env = "EMBERLINE_SERVER",
        default_value = "http://127.0.0.1:4040",
        global = true
    )]
    pub(crate) server: String,
    /// Timeout in seconds.
    #[arg(long, default_value_t = 60, global = true)]
    pub(crate) timeout_seconds: u64,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

/// TLS to a server with an `https://` address.
#[derive(Args, Default)]
pub(crate) struct TlsArgs {
    /// CA bundle (PEM) for an https server; default: system roots.
    #[arg(long, env = "EMBERLINE_CA_FILE", value_name = "FILE", global = true)]
    ca_file: Option<PathBuf>,
    /// Client certificate (PEM) for an https server that requires one.
    #[arg(long, env = "EMBERLINE_CERT_FILE", value_name = "FILE", global = true)]
    cert_file: Option<PathBuf>,
    /// Private key (PEM) of --cert-file.
    #[arg(long, env = "EMBERLINE_KEY_FILE", value_name = "FILE", global = true)]
    key_file: Option<PathBuf>,
    /// Expected server name in the certificate; default: the URL's host.
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
    /// Start: Unix seconds, `now`, or `now-15m` (s, m, h, d).
    #[arg(long, default_value = "now-1h")]
    pub(crate) from: String,
    /// End, in the same format as --from.
    #[arg(long, default_value = "now")]
    pub(crate) to: String,
}

#[derive(Args)]
pub(crate) struct SelectionArgs {
    /// Samples to select, for example '{service="checkout",version=~"v1|v2"}'; default: all.
    #[arg(long)]
    pub(crate) selector: Option<String>,
    /// Profile type; default: CPU.
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
    /// Output format.
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
    /// Most expensive functions.
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
    /// Comma-separated labels to group by, for example `service,version`.
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
    /// Its namespace, if the name exists in several.
    #[arg(long)]
    pub(crate) namespace: Option<String>,
    /// Baseline version; default: the release before the candidate.
    #[arg(long)]
    pub(crate) baseline: Option<String>,
    /// Candidate version; default: the newest.
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
    /// File format.
    #[arg(long, value_enum, default_value_t = ExportFormat::Pprof)]
    pub(crate) format: ExportFormat,
    /// Output file; default: standard output.
    #[arg(long)]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
    /// Compare two releases of this service instead.
    #[arg(long, value_name = "SERVICE", conflicts_with = "selector")]
    pub(crate) compare: Option<String>,
    /// Baseline version; default: the release before the candidate.
    #[arg(long, requires = "compare")]
    pub(crate) baseline: Option<String>,
    /// Candidate version; default: the newest.
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
    /// One stack per line.
    Folded,
    /// speedscope JSON.
    Speedscope,
    /// Firefox Profiler JSON.
    Firefox,
    /// A flame graph.
    Svg,
    /// A flame graph as self-contained HTML.
    Html,
    /// The API's JSON.
    Json,
}

impl ExportFormat {
    /// Its name in the API.
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
    /// Profile files, optionally gzip- or zstd-compressed.
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Profiled service.
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
    /// Route for samples that have none.
    #[arg(long)]
    pub(crate) route: Option<String>,
    /// Format of the files (pprof, folded, perf-script, speedscope, jfr, cpuprofile, ...); detected by default.
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// Type of unitless values: cpu, wall, cpu_nanoseconds, inuse_space, alloc_objects, ...; default: CPU samples.
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// Sampling rate of unitless values.
    #[arg(long, value_name = "HZ")]
    pub(crate) sample_rate: Option<u32>,
    /// Start of the recording as a Unix timestamp (s, ms, µs or ns); requires --until.
    #[arg(long, requires = "until", conflicts_with = "now")]
    pub(crate) from: Option<i64>,
    /// End of the recording.
    #[arg(long, requires = "from")]
    pub(crate) until: Option<i64>,
    /// Store the profiles under the current time, ignoring timestamps in the files.
    #[arg(long)]
    pub(crate) now: bool,
    /// OTLP/HTTP address of the server.
    #[arg(long, env = "EMBERLINE_URL", default_value = "http://127.0.0.1:4318")]
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    /// Output format.
    #[arg(long, value_enum, default_value_t = TableOutput::Table)]
    pub(crate) output: TableOutput,
}

#[derive(Args)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    pub(crate) command: StoreCommand,
    /// The server's `--data-dir`.
    #[arg(
        long,
        visible_alias = "data",
        env = "EMBERLINE_DATA_DIR",
        default_value = "emberline-data",
        global = true
    )]
    pub(crate) data_dir: PathBuf,
    /// Output format.
    #[arg(long, value_enum, default_value_t = TableOutput::Table, global = true)]
    pub(crate) output: TableOutput,
}

#[derive(Subcommand)]
pub(crate) enum StoreCommand {
    /// Show store contents, and counters of a running server.
    Stats(ServerArgs),
    /// Verify every checksum without changing anything; fails on damage. Stop the server first.
    Verify(StoreCheckArgs),
    /// Move damaged files aside, bring the query engine up to date, remove leftovers. Stop the server first.
    Repair(StoreCheckArgs),
    /// Delete everything a service reported; cannot be undone. Stop the server first, or send a running one
    /// `DELETE /api/v1/services/NAME?confirm=NAME` if it was started with `--allow-delete`.
    Delete(StoreDeleteArgs),
    /// List where symbols come from, and remove wrong ones.
    #[command(subcommand)]
    Symbols(SymbolsCommand),
}

#[derive(Subcommand)]
pub(crate) enum SymbolsCommand {
    /// List builds with symbols or a debug file: count, size, sender and time.
    List,
    /// Remove a build's symbols and debug file; they are requested again after the next start. Stop the server first.
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
    /// Its namespace, if the name exists in several; `''` for the default namespace.
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// Do not ask for confirmation.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) check: StoreCheckArgs,
}

#[derive(Args)]
pub(crate) struct StoreCheckArgs {
    /// Memory limit of the query engine, in MB.
    #[arg(long, env = "EMBERLINE_MEMORY_LIMIT_MB", default_value_t = 192)]
    pub(crate) memory_limit_mb: u64,
}

#[derive(Args)]
pub(crate) struct CheckArgs {
    /// Configuration file of `emberline serve` or `emberline-proxy`.
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
