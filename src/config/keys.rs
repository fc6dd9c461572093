//! Every setting of the server: its name, type, default, bounds and purpose.
//!
//! Guarantees: names are unique over all sections, so that a setting has one name in the file, as a flag
//! (`--name-of-it`), in the environment (`EMBERLINE_NAME_OF_IT`) and in messages. The reference, the flags, `config
//! show` and the checks are generated from here.
//!
//! A new section is a new block: name, type, keys. TLS settings of outgoing connections belong in their own section.

use std::{net::SocketAddr, path::PathBuf};

use emberline_model::function::OwnCode;
use emberline_yaml::Node;

use super::value::Setting;
use Bounds::{Any, Within};

/// Allowed values of a setting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bounds {
    /// Anything its type allows.
    Any,
    /// From the first to the last, both included.
    Within(f64, f64),
}

impl Bounds {
    /// As text, for the reference and for errors.
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
    /// The name as a flag, without leading dashes: for a list, the singular.
    pub(crate) fn flag(&self) -> String {
        let one = match self.type_name == <Vec<String>>::TYPE {
            true => self.name.trim_end_matches('s'),
            false => self.name,
        };
        one.replace('_', "-")
    }

    /// The name as an environment variable.
    pub(crate) fn variable(&self) -> String {
        format!("EMBERLINE_{}", self.flag().replace('-', "_").to_uppercase())
    }

    /// Its purpose, in one line.
    pub(crate) fn help(&self) -> String {
        self.help.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn set_yaml(&self, settings: &mut Settings, value: &Node) -> Result<(), String> {
        self.bounded(settings, |settings| (self.set_yaml)(settings, value))
    }

    pub(crate) fn set_texts(&self, settings: &mut Settings, texts: &[String]) -> Result<(), String> {
        self.bounded(settings, |settings| (self.set_texts)(settings, texts))
    }

    /// The value as in the file.
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
            return Err(format!("{number} is out of range: use {}", self.bounds.in_words()));
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

/// The largest number of anything counted here: more is a mistake, and must not overflow.
const MANY: f64 = 1e9;

settings! {
    /// The process.
    server: ServerSettings {
        /// Directory for all stored data; created if missing.
        data_dir: PathBuf = "emberline-data".into(), Any;
        /// Log filter, in `RUST_LOG` syntax.
        log: String = "info".to_owned(), Any;
        /// Endpoint for the server's own traces (OTLP over gRPC); off by default.
        traces_endpoint: Option<String> = None, Any;
    }

    /// The UI and the API.
    web: WebSettings {
        /// Address of the UI and the API.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 4040)), Any;
        /// URL under which users reach this server, used for links in alerts; default: the listen address.
        external_url: Option<String> = None, Any;
        /// Host names browsers may use for this server, besides the host of `external_url`, IP addresses, names without a dot,
        /// and names that end in `.svc` or `.cluster.local`. Other programs may use any name.
        allowed_hosts: Vec<String> = Vec::new(), Any;
        /// Let `DELETE /api/v1/services/NAME?confirm=NAME` delete what a service reported. There is no login: anyone who can
        /// reach the port can call it.
        allow_delete: bool = false, Any;
        /// Concurrent API requests, including queued ones; one client address may use half.
        max_questions: u64 = 64, Within(1.0, 10_000.0);
        /// Time limit of an API request in seconds, including time spent queued.
        max_request_seconds: u64 = 120, Within(1.0, 3_600.0);
        /// Buffered bytes of large responses, all requests together; default: derived from the process's memory limit.
        max_answer_bytes: Option<u64> = None, Within(65_536.0, 1e12);
        /// Function or file prefixes that count as a service's own code, where the language's rules do not tell: function
        /// prefixes (`io.shop.`) or source file prefixes (`src/`). Flag: `SERVICE=PREFIX,PREFIX`; in the variable, separate
        /// services with `;`.
        own_code: OwnCode = OwnCode::default(), Any;
        /// Serve the UI from this directory instead of the built-in one (for UI development).
        ui_dir: Option<PathBuf> = None, Any;
    }

    /// Ingestion: OTLP, profile files, Pyroscope clients, Parca agents. Data over a limit is dropped or folded, and the response
    /// says so.
    ingest: IngestSettings {
        /// Address for OTLP over gRPC.
        otlp_grpc: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 4317)), Any;
        /// Address for OTLP over HTTP.
        otlp_http: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 4318)), Any;
        /// Largest accepted request, in MB after decompression; default: a 64th of the process's memory limit, at most 16. All requests
        /// together hold up to twelve times as much.
        max_request_mb: Option<u64> = None, Within(1.0, 1_024.0);
        /// Requests processed concurrently.
        max_concurrent_requests: u64 = 32, Within(1.0, 4_096.0);
        /// Longest time from a request's first byte to its response, in seconds.
        request_timeout_seconds: u64 = 30, Within(1.0, 600.0);
        /// Windows that start further in the future than this are dropped, in seconds.
        max_future_seconds: u64 = 600, Within(0.0, 86_400.0);
        /// Longest window, in seconds.
        max_window_seconds: u64 = emberline_model::time::LONGEST_SECONDS as u64, Within(10.0, emberline_model::time::LONGEST_SECONDS as f64);
        /// Windows per request.
        max_windows_per_request: u64 = 1_000, Within(1.0, MANY);
        /// Concurrently reporting processes (workload and component). Others are told to retry.
        max_workloads: u64 = 10_000, Within(1.0, MANY);
        /// Distinct routes per service; further ones are folded into `other`.
        max_routes_per_service: u64 = 1_000, Within(1.0, MANY);
        /// Distinct peer releases and destinations per service; further ones are counted as unknown.
        max_peers_per_service: u64 = 1_000, Within(1.0, MANY);
        /// Request series per window; further ones are folded into `other`.
        max_series_per_window: u64 = 5_000, Within(1.0, MANY);
        /// Profile types per window; profiles of the same type are added up.
        max_profiles_per_window: u64 = 64, Within(1.0, 10_000.0);
        /// Samples per profile; further ones are folded into one stack per label set.
        max_samples_per_profile: u64 = 50_000, Within(1.0, MANY);
        /// Frames per stack; deeper stacks keep both ends, with a placeholder frame between them.
        max_stack_depth: u64 = 512, Within(8.0, 65_536.0);
        /// Exemplars kept per profile; further ones only count in the sums, and how many is reported.
        max_exemplars_per_profile: u64 = 1_000, Within(0.0, MANY);
        /// Stacks tracked for cumulative profiles, all processes together.
        max_cumulative_rows: u64 = 1_000_000, Within(1.0, MANY);
        /// Stacks tracked per cumulative profile.
        max_cumulative_rows_per_profile: u64 = 100_000, Within(1.0, MANY);
        /// Processes that may send cumulative profiles at the same time.
        max_cumulative_senders: u64 = 1_000, Within(1.0, MANY);
        /// Buckets tracked for cumulative histograms, all processes together; a histogram with the SDKs' default bounds needs
        /// about fifty, including overhead.
        max_cumulative_buckets: u64 = 4_000_000, Within(1.0, MANY);
        /// Buckets tracked for cumulative histograms, per process.
        max_cumulative_buckets_per_process: u64 = 400_000, Within(1.0, MANY);
    }

    /// Symbolization of native addresses, using debug information that proxies send.
    symbols: SymbolSettings {
        /// Largest accepted debug file, in MB.
        max_debug_file_mb: u64 = 512, Within(1.0, 65_536.0);
        /// Total size of debug files, in MB; files that no stored data needs are removed first, then the oldest.
        max_debug_files_mb: u64 = 4_096, Within(1.0, 1e6);
        /// Limit on the decompressed sections of one debug file, in MB.
        max_unpacked_debug_mb: u64 = 96, Within(1.0, 65_536.0);
        /// Heap limit of the symbol reader process, in MB; its program and the mapped file are not included.
        symbol_memory_mb: u64 = 192, Within(16.0, 65_536.0);
        /// Time limit per lookup batch (some thousand addresses of one file), in seconds.
        symbol_seconds: u64 = 60, Within(1.0, 3_600.0);
    }

    /// The journal and the query engine.
    store: StoreSettings {
        /// Memory limit of the query engine, in MB; default: a sixth of the process's memory limit, at most 192.
        memory_limit_mb: Option<u64> = None, Within(32.0, 1e6);
        /// Threads of the query engine.
        query_threads: u64 = 1, Within(1.0, 256.0);
        /// Disk space for intermediate results of the query engine, in MB.
        temp_limit_mb: u64 = 1_024, Within(0.0, 1e7);
        /// Queries that the query engine runs concurrently.
        reader_connections: u64 = 2, Within(1.0, 64.0);
        /// Time after which a query is interrupted, in seconds.
        max_query_seconds: u64 = 30, Within(1.0, 3_600.0);
        /// Free disk space below which batches and debug files are refused, in MB.
        min_free_mb: u64 = 64, Within(0.0, 1e7);
        /// Encoded batches waiting for the journal, in bytes; beyond this, senders are told to retry. At least `max_batch_bytes`.
        queue_bytes: u64 = 32 << 20, Within(1_048_576.0, 1e11);
        /// Largest encoded batch, in bytes.
        max_batch_bytes: u64 = 32 << 20, Within(65_536.0, 67_108_864.0);
        /// Size at which a journal segment is closed, in bytes.
        segment_bytes: u64 = 16 << 20, Within(65_536.0, 1e9);
        /// Time the journal waits for more batches before it syncs, in milliseconds.
        group_wait_ms: u64 = 2, Within(0.0, 1_000.0);
        /// Longest delay until acknowledged batches are visible to queries, in milliseconds.
        apply_interval_ms: u64 = 250, Within(1.0, 60_000.0);
        /// Size at which the query engine's write-ahead log is checkpointed, in bytes.
        checkpoint_bytes: u64 = 16 << 20, Within(1_048_576.0, 1e11);
        /// Size of the cache of decoded stacks and locations, in bytes; default: an eighth of the process's memory limit, at most
        /// 67108864.
        dictionary_cache_bytes: Option<u64> = None, Within(1_048_576.0, 1e12);
        /// Delay between the end of an hour and sealing it, in seconds; late data becomes a second part of that hour after the
        /// same delay.
        seal_after_seconds: u64 = 600, Within(1.0, 86_400.0);
        /// Delay between the end of a day and compacting its parts, in seconds.
        compact_after_seconds: u64 = 7_200, Within(1.0, 604_800.0);
        /// Stack locations held in memory during compaction, 4 bytes each; a larger day is split into several parts.
        compaction_locations: u64 = 16 << 20, Within(1_024.0, MANY);
        /// Deduplication horizon in hours, counted from a sender's last batch; must exceed the time for which any sender retries.
        dedup_horizon_hours: u64 = 72, Within(1.0, 8_784.0);
    }

    /// How long data is kept.
    retention: RetentionSettings {
        /// Retention of raw samples, in hours. Older windows are dropped on arrival.
        retention_hours: u64 = 72, Within(1.0, 87_840.0);
        /// Retention of requests and hourly sums of samples, in days; at least `retention_hours`.
        rollup_retention_days: u64 = 30, Within(1.0, 3_660.0);
        /// Disk space for samples, in MB; above it, the oldest are deleted early.
        samples_limit_mb: u64 = 16 << 10, Within(1.0, 1e9);
        /// Disk space for requests and hourly sums, in MB; above it, the oldest hours are deleted early.
        rollup_limit_mb: u64 = 8 << 10, Within(1.0, 1e9);
    }

    /// Alert receivers.
    alerts: AlertSettings {
        /// Base URLs of Alertmanagers; each receives all alerts.
        alertmanagers: Vec<String> = Vec::new(), Any;
        /// CA bundle (PEM) for https Alertmanagers; default: system roots.
        alertmanager_ca_file: Option<PathBuf> = None, Any;
        /// Client certificate (PEM) for Alertmanagers that require one.
        alertmanager_cert_file: Option<PathBuf> = None, Any;
        /// Private key (PEM) of `alertmanager_cert_file`.
        alertmanager_key_file: Option<PathBuf> = None, Any;
        /// Expected server name in an Alertmanager's certificate; default: the URL's host.
        alertmanager_server_name: Option<String> = None, Any;
        /// URLs to POST each alert to as JSON.
        webhooks: Vec<String> = Vec::new(), Any;
        /// CA bundle (PEM) for https webhooks; default: system roots.
        webhook_ca_file: Option<PathBuf> = None, Any;
        /// Client certificate (PEM) for webhooks that require one.
        webhook_cert_file: Option<PathBuf> = None, Any;
        /// Private key (PEM) of `webhook_cert_file`.
        webhook_key_file: Option<PathBuf> = None, Any;
        /// Expected server name in a webhook's certificate; default: the URL's host.
        webhook_server_name: Option<String> = None, Any;
    }

    /// When a release counts as slower, or as failing more often, than the one it replaces.
    verdicts: VerdictSettings {
        /// Warm-up time of an instance in seconds, from its first window; latency in this period raises no alert. With 0, a
        /// release is also judged while it is still getting faster.
        warm_up_seconds: u64 = 45, Within(0.0, 3_600.0);
        /// How long after its last window a release is compared, in seconds.
        lookback_seconds: u64 = 3_600, Within(60.0, 86_400.0);
        /// How long after their last window the releases of an open alert are compared, at most, in seconds.
        watch_seconds: u64 = 21_600, Within(60.0, 604_800.0);
        /// How long after the end of a window its batches may still arrive before it is judged, in seconds.
        grace_seconds: u64 = 4, Within(0.0, 600.0);
        /// How long an alert stays suspected after its verdict while addresses are being symbolized, in seconds.
        wait_for_symbols_seconds: u64 = 30, Within(0.0, 3_600.0);
        /// Windows after the verdict that are still added to its evidence.
        evidence_windows: u64 = 30, Within(0.0, 8_640.0);
        /// Minimum requests to each release before a caller is judged separately.
        min_source_requests: u64 = 20, Within(1.0, MANY);
        /// False-positive probability of latency alerts per watched route, over its whole lifetime, as far as requests are independent.
        latency_alpha: f64 = 0.01, Within(1e-9, 0.1);
        /// The same as far as blocks of 30 s are independent; a latency alert needs both.
        latency_block_alpha: f64 = 0.01, Within(1e-9, 0.1);
        /// Estimated relative latency increase below which no alert is raised.
        latency_floor_relative: f64 = 0.12, Within(0.0, 10.0);
        /// Estimated latency increase in milliseconds below which no alert is raised; the larger of the two floors applies.
        latency_floor_ms: f64 = 0.05, Within(0.0, 60_000.0);
        /// Minimum requests per release in the evidence before a latency alert is raised.
        latency_min_requests: u64 = 20, Within(1.0, MANY);
        /// False-positive probability of error alerts per watched route, over its whole lifetime.
        errors_alpha: f64 = 0.001, Within(1e-9, 0.1);
        /// Increase in the share of failed requests below which no alert is raised.
        errors_floor_share: f64 = 0.01, Within(0.0, 1.0);
        /// Failed requests of the newer release below which no alert is raised.
        min_errors: u64 = 5, Within(1.0, MANY);
        /// Windows with the regression after the verdict, not necessarily consecutive, before a suspected alert fires.
        confirm_windows: u64 = 1, Within(0.0, 8_640.0);
        /// Consecutive quiet windows before a suspected alert is dropped or a firing one starts recovering.
        quiet_windows: u64 = 3, Within(1.0, 8_640.0);
        /// Consecutive quiet windows before a recovering alert is resolved.
        resolve_windows: u64 = 12, Within(1.0, 8_640.0);
        /// Consecutive windows with the regression before a resolved alert becomes suspected again.
        again_windows: u64 = 6, Within(1.0, 8_640.0);
        /// Windows without requests before an alert is resolved because its release is gone.
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
    /// Contradictions between settings that are each valid: the names of both and what to do.
    pub(crate) fn contradictions(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let (retention, store, ingest) = (&self.retention, &self.store, &self.ingest);
        if retention.rollup_retention_days * 24 < retention.retention_hours {
            found.push((
                "rollup_retention_days",
                format!(
                    "{} days are shorter than `retention_hours` = {}: keep sums at least as long as samples",
                    retention.rollup_retention_days, retention.retention_hours
                ),
            ));
        }
        if store.queue_bytes < store.max_batch_bytes {
            found.push((
                "queue_bytes",
                format!(
                    "{} is less than `max_batch_bytes` = {}: the largest batch could never be stored",
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
                    format!("{of_part} is more than the total, `{whole}` = {of_whole}: lower it or raise the total"),
                ));
            }
        }
        found
    }
}
