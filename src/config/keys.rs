//! Every setting of the server: its name, type, default, bounds and what it does.
//!
//! Guarantees: names are unique over all sections, so that a setting has one name in the file, as a flag (`--name-of-it`), in the
//! environment (`EMBERLINE_NAME_OF_IT`) and in messages. The reference, the flags, `config show` and the checks come from here.
//!
//! A new section is a new block: name, type, keys. What outgoing connections need of TLS belongs in one of its own.

use std::{net::SocketAddr, path::PathBuf};

use emberline_model::function::OwnCode;
use emberline_yaml::Node;

use super::value::Setting;
use Bounds::{Any, Within};

/// What values of a setting are allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bounds {
    /// Whatever its type allows.
    Any,
    /// From the first to the last, both included.
    Within(f64, f64),
}

impl Bounds {
    /// In words, for the reference and for errors.
    pub(crate) fn in_words(self) -> String {
        match self {
            Any => String::new(),
            Within(low, high) => format!("{low} to {high}"),
        }
    }
}

/// A setting.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) help: &'static [&'static str],
    pub(crate) type_name: &'static str,
    pub(crate) separator: Option<char>,
    pub(crate) bounds: Bounds,
    set_yaml: fn(&mut Settings, &Node) -> Result<(), String>,
    set_texts: fn(&mut Settings, &[String]) -> Result<(), String>,
    show: fn(&Settings) -> String,
    number: fn(&Settings) -> Option<f64>,
}

/// Keys that belong together.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) help: &'static [&'static str],
    pub(crate) keys: &'static [Key],
}

impl Key {
    /// The name as a flag, without dashes before it: of a list the name of one thing.
    pub(crate) fn flag(&self) -> String {
        let one = match self.type_name == <Vec<String>>::TYPE {
            true => self.name.trim_end_matches('s'),
            false => self.name,
        };
        one.replace('_', "-")
    }

    /// The name as a variable of the environment.
    pub(crate) fn variable(&self) -> String {
        format!("EMBERLINE_{}", self.flag().replace('-', "_").to_uppercase())
    }

    /// What it does, in one line.
    pub(crate) fn help(&self) -> String {
        self.help.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn set_yaml(&self, settings: &mut Settings, value: &Node) -> Result<(), String> {
        self.bounded(settings, |settings| (self.set_yaml)(settings, value))
    }

    pub(crate) fn set_texts(&self, settings: &mut Settings, texts: &[String]) -> Result<(), String> {
        self.bounded(settings, |settings| (self.set_texts)(settings, texts))
    }

    /// The value as the file has it.
    pub(crate) fn show(&self, settings: &Settings) -> String {
        (self.show)(settings)
    }

    /// Sets a value if it is within the bounds.
    fn bounded(
        &self,
        settings: &mut Settings,
        set: impl FnOnce(&mut Settings) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut changed = settings.clone();
        set(&mut changed).map_err(|wrong| match self.bounds {
            Any => wrong,
            bounds => format!("{wrong} ({})", bounds.in_words()),
        })?;
        if let (Within(low, high), Some(number)) = (self.bounds, (self.number)(&changed))
            && !(low..=high).contains(&number)
        {
            return Err(format!("{number} is out of range: write {}", self.bounds.in_words()));
        }
        *settings = changed;
        Ok(())
    }
}

macro_rules! settings {
    ($(
        $( #[doc = $section_doc:literal] )+
        $section:ident: $struct:ident {
            $(
                $( #[doc = $doc:literal] )+
                $name:ident: $type:ty = $default:expr, $bounds:expr;
            )+
        }
    )+) => {
        $(
            $( #[doc = $section_doc] )+
            #[derive(Debug, Clone, PartialEq)]
            pub(crate) struct $struct {
                $( $( #[doc = $doc] )+ pub(crate) $name: $type, )+
            }
        )+

        /// All settings.
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) struct Settings {
            $( pub(crate) $section: $struct, )+
        }

        impl Default for Settings {
            fn default() -> Settings {
                Settings {
                    $( $section: $struct { $( $name: $default, )+ }, )+
                }
            }
        }

        /// The sections, in the order of the reference.
        pub(crate) const SECTIONS: &[Section] = &[
            $( Section {
                name: stringify!($section),
                help: &[$( $section_doc ),+],
                keys: &[
                    $( Key {
                        name: stringify!($name),
                        help: &[$( $doc ),+],
                        type_name: <$type as Setting>::TYPE,
                        separator: <$type as Setting>::SEPARATOR,
                        bounds: $bounds,
                        set_yaml: |settings, value| {
                            settings.$section.$name = <$type as Setting>::from_yaml(value)?;
                            Ok(())
                        },
                        set_texts: |settings, texts| {
                            settings.$section.$name = <$type as Setting>::from_texts(texts)?;
                            Ok(())
                        },
                        show: |settings| settings.$section.$name.show(),
                        number: |settings| settings.$section.$name.number(),
                    }, )+
                ],
            }, )+
        ];
    };
}

/// Most of what can be counted here: more is a mistake, and must not overflow.
const MANY: f64 = 1e9;

settings! {
    /// The process.
    server: ServerSettings {
        /// Directory for everything that is kept; made when missing.
        data_dir: PathBuf = "emberline-data".into(), Any;
        /// What to log, in the form of `RUST_LOG`.
        log: String = "info".to_owned(), Any;
        /// Where to send the server's own traces, as OTLP over gRPC; off if not given.
        traces_endpoint: Option<String> = None, Any;
    }

    /// The pages and the API.
    web: WebSettings {
        /// Address of the pages and the API.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 4040)), Any;
        /// How this server is reached from outside, for links in alerts; the listen address if not given.
        external_url: Option<String> = None, Any;
        /// Names by which browsers reach this server, in addition to that of `external_url`, addresses and names without a dot. Other
        /// programs may use any name.
        allowed_hosts: Vec<String> = Vec::new(), Any;
        /// Let `DELETE /api/v1/services/NAME?confirm=NAME` delete what a service reported. There is no login: whoever reaches the
        /// port may call it.
        allow_delete: bool = false, Any;
        /// Requests of the API that are answered at a time, those that wait included; one address may have half of them.
        max_questions: u64 = 64, Within(1.0, 10_000.0);
        /// Seconds a request of the API may take, with everything it waits for.
        max_request_seconds: u64 = 120, Within(1.0, 3_600.0);
        /// Bytes of large answers that their readers have not taken yet, of all requests together; derived from the memory limit of
        /// the process if not given.
        max_answer_bytes: Option<u64> = None, Within(65_536.0, 1e12);
        /// What is own code of a service, where its language's rules do not tell: beginnings of names of functions (`io.shop.`) or of
        /// source files (`src/`). As a flag `SERVICE=PREFIX,PREFIX`, in the variable with `;` between services.
        own_code: OwnCode = OwnCode::default(), Any;
        /// Serve the pages from this directory instead of the built-in ones (for work on the pages).
        ui_dir: Option<PathBuf> = None, Any;
    }

    /// What is taken in: OTLP, files of profilers, clients of Pyroscope, agents of Parca. What is over a limit is left out or folded,
    /// and the answer says so.
    ingest: IngestSettings {
        /// Address for OTLP over gRPC.
        otlp_grpc: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 4317)), Any;
        /// Address for OTLP over HTTP.
        otlp_http: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 4318)), Any;
        /// Largest request accepted, in MB after unpacking. Memory for all requests together is a multiple of it.
        max_request_mb: u64 = 16, Within(1.0, 1_024.0);
        /// Requests that are taken in at the same time.
        max_concurrent_requests: u64 = 32, Within(1.0, 4_096.0);
        /// Longest time from the first byte of a request to its answer, in seconds.
        request_timeout_seconds: u64 = 30, Within(1.0, 600.0);
        /// Windows that start further in the future are left out, in seconds.
        max_future_seconds: u64 = 600, Within(0.0, 86_400.0);
        /// Longest window, in seconds.
        max_window_seconds: u64 = emberline_model::time::LONGEST_SECONDS as u64, Within(10.0, emberline_model::time::LONGEST_SECONDS as f64);
        /// Windows in one request.
        max_windows_per_request: u64 = 1_000, Within(1.0, MANY);
        /// Reporting processes (workload and component) that are in use at the same time. Others are told to come again.
        max_workloads: u64 = 10_000, Within(1.0, MANY);
        /// Different routes a service may report; further ones fold into `other`.
        max_routes_per_service: u64 = 1_000, Within(1.0, MANY);
        /// Different releases and destinations a service may name as its peers; further ones become unknown.
        max_peers_per_service: u64 = 1_000, Within(1.0, MANY);
        /// Request series in one window; further ones fold into `other`.
        max_series_per_window: u64 = 5_000, Within(1.0, MANY);
        /// Types of profiles in one window; those of one type are added up.
        max_profiles_per_window: u64 = 64, Within(1.0, 10_000.0);
        /// Samples in one profile; further ones fold into one stack per label set.
        max_samples_per_profile: u64 = 50_000, Within(1.0, MANY);
        /// Frames in one stack; of deeper ones the middle is cut, and a frame stands for it.
        max_stack_depth: u64 = 512, Within(8.0, 65_536.0);
        /// Exemplars kept of one profile; further ones are counted, and stay in the sums.
        max_exemplars_per_profile: u64 = 1_000, Within(0.0, MANY);
        /// Stacks remembered of counters that grow from the start of a process, of all processes together.
        max_cumulative_rows: u64 = 1_000_000, Within(1.0, MANY);
        /// Stacks remembered of such counters of one profile.
        max_cumulative_rows_per_profile: u64 = 100_000, Within(1.0, MANY);
        /// Processes that may push such counters at the same time.
        max_cumulative_senders: u64 = 1_000, Within(1.0, MANY);
        /// Buckets remembered of histograms that grow from the start of a process, of all processes together; a histogram with the
        /// bounds that SDKs choose has about fifty with what belongs to it.
        max_cumulative_buckets: u64 = 4_000_000, Within(1.0, MANY);
        /// Buckets remembered of such histograms of one process.
        max_cumulative_buckets_per_process: u64 = 400_000, Within(1.0, MANY);
    }

    /// Names of addresses in native code, from debug information that proxies send.
    symbols: SymbolSettings {
        /// Largest debug information file accepted, in MB.
        max_debug_file_mb: u64 = 512, Within(1.0, 65_536.0);
        /// Such files together, in MB; those that nothing stored refers to are removed first, then the oldest.
        max_debug_files_mb: u64 = 4_096, Within(1.0, 1e6);
        /// What compressed sections of such a file may unpack to, in MB.
        max_unpacked_debug_mb: u64 = 96, Within(1.0, 65_536.0);
        /// Memory of the process that reads such a file, in MB, in addition to its program and the pages of the file.
        symbol_memory_mb: u64 = 192, Within(16.0, 65_536.0);
        /// Seconds that it may take to look up some thousand addresses of one file.
        symbol_seconds: u64 = 60, Within(1.0, 3_600.0);
    }

    /// The journal and the query engine.
    store: StoreSettings {
        /// Memory that the query engine may use, in MB.
        memory_limit_mb: u64 = 192, Within(32.0, 1e6);
        /// Threads of the query engine.
        query_threads: u64 = 1, Within(1.0, 256.0);
        /// Disk space that the query engine may use for intermediate results, in MB.
        temp_limit_mb: u64 = 1_024, Within(0.0, 1e7);
        /// Questions that the query engine answers at the same time.
        reader_connections: u64 = 2, Within(1.0, 64.0);
        /// Time after which a question is interrupted, in seconds.
        max_query_seconds: u64 = 30, Within(1.0, 3_600.0);
        /// Free disk space below which batches and debug information are refused, in MB.
        min_free_mb: u64 = 64, Within(0.0, 1e7);
        /// Bytes of encoded batches that may wait for the journal; more are refused as busy. At least `max_batch_bytes`.
        queue_bytes: u64 = 32 << 20, Within(1_048_576.0, 1e11);
        /// The longest encoded batch, in bytes.
        max_batch_bytes: u64 = 32 << 20, Within(65_536.0, 67_108_864.0);
        /// Bytes at which a segment of the journal is closed.
        segment_bytes: u64 = 16 << 20, Within(65_536.0, 1e9);
        /// Milliseconds that the journal waits for more batches before it syncs.
        group_wait_ms: u64 = 2, Within(0.0, 1_000.0);
        /// Milliseconds that acknowledged batches may wait before they become visible to questions.
        apply_interval_ms: u64 = 250, Within(1.0, 60_000.0);
        /// Bytes at which the query engine's write-ahead log is moved into its file.
        checkpoint_bytes: u64 = 16 << 20, Within(1_048_576.0, 1e11);
        /// Bytes of decoded stacks and locations kept in memory.
        dictionary_cache_bytes: u64 = 64 << 20, Within(1_048_576.0, 1e12);
        /// Seconds after its end at which an hour is sealed; windows that arrive later make another part of that hour, after as long
        /// again.
        seal_after_seconds: u64 = 600, Within(1.0, 86_400.0);
        /// Seconds after its end at which a day's parts are made into few.
        compact_after_seconds: u64 = 7_200, Within(1.0, 604_800.0);
        /// Locations of stacks that a compaction holds in memory, 4 bytes each; a day with more becomes several parts.
        compaction_locations: u64 = 16 << 20, Within(1_024.0, MANY);
        /// Hours that a sender is remembered after its last batch; longer than any sender keeps batches that were not acknowledged.
        dedup_horizon_hours: u64 = 72, Within(1.0, 8_784.0);
    }

    /// How long things are kept.
    retention: RetentionSettings {
        /// Hours that single samples are kept. Older windows are left out when they arrive.
        retention_hours: u64 = 72, Within(1.0, 87_840.0);
        /// Days that requests, and sums of samples per hour, are kept; not shorter than `retention_hours`.
        rollup_retention_days: u64 = 30, Within(1.0, 3_660.0);
        /// Disk space for samples, in MB; when they take more, the oldest go before their time.
        samples_limit_mb: u64 = 16 << 10, Within(1.0, 1e9);
        /// Disk space for requests and sums per hour, in MB; when they take more, the oldest hours go.
        rollup_limit_mb: u64 = 8 << 10, Within(1.0, 1e9);
    }

    /// Who is told of alerts.
    alerts: AlertSettings {
        /// Alertmanagers to send alerts to (base URLs); each gets all alerts.
        alertmanagers: Vec<String> = Vec::new(), Any;
        /// CAs (PEM) that the certificate of an https Alertmanager may be signed by, instead of those that the system trusts.
        alertmanager_ca_file: Option<PathBuf> = None, Any;
        /// Certificate (PEM) to show to an Alertmanager that demands one.
        alertmanager_cert_file: Option<PathBuf> = None, Any;
        /// Private key (PEM) of `alertmanager_cert_file`.
        alertmanager_key_file: Option<PathBuf> = None, Any;
        /// Name that the certificate of an Alertmanager is for, where it is not the host of its address.
        alertmanager_server_name: Option<String> = None, Any;
        /// URLs to POST each alert to as JSON.
        webhooks: Vec<String> = Vec::new(), Any;
        /// CAs (PEM) that the certificate of an https webhook may be signed by, instead of those that the system trusts.
        webhook_ca_file: Option<PathBuf> = None, Any;
        /// Certificate (PEM) to show to a webhook that demands one.
        webhook_cert_file: Option<PathBuf> = None, Any;
        /// Private key (PEM) of `webhook_cert_file`.
        webhook_key_file: Option<PathBuf> = None, Any;
        /// Name that the certificate of a webhook is for, where it is not the host of its address.
        webhook_server_name: Option<String> = None, Any;
    }

    /// When a release is said to be slower, or to fail more often, than the one that it replaces.
    verdicts: VerdictSettings {
        /// Seconds after its first window in which an instance warms up: how slow it is meanwhile raises no alert. With 0, a release is
        /// also judged while it is still getting faster.
        warm_up_seconds: u64 = 45, Within(0.0, 3_600.0);
        /// How far back releases are judged, in seconds.
        lookback_seconds: u64 = 3_600, Within(60.0, 86_400.0);
        /// How far back the windows of an open alert are judged, in seconds.
        watch_seconds: u64 = 21_600, Within(60.0, 604_800.0);
        /// Seconds after the end of a window in which its batches may arrive before it is judged.
        grace_seconds: u64 = 4, Within(0.0, 600.0);
        /// Seconds that an alert stays suspected after its verdict while addresses wait for their names.
        wait_for_symbols_seconds: u64 = 30, Within(0.0, 3_600.0);
        /// Windows after the verdict that still become part of its evidence.
        evidence_windows: u64 = 30, Within(0.0, 8_640.0);
        /// Requests to each of the releases from which a caller is judged on its own.
        min_source_requests: u64 = 20, Within(1.0, MANY);
        /// Chance of ever stating a slowdown that is none, for each watched route.
        latency_alpha: f64 = 0.001, Within(1e-9, 0.1);
        /// Relative growth of a latency that is not worth stating.
        latency_floor_relative: f64 = 0.1, Within(0.0, 10.0);
        /// Growth of a latency in milliseconds that is not worth stating; the larger of the two floors counts.
        latency_floor_ms: f64 = 0.5, Within(0.0, 60_000.0);
        /// Requests that each release must have in the evidence before a slowdown is stated.
        latency_min_requests: u64 = 20, Within(1.0, MANY);
        /// Chance of ever stating more failures where there are none, for each watched route.
        errors_alpha: f64 = 0.001, Within(1e-9, 0.1);
        /// Growth of the share of failures that is not worth stating.
        errors_floor_share: f64 = 0.01, Within(0.0, 1.0);
        /// Failures of the newer release below which nothing is stated.
        min_errors: u64 = 5, Within(1.0, MANY);
        /// Windows that show it after the verdict, not necessarily in a row, until a suspected alert fires.
        confirm_windows: u64 = 1, Within(0.0, 8_640.0);
        /// Quiet windows in a row until a suspected alert is dropped, or a firing one is recovering.
        quiet_windows: u64 = 3, Within(1.0, 8_640.0);
        /// Quiet windows in a row until a recovering alert is resolved.
        resolve_windows: u64 = 12, Within(1.0, 8_640.0);
        /// Windows in a row that show it until a resolved alert is suspected again.
        again_windows: u64 = 6, Within(1.0, 8_640.0);
        /// Windows without requests until an alert is resolved because its release is gone.
        gone_windows: u64 = 30, Within(1.0, 8_640.0);
    }
}

/// All keys with their sections.
pub(crate) fn all() -> impl Iterator<Item = (&'static Section, &'static Key)> {
    SECTIONS
        .iter()
        .flat_map(|section| section.keys.iter().map(move |key| (section, key)))
}

impl Settings {
    /// What is wrong between settings that are each fine by themselves: the names of both and what to do.
    pub(crate) fn contradictions(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let (retention, store, ingest) = (&self.retention, &self.store, &self.ingest);
        if retention.rollup_retention_days * 24 < retention.retention_hours {
            found.push((
                "rollup_retention_days",
                format!(
                    "{} days are shorter than `retention_hours` = {}: sums are kept at least as long as samples",
                    retention.rollup_retention_days, retention.retention_hours
                ),
            ));
        }
        if store.queue_bytes < store.max_batch_bytes {
            found.push((
                "queue_bytes",
                format!(
                    "{} is less than `max_batch_bytes` = {}: the longest batch could never be stored",
                    store.queue_bytes, store.max_batch_bytes
                ),
            ));
        }
        for (part, of_part, whole, of_whole) in [
            (
                "max_cumulative_rows_per_profile",
                ingest.max_cumulative_rows_per_profile,
                "max_cumulative_rows",
                ingest.max_cumulative_rows,
            ),
            (
                "max_cumulative_buckets_per_process",
                ingest.max_cumulative_buckets_per_process,
                "max_cumulative_buckets",
                ingest.max_cumulative_buckets,
            ),
        ] {
            if of_part > of_whole {
                found.push((
                    part,
                    format!("{of_part} is more than `{whole}` = {of_whole}: one may not have more than all"),
                ));
            }
        }
        found
    }
}
