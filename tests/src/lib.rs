//! What end-to-end tests and benches share: the real binaries, a plain HTTP client, and waiting with a deadline.
//!
//! Guarantees: tests that start a mesh run one at a time ([`serial`]); no wait depends on the machine's speed,
//! only its generous deadline does; every process started here ends with the value that started it.

pub mod alert_rules;
pub mod bulk;
mod cgroup;
pub mod flood;
pub mod generator;
pub mod hostile;

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
pub use cgroup::MemoryCgroup;
use serde_json::Value;

/// Held by a test that starts a mesh: two at once would measure each other.
pub fn serial() -> MutexGuard<'static, ()> {
    static SERIAL: Mutex<()> = Mutex::new(());
    SERIAL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Folder of the binaries built with the tests: `target/release`.
pub fn binaries() -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    let folder = own.parent().expect("a program lies in a folder");
    let folder = if folder.ends_with("deps") {
        folder.parent().expect("deps lies in a folder")
    } else {
        folder
    };
    folder.to_path_buf()
}

/// A binary of the product. Panics with what to do when it is not built.
pub fn binary(name: &str) -> PathBuf {
    let path = binaries().join(name);
    assert!(path.is_file(), "{} is not built: run `make build`", path.display());
    path
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the repository")
        .to_path_buf()
}

/// A directory of its own for a test; removed with the value.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes `<temporary>/emberline-<name>-<process>`.
    pub fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("emberline-{name}-{}", std::process::id()));
        // Left over from a run that was killed.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("the temporary directory can be written");
        Scratch(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("logs and data are kept in {}", self.0.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// A port that nothing listens on at this moment; below those that the system gives to outgoing connections, one of which may
/// have it before it is listened on.
pub fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = TAKEN.fetch_add(1, Ordering::Relaxed) + std::process::id().wrapping_mul(97);
        let port = 10_000 + (number % 20_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Asks `check` until it gives a value, at most until the deadline.
pub fn wait_for<T>(what: &str, patience: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "no {what} within {patience:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// An answer over HTTP.
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers, as text.
    pub head: String,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| {
            String::from_utf8_lossy(&self.body)
                .chars()
                .take(300)
                .collect::<String>()
        })
    }
}

/// One request without keep-alive.
pub fn request(address: SocketAddr, method: &str, path: &str, content_type: &str, body: &[u8]) -> Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let length = body.len();
    let content = if body.is_empty() && method == "GET" {
        String::new()
    } else {
        format!("Content-Type: {content_type}\r\nContent-Length: {length}\r\n")
    };
    stream.write_all(format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n{content}\r\n").as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let split = answer
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .context("not an HTTP answer")?;
    let head = String::from_utf8_lossy(&answer[..split]).into_owned();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .context("not an HTTP answer")?;
    Ok(Answer {
        status,
        head,
        body: answer[split + 4..].to_vec(),
    })
}

/// GET.
pub fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    request(address, "GET", path, "", &[])
}

/// GET, as JSON of a 200.
pub fn get_json(address: SocketAddr, path: &str) -> Result<Value> {
    let answer = get(address, path)?;
    if answer.status != 200 {
        bail!("{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
    }
    answer.json()
}

/// What a server with default settings needs at most.
pub const MEMORY_CAP_BYTES: u64 = 512 << 20;

/// `emberline serve` on free ports.
pub struct Server {
    child: Child,
    // After the process, which has to be gone first.
    cgroup: Option<MemoryCgroup>,
    /// Pages and API.
    pub web: SocketAddr,
    /// OTLP over gRPC.
    pub otlp_grpc: SocketAddr,
    /// OTLP over HTTP.
    pub otlp_http: SocketAddr,
}

impl Server {
    /// Starts a server on a data directory and waits until it is ready.
    ///
    /// It lives in a container of [`MEMORY_CAP_BYTES`], where the system lets tests make one: when it needs more it is
    /// ended, and the test with it.
    pub fn start(data: &Path) -> Server {
        Server::start_with(data, &[], None)
    }

    /// The same with more options, and with so many file descriptors.
    pub fn start_with(data: &Path, options: &[&str], descriptors: Option<u64>) -> Server {
        Server::start_program(&binary("emberline"), data, options, descriptors)
    }

    /// The same of another program than the one that was built with the tests: an older one, to compare with.
    pub fn start_program(program: &Path, data: &Path, options: &[&str], descriptors: Option<u64>) -> Server {
        Server::start_in(MemoryCgroup::new(MEMORY_CAP_BYTES), program, data, options, descriptors)
    }

    /// The same with as much memory as it takes.
    pub fn start_without_cap(program: &Path, data: &Path, options: &[&str]) -> Server {
        Server::start_in(None, program, data, options, None)
    }

    fn start_in(
        cgroup: Option<MemoryCgroup>,
        program: &Path,
        data: &Path,
        options: &[&str],
        descriptors: Option<u64>,
    ) -> Server {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (web, otlp_grpc, otlp_http) = (local(free_port()), local(free_port()), local(free_port()));
        let mut command = Command::new("sh");
        let descriptors = descriptors
            .map(|count| format!("ulimit -n {count} && "))
            .unwrap_or_default();
        command.args(["-c", &format!("{descriptors}echo $$ > \"$0\" && exec \"$@\"")]);
        match &cgroup {
            Some(cgroup) => command.arg(cgroup.joining()),
            None => command.arg("/dev/null"),
        };
        let child = command
            .arg(program)
            .args(["serve", "--exit-on-stdin-close", "--data-dir"])
            .arg(data)
            .args(["--listen", &web.to_string()])
            .args(["--otlp-grpc", &otlp_grpc.to_string()])
            .args(["--otlp-http", &otlp_http.to_string()])
            .args(options)
            .stdin(Stdio::piped())
            .stderr(File::create(data.with_extension("server.log")).expect("the log can be written"))
            .spawn()
            .expect("the server starts");
        let mut server = Server {
            child,
            cgroup,
            web,
            otlp_grpc,
            otlp_http,
        };
        wait_for("ready server", Duration::from_secs(120), || {
            assert!(matches!(server.child.try_wait(), Ok(None)), "the server ended");
            get(server.web, "/-/ready").ok().filter(|a| a.status == 200)
        });
        server
    }

    /// Whether the system holds it to its cap of memory, for benches to print.
    pub fn cap_in_words(&self) -> String {
        let cap_mib = MEMORY_CAP_BYTES >> 20;
        match self.cgroup {
            Some(_) => format!("memory of the server is limited to {cap_mib} MiB by the system"),
            None => {
                format!("memory of the server should stay below {cap_mib} MiB; no cgroup can be made here to limit it")
            }
        }
    }

    /// The most memory it ever held, in MB (10⁶ bytes), as the system counts it.
    pub fn peak_rss_mb(&self) -> f64 {
        self.memory_mb("VmHWM:")
    }

    /// The memory it holds now, counted alike.
    pub fn rss_mb(&self) -> f64 {
        self.memory_mb("VmRSS:")
    }

    /// What of it is the process's own and not pages of files, which the system may drop.
    pub fn own_memory_mb(&self) -> f64 {
        self.memory_mb("RssAnon:")
    }

    fn memory_mb(&self, counted: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the server runs");
        let line = status
            .lines()
            .find(|line| line.starts_with(counted))
            .expect("the system counts it");
        let kib: f64 = line
            .split_whitespace()
            .nth(1)
            .and_then(|n| n.parse().ok())
            .expect("a number of kB");
        kib * 1024.0 / 1e6
    }

    /// Ends the server in order and waits for it.
    pub fn stop(mut self) {
        drop(self.child.stdin.take());
        let status = self.child.wait().expect("the server can be waited for");
        assert!(status.success(), "the server ended with {status}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `emberline demo --output json`.
pub struct Demo {
    child: Child,
    events: mpsc::Receiver<Value>,
    directory: PathBuf,
}

impl Demo {
    /// Starts the demo in a directory with more arguments.
    pub fn start(directory: &Path, arguments: &[&str]) -> Demo {
        let mut child = Command::new(binary("emberline"))
            .args(["demo", "--port", "0", "--output", "json", "--data-dir"])
            .arg(directory)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(File::create(directory.join("demo.err")).expect("the log can be written"))
            .spawn()
            .expect("the demo starts");
        let stdout = child.stdout.take().expect("standard output is piped");
        let (sender, events) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not one JSON object: {line}"));
                if sender.send(event).is_err() {
                    break;
                }
            }
        });
        Demo {
            child,
            events,
            directory: directory.to_path_buf(),
        }
    }

    /// The next event of a kind; others are passed over. Panics when the demo ends first.
    pub fn event(&self, kind: &str, patience: Duration) -> Value {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) if event["event"] == kind => return event,
                Ok(_) => {}
                Err(_) => panic!(
                    "no `{kind}` event within {patience:?}; logs are in {}",
                    self.directory.display()
                ),
            }
        }
    }

    /// Events that have come and were not taken yet.
    pub fn pending_events(&self) -> Vec<Value> {
        self.events.try_iter().collect()
    }

    /// Address of the pages, from the first event.
    pub fn ready(&self) -> SocketAddr {
        let event = self.event("ready", Duration::from_secs(180));
        let url = event["url"].as_str().expect("ready has a url");
        url.trim_start_matches("http://")
            .parse()
            .expect("the url is an address")
    }

    /// Kills the demo's server with SIGKILL; the demo starts it again.
    pub fn kill_server(&self) {
        let pid = server_pid(&self.directory.join("data"));
        let status = Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    /// Sends Ctrl-C's signal, waits for the end, and gives the exit code's success.
    pub fn interrupt(mut self) -> bool {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-INT", &pid]).status().expect("kill runs");
        assert!(status.success());
        self.child.wait().expect("the demo can be waited for").success()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Its children end when their standard input closes.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Process id of the server that holds a data directory, from its lock file.
pub fn server_pid(data: &Path) -> u32 {
    let text = std::fs::read_to_string(data.join("LOCK")).expect("the data directory is locked");
    text.trim().parse().expect("the lock names a process")
}

/// Processes whose command line mentions a path.
pub fn processes_mentioning(path: &Path) -> Vec<String> {
    let wanted = path.to_string_lossy().into_owned();
    let entries = std::fs::read_dir("/proc").expect("/proc can be read");
    let own = std::process::id().to_string();
    entries
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()))
        .filter(|e| e.file_name().to_string_lossy() != own)
        .filter_map(|e| std::fs::read(e.path().join("cmdline")).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
        .filter(|line| line.contains(&wanted))
        .collect()
}
