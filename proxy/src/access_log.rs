//! The access log: a line per request, with Envoy's names.
//!
//! Guarantees: failed requests and those with a response flag are always written, plus the share of the others that
//! `sampled` sets; the data path never waits for the disk: what the writer cannot keep up with is dropped and counted;
//! a file that was moved away is reopened. Callers' text is truncated to [`MOST_TEXT`] bytes and cannot begin a line or
//! an entry of its own.
//!
//! Source of names and of the text format: Envoy, "Access logging", default format strings.

use std::{
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use emberline_model::{LabelSet, Side, protocol::Protocol};
use http::{HeaderMap, HeaderName, header, request};
use parking_lot::Mutex;
use serde::Serialize;

use crate::{
    config::{AccessLogConfig, AccessLogFormat},
    counters::Counters,
    telemetry::{RequestRecord, ResponseFlags},
    trace::{REQUEST_ID, TRACEPARENT, random},
};

/// Entries waiting for the writer.
const QUEUE: usize = 1_024;
/// Longest text from a caller in an entry, in bytes.
const MOST_TEXT: usize = 1_024;
/// How often the writer checks that its file is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The path that means standard output, wherever that leads.
const STDOUT: &str = "/dev/stdout";

/// A handle to the log of a process.
#[derive(Debug, Clone)]
pub(crate) struct AccessLog {
    queue: SyncSender<Message>,
    /// Share of requests without a fault that are written, in units of 2^-32.
    sampled: u64,
    counters: Arc<Counters>,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
}

#[derive(Debug)]
enum Message {
    Entry(Box<Entry>),
    End,
}

/// What is known about a request before it has ended.
#[derive(Debug, Default)]
pub(crate) struct Head {
    caller: Option<IpAddr>,
    method: String,
    path: String,
    authority: String,
    user_agent: String,
    request_id: String,
    trace_id: String,
    /// Who responds, once it is known.
    pub(crate) endpoint: String,
    /// Why this process responded itself.
    pub(crate) reason: &'static str,
}

impl Head {
    /// For a connection of opaque bytes.
    pub(crate) fn of_connection(caller: IpAddr) -> Head {
        Head {
            caller: Some(caller),
            ..Head::default()
        }
    }

    /// For a request.
    pub(crate) fn of(caller: IpAddr, head: &request::Parts) -> Head {
        let authority = head.uri.authority().map(|authority| cut(authority.as_str()));
        let path = head.uri.path_and_query().map_or("", |path| path.as_str());
        let trace = text(&head.headers, &TRACEPARENT);
        Head {
            caller: Some(caller),
            method: cut(head.method.as_str()),
            path: cut(path),
            authority: authority.unwrap_or_else(|| text(&head.headers, &header::HOST)),
            user_agent: text(&head.headers, &header::USER_AGENT),
            request_id: text(&head.headers, &REQUEST_ID),
            trace_id: trace.split('-').nth(1).unwrap_or_default().to_owned(),
            ..Head::default()
        }
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> String {
    headers
        .get(name)
        .map(|value| cut(&String::from_utf8_lossy(value.as_bytes())))
        .unwrap_or_default()
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(MOST_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// A line.
#[derive(Debug)]
struct Entry {
    head: Head,
    labels: LabelSet,
    protocol: Protocol,
    record: RequestRecord,
    request_bytes: u64,
    response_bytes: u64,
    /// When it began, in milliseconds since the Unix epoch.
    started_unix_ms: i64,
}

/// An entry in JSON.
#[derive(Serialize)]
struct Json<'a> {
    start_time: &'a str,
    side: &'static str,
    method: &'a str,
    path: &'a str,
    protocol: &'static str,
    response_code: u16,
    response_flags: &'a str,
    response_code_details: &'a str,
    bytes_received: u64,
    bytes_sent: u64,
    /// Milliseconds, like all times.
    duration: f64,
    upstream_service_time: Option<f64>,
    user_agent: &'a str,
    request_id: &'a str,
    trace_id: &'a str,
    authority: &'a str,
    upstream_host: &'a str,
    downstream_remote_address: Option<IpAddr>,
    route_name: &'a str,
    peer: &'a str,
}

impl AccessLog {
    /// Opens the log and starts its writer.
    ///
    /// # Errors
    /// When the file cannot be opened; the message names both the file and the setting.
    pub(crate) fn start(config: &AccessLogConfig, counters: &Arc<Counters>) -> io::Result<AccessLog> {
        let mut output = Output::open(&config.path)?;
        let (queue, entries) = sync_channel(QUEUE);
        let format = config.format;
        let failed = Arc::clone(counters);
        let writer = std::thread::Builder::new()
            .name("emberline-log".to_owned())
            .spawn(move || write_all(&entries, &mut output, format, &failed))?;
        Ok(AccessLog {
            queue,
            sampled: (config.sampled.clamp(0.0, 1.0) * 4_294_967_296.0) as u64,
            counters: Arc::clone(counters),
            writer: Arc::new(Mutex::new(Some(writer))),
        })
    }

    /// True when a request with this outcome is written.
    pub(crate) fn wants(&self, record: &RequestRecord) -> bool {
        record.error || record.flags != ResponseFlags::NONE || (random() >> 32) < self.sampled
    }

    /// Writes the entry of a finished request; `bytes` is everything received and sent, `ended_unix_ms` and `lasted`
    /// determine when it began.
    pub(crate) fn write(
        &self,
        head: Head,
        (labels, protocol): (LabelSet, Protocol),
        record: RequestRecord,
        (request_bytes, response_bytes): (u64, u64),
        ended_unix_ms: i64,
        lasted: Duration,
    ) {
        let lasted_ms = i64::try_from(lasted.as_millis()).unwrap_or(i64::MAX);
        let entry = Box::new(Entry {
            head,
            labels,
            protocol,
            record,
            request_bytes,
            response_bytes,
            started_unix_ms: ended_unix_ms.saturating_sub(lasted_ms),
        });
        match self.queue.try_send(Message::Entry(entry)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.counters.access_log_dropped.add(),
        }
    }

    /// Writes what is queued and ends the writer. Blocks on the disk.
    pub(crate) fn stop(&self) {
        let writer = self.writer.lock().take();
        if let Some(writer) = writer
            && self.queue.send(Message::End).is_ok()
        {
            // A panic of the writer has already been printed.
            let _ = writer.join();
        }
    }
}

/// Where lines go.
enum Output {
    Stdout(io::Stdout),
    File {
        path: PathBuf,
        file: BufWriter<File>,
        inode: Option<u64>,
    },
}

impl Output {
    fn open(path: &Path) -> io::Result<Output> {
        if path == Path::new(STDOUT) {
            return Ok(Output::Stdout(io::stdout()));
        }
        let named = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!(
                    "cannot open the access log {}: {error}; set `access_log.path`",
                    path.display()
                ),
            )
        };
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(named)?;
        Ok(Output::File {
            inode: file.metadata().ok().map(|metadata| metadata.ino()),
            path: path.to_owned(),
            file: BufWriter::new(file),
        })
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        match self {
            Output::Stdout(stdout) => stdout.write_all(line.as_bytes()),
            Output::File { file, .. } => file.write_all(line.as_bytes()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Output::Stdout(stdout) => stdout.flush(),
            Output::File { file, .. } => file.flush(),
        }
    }

    /// Reopens the file if its name now belongs to another one, or to none.
    fn look(&mut self) -> io::Result<()> {
        let Output::File { path, file, inode } = self else {
            return Ok(());
        };
        let now = std::fs::metadata(&*path).ok().map(|metadata| metadata.ino());
        if now.is_some() && now == *inode {
            return Ok(());
        }
        file.flush()?;
        *self = Output::open(path)?;
        Ok(())
    }
}

fn write_all(entries: &Receiver<Message>, output: &mut Output, format: AccessLogFormat, counters: &Counters) {
    let mut line = String::new();
    loop {
        let mut next = match entries.recv_timeout(LOOK_EVERY) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let mut wrote = output.look();
        let mut ends = false;
        while let Some(message) = next {
            match message {
                Message::Entry(entry) => {
                    line.clear();
                    entry.write(format, &mut line);
                    let written = output.write(&line);
                    if written.is_err() {
                        counters.access_log_dropped.add();
                    }
                    wrote = wrote.and(written);
                }
                Message::End => {
                    ends = true;
                    break;
                }
            }
            next = entries.try_recv().ok();
        }
        if let Err(error) = wrote.and(output.flush()) {
            tracing::warn!(%error, "cannot write the access log");
        }
        if ends {
            return;
        }
    }
}

impl Entry {
    fn write(&self, format: AccessLogFormat, line: &mut String) {
        let start_time = rfc3339(self.started_unix_ms);
        let flags: Vec<&str> = self.record.flags.names().collect();
        let flags = if flags.is_empty() {
            "-".to_owned()
        } else {
            flags.join(",")
        };
        let ms = |ns: u64| ns as f64 / 1e6;
        let total = ms(self.record.duration_ns.saturating_add(self.record.streaming_ns));
        let upstream = self.record.upstream_ns.map(ms);
        let head = &self.head;
        match format {
            AccessLogFormat::Json => {
                let peer = self.labels.peer.as_ref().map(ToString::to_string).unwrap_or_default();
                let json = Json {
                    start_time: &start_time,
                    side: match self.labels.side {
                        Some(Side::Server) => "inbound",
                        _ => "outbound",
                    },
                    method: &head.method,
                    path: &head.path,
                    protocol: self.protocol.name(),
                    response_code: self.record.status,
                    response_flags: &flags,
                    response_code_details: head.reason,
                    bytes_received: self.request_bytes,
                    bytes_sent: self.response_bytes,
                    duration: total,
                    upstream_service_time: upstream,
                    user_agent: &head.user_agent,
                    request_id: &head.request_id,
                    trace_id: &head.trace_id,
                    authority: &head.authority,
                    upstream_host: &head.endpoint,
                    downstream_remote_address: head.caller,
                    route_name: &self.labels.route,
                    peer: &peer,
                };
                // Text and numbers: JSON can represent all of it.
                line.push_str(&serde_json::to_string(&json).unwrap_or_default());
            }
            AccessLogFormat::Text => {
                let caller = head.caller.map(|caller| caller.to_string()).unwrap_or_default();
                let upstream = upstream.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.3}"));
                // Writing to text does not fail.
                let _ = write!(
                    line,
                    "[{start_time}] \"{} {} {}\" {} {flags} {} {} {total:.3} {upstream} \"{caller}\" \"{}\" \"{}\" \"{}\" \"{}\"",
                    quoted(&head.method),
                    quoted(&head.path),
                    self.protocol.name(),
                    self.record.status,
                    self.request_bytes,
                    self.response_bytes,
                    quoted(&head.user_agent),
                    quoted(&head.request_id),
                    quoted(&head.authority),
                    quoted(&head.endpoint),
                );
            }
        }
        line.push('\n');
    }
}

/// Text within quotes: nothing in it can end the quotes or the line.
fn quoted(text: &str) -> String {
    if text.is_empty() {
        return "-".to_owned();
    }
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => safe.extend(['\\', c]),
            c if c.is_control() => safe.extend(c.escape_default()),
            c => safe.push(c),
        }
    }
    safe
}

fn rfc3339(unix_ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(unix_ms)
        .map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
        .unwrap_or_default()
}
