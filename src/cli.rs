//! The command line, as data. Every option of the server has an environment twin.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use emberline_client::Tls;

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
    /// Check a configuration file: a proxy's, or one for scraping.
    Check(CheckArgs),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Args, Clone)]
pub(crate) struct ServeArgs {
    /// Directory for everything that is kept; made when missing.
    #[arg(long, env = "EMBERLINE_DATA_DIR", default_value = "emberline-data")]
    pub(crate) data_dir: PathBuf,
    /// Address of the pages and the API.
    #[arg(long, env = "EMBERLINE_LISTEN", default_value = "127.0.0.1:4040")]
    pub(crate) listen: SocketAddr,
    /// Address for OTLP over gRPC.
    #[arg(long, env = "EMBERLINE_OTLP_GRPC", default_value = "127.0.0.1:4317")]
    pub(crate) otlp_grpc: SocketAddr,
    /// Address for OTLP over HTTP.
    #[arg(long, env = "EMBERLINE_OTLP_HTTP", default_value = "127.0.0.1:4318")]
    pub(crate) otlp_http: SocketAddr,
    /// Hours that single samples are kept.
    #[arg(long, env = "EMBERLINE_RETENTION_HOURS", default_value_t = 72)]
    pub(crate) retention_hours: u64,
    /// Days that requests, and sums of samples per hour, are kept.
    #[arg(long, env = "EMBERLINE_ROLLUP_RETENTION_DAYS", default_value_t = 30)]
    pub(crate) rollup_retention_days: u64,
    /// Disk space for samples, in MB; when they take more, the oldest go before their time.
    #[arg(long, env = "EMBERLINE_SAMPLES_LIMIT_MB", default_value_t = 16384)]
    pub(crate) samples_limit_mb: u64,
    /// Disk space for requests and sums per hour, in MB; when they take more, the oldest hours go.
    #[arg(long, env = "EMBERLINE_ROLLUP_LIMIT_MB", default_value_t = 8192)]
    pub(crate) rollup_limit_mb: u64,
    /// Memory that the query engine may use, in MB.
    #[arg(long, env = "EMBERLINE_MEMORY_LIMIT_MB", default_value_t = 192)]
    pub(crate) memory_limit_mb: u64,
    /// Threads of the query engine.
    #[arg(long, env = "EMBERLINE_QUERY_THREADS", default_value_t = 1)]
    pub(crate) query_threads: usize,
    /// Largest request accepted, in MB after unpacking.
    #[arg(long, env = "EMBERLINE_MAX_REQUEST_MB", default_value_t = 16)]
    pub(crate) max_request_mb: usize,
    /// Largest debug information file accepted, in MB.
    #[arg(long, env = "EMBERLINE_MAX_DEBUG_FILE_MB", default_value_t = 512)]
    pub(crate) max_debug_file_mb: u64,
    /// What compressed sections of such a file may unpack to, in MB.
    #[arg(long, env = "EMBERLINE_MAX_UNPACKED_DEBUG_MB", default_value_t = 96)]
    pub(crate) max_unpacked_debug_mb: u64,
    /// Memory of the process that reads such a file, in MB, beside its program and the pages of the file.
    #[arg(long, env = "EMBERLINE_SYMBOL_MEMORY_MB", default_value_t = 192)]
    pub(crate) symbol_memory_mb: u64,
    /// Seconds that it may take to look up some thousand addresses of one file.
    #[arg(long, env = "EMBERLINE_SYMBOL_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) symbol_seconds: u64,
    /// How this server is reached from outside, for links in alerts; the listen address if not given.
    #[arg(long, env = "EMBERLINE_EXTERNAL_URL")]
    pub(crate) external_url: Option<String>,
    /// A name by which browsers reach this server, beside that of --external-url, addresses and names without a dot; may be
    /// given several times. Other programs may use any name.
    #[arg(
        long = "allowed-host",
        env = "EMBERLINE_ALLOWED_HOST",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub(crate) allowed_hosts: Vec<String>,
    /// Let `DELETE /api/v1/services/NAME?confirm=NAME` delete what a service reported. There is no login: whoever reaches the
    /// port may call it.
    #[arg(long, env = "EMBERLINE_ALLOW_DELETE")]
    pub(crate) allow_delete: bool,
    /// Alertmanager to send alerts to (its base URL); may be given several times.
    #[arg(long = "alertmanager", env = "EMBERLINE_ALERTMANAGER", value_delimiter = ',')]
    pub(crate) alertmanagers: Vec<String>,
    /// URL to POST each alert to as JSON; may be given several times.
    #[arg(long = "webhook", env = "EMBERLINE_WEBHOOK", value_delimiter = ',')]
    pub(crate) webhooks: Vec<String>,
    #[command(flatten)]
    pub(crate) receiver_tls: ReceiverTlsArgs,
    /// Seconds after its first window in which an instance warms up: how slow it is meanwhile raises no alert.
    #[arg(long, env = "EMBERLINE_WARM_UP_SECONDS", default_value_t = 45, value_parser = clap::value_parser!(u64).range(..=3600))]
    pub(crate) warm_up_seconds: u64,
    /// Targets whose profiles are fetched, in the words of Prometheus' `scrape_configs`; none if not given.
    #[arg(long, env = "EMBERLINE_SCRAPE_CONFIG")]
    pub(crate) scrape_config: Option<PathBuf>,
    /// Where to send the server's own traces, as OTLP over gRPC; off if not given.
    #[arg(long, env = "EMBERLINE_TRACES_ENDPOINT")]
    pub(crate) traces_endpoint: Option<String>,
    /// What is own code of a service, where its language's rules do not tell: `SERVICE=PREFIX,PREFIX`, beginnings of names
    /// of functions (`io.shop.`) or of source files (`src/`); several times for several services, in the variable with `;`
    /// between them.
    #[arg(
        long = "own-code",
        env = "EMBERLINE_OWN_CODE",
        value_name = "SERVICE=PREFIX,PREFIX",
        value_delimiter = ';'
    )]
    pub(crate) own_code: Vec<String>,
    /// Serve the pages from this directory instead of the built-in ones (for work on the pages).
    #[arg(long, env = "EMBERLINE_UI_DIR")]
    pub(crate) ui_dir: Option<PathBuf>,
    /// What to log, in the form of `RUST_LOG`.
    #[arg(long, env = "EMBERLINE_LOG", default_value = "info")]
    pub(crate) log: String,
    /// End when standard input is closed, so that the server does not outlive whoever started it.
    #[arg(long, hide = true)]
    pub(crate) exit_on_stdin_close: bool,
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

/// TLS to `https://` receivers of alerts.
#[derive(Args, Clone)]
pub(crate) struct ReceiverTlsArgs {
    /// CAs (PEM) that the certificate of an https Alertmanager may be signed by, instead of those that the system trusts.
    #[arg(long, env = "EMBERLINE_ALERTMANAGER_CA_FILE", value_name = "FILE")]
    alertmanager_ca_file: Option<PathBuf>,
    /// Certificate (PEM) to show to an Alertmanager that demands one.
    #[arg(long, env = "EMBERLINE_ALERTMANAGER_CERT_FILE", value_name = "FILE")]
    alertmanager_cert_file: Option<PathBuf>,
    /// Private key (PEM) of --alertmanager-cert-file.
    #[arg(long, env = "EMBERLINE_ALERTMANAGER_KEY_FILE", value_name = "FILE")]
    alertmanager_key_file: Option<PathBuf>,
    /// Name that the certificate of an Alertmanager is for, where it is not the host of its address.
    #[arg(long, env = "EMBERLINE_ALERTMANAGER_SERVER_NAME", value_name = "NAME")]
    alertmanager_server_name: Option<String>,
    /// CAs (PEM) that the certificate of an https webhook may be signed by, instead of those that the system trusts.
    #[arg(long, env = "EMBERLINE_WEBHOOK_CA_FILE", value_name = "FILE")]
    webhook_ca_file: Option<PathBuf>,
    /// Certificate (PEM) to show to a webhook that demands one.
    #[arg(long, env = "EMBERLINE_WEBHOOK_CERT_FILE", value_name = "FILE")]
    webhook_cert_file: Option<PathBuf>,
    /// Private key (PEM) of --webhook-cert-file.
    #[arg(long, env = "EMBERLINE_WEBHOOK_KEY_FILE", value_name = "FILE")]
    webhook_key_file: Option<PathBuf>,
    /// Name that the certificate of a webhook is for, where it is not the host of its address.
    #[arg(long, env = "EMBERLINE_WEBHOOK_SERVER_NAME", value_name = "NAME")]
    webhook_server_name: Option<String>,
}

impl ReceiverTlsArgs {
    pub(crate) fn alertmanager(&self) -> Tls {
        Tls {
            ca_file: self.alertmanager_ca_file.clone(),
            cert_file: self.alertmanager_cert_file.clone(),
            key_file: self.alertmanager_key_file.clone(),
            server_name: self.alertmanager_server_name.clone(),
        }
    }

    pub(crate) fn webhook(&self) -> Tls {
        Tls {
            ca_file: self.webhook_ca_file.clone(),
            cert_file: self.webhook_cert_file.clone(),
            key_file: self.webhook_key_file.clone(),
            server_name: self.webhook_server_name.clone(),
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
    /// The configuration file of an `emberline-proxy`.
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
