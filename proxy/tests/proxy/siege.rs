//! A siege of a proxy: everything that strangers do to a port, at once, while one caller behaves. A test lays a short one,
//! the bench `hostile_proxy` a long one.
//!
//! Guarantees: everything is sent to addresses of this machine; the number of connections held at a time, of those opened
//! in all and the time are bounded by what is asked for. The attackers come from 127.0.0.1, the caller from 127.0.0.2.
//!
//! Sources: RFC 9113 section 4 (frames), RFC 7541 section 6 (an indexed field, and a literal that is put into the table).

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

/// What is besieged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// A listener whose destination answers.
    pub(crate) answering: SocketAddr,
    /// One whose destination does not.
    pub(crate) stuck: SocketAddr,
    /// The admin port.
    pub(crate) admin: SocketAddr,
    /// Connections of each kind at a time.
    pub(crate) at_a_time: usize,
    /// Connections of each kind in all.
    pub(crate) in_all: u64,
}

/// What a well-behaved caller saw.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    /// Of each request that was answered 200, in microseconds.
    pub(crate) latencies: Vec<u64>,
    /// Requests without such an answer.
    pub(crate) failed: u64,
}

impl Seen {
    /// A quantile of the latencies, in milliseconds.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
        sorted.get(at).map_or(f64::NAN, |us| *us as f64 / 1e3)
    }
}

/// What the attackers did.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Connections opened, by kind.
    pub(crate) opened: [AtomicU64; KINDS.len()],
}

/// The kinds of attacks.
pub(crate) const KINDS: [&str; 6] = [
    "half heads",
    "silent",
    "slow bodies",
    "readers that do not read",
    "compressed lists",
    "made-up names",
];

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An application: `/big` is a megabyte, everything else is `ok`.
pub(crate) async fn answering_app() -> SocketAddr {
    app(|mut stream: TcpStream| async move {
        let mut big = b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n".to_vec();
        big.resize(big.len() + (1 << 20), b'x');
        let mut head = Vec::new();
        while let Ok(byte) = stream.read_u8().await {
            head.push(byte);
            if !head.ends_with(b"\r\n\r\n") {
                continue;
            }
            let answer: &[u8] = if head.starts_with(b"GET /big") {
                &big
            } else {
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            };
            if stream.write_all(answer).await.is_err() {
                return;
            }
            head.clear();
        }
    })
    .await
}

/// An application that never answers.
pub(crate) async fn stuck_app() -> SocketAddr {
    app(|mut stream: TcpStream| async move {
        let mut buf = [0; 4096];
        while matches!(stream.read(&mut buf).await, Ok(1..)) {}
    })
    .await
}

async fn app<F, R>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(serve(stream))),
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    });
    address
}

/// Attacks for so long.
pub(crate) async fn lay(target: Target, how_long: Duration, done: Arc<Done>) {
    let mut attackers = JoinSet::new();
    for kind in 0..KINDS.len() {
        // A busy loop of few connections does for names; each of the others holds many.
        let at_a_time = if kind == 5 { 4 } else { target.at_a_time };
        for number in 0..at_a_time {
            let done = Arc::clone(&done);
            attackers.spawn(async move {
                while done.opened[kind].fetch_add(1, Relaxed) < target.in_all {
                    // Over before it began, or closed by the proxy: once more.
                    let _ = attack(kind, number, target).await;
                    sleep(Duration::from_millis(20)).await;
                }
            });
        }
    }
    let _ = timeout(how_long, async { while attackers.join_next().await.is_some() {} }).await;
    attackers.shutdown().await;
}

async fn attack(kind: usize, number: usize, target: Target) -> std::io::Result<()> {
    let address = if kind == 4 { target.stuck } else { target.answering };
    let mut stream = TcpStream::connect(address).await?;
    match kind {
        0 => {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(15_000));
            stream.write_all(head.as_bytes()).await?;
            until_closed(&mut stream).await;
        }
        1 => until_closed(&mut stream).await,
        2 => {
            stream
                .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
                .await?;
            loop {
                stream.write_all(b"x").await?;
                sleep(Duration::from_millis(200)).await;
            }
        }
        3 => {
            for _ in 0..16 {
                stream.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n").await?;
            }
            // Held, and never read.
            sleep(Duration::from_secs(3600)).await;
        }
        4 => {
            stream.write_all(PREFACE).await?;
            stream.write_all(&frame(4, 0, 0, &[])).await?;
            for n in 0..100_u32 {
                stream
                    .write_all(&frame(1, 5, 2 * n + 1, &compressed_list(n == 0)))
                    .await?;
            }
            until_closed(&mut stream).await;
        }
        _ => {
            for n in 0.. {
                let request =
                    format!("GET / HTTP/1.1\r\nHost: a\r\nx-emberline-peer: v1;;made-up-{number}-{n};v1;i\r\n\r\n");
                stream.write_all(request.as_bytes()).await?;
                read_ok(&mut stream).await?;
                sleep(Duration::from_millis(2)).await;
            }
        }
    }
    Ok(())
}

async fn until_closed(stream: &mut TcpStream) {
    let mut buf = [0; 1024];
    while matches!(stream.read(&mut buf).await, Ok(1..)) {}
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A request whose headers are a byte each once the first of them is in the table: 3 bytes of name and 2 of value count
/// as 37, and 400 of them stay below what the proxy takes.
fn compressed_list(is_first: bool) -> Vec<u8> {
    // :method GET, :scheme http, :path /, and :authority as a literal.
    let mut block = vec![0x82, 0x86, 0x84, 0x01, 1, b'a'];
    if is_first {
        block.extend([0x40, 3, b'x', b'-', b'y', 2, b'z', b'z']);
    }
    block.extend([0xbe; 400]);
    block
}

/// Reads an answer; an error unless it is 200.
async fn read_ok(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut answer = Vec::new();
    let mut buf = [0; 4096];
    let end = loop {
        match stream.read(&mut buf).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => answer.extend(&buf[..n]),
        }
        if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    while answer.len() < end + length.unwrap_or(0) {
        match stream.read(&mut buf).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => answer.extend(&buf[..n]),
        }
    }
    if head.starts_with("http/1.1 200") {
        Ok(())
    } else {
        Err(std::io::Error::other(head))
    }
}

async fn ask(address: SocketAddr, kept: &mut Option<TcpStream>, path: &str) -> std::io::Result<()> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from(([127, 0, 0, 2], 0)))?;
            socket.connect(address).await?
        }
    };
    stream.set_nodelay(true)?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
        .await?;
    read_ok(&mut stream).await?;
    *kept = Some(stream);
    Ok(())
}

/// Behaves for so long: a request every few milliseconds, every tenth on a connection of its own.
pub(crate) async fn behave(address: SocketAddr, path: &str, every: Duration, how_long: Duration) -> Seen {
    let (mut seen, mut kept, started) = (Seen::default(), None, Instant::now());
    for n in 0_u64.. {
        if started.elapsed() >= how_long {
            break;
        }
        if n % 10 == 0 || path == "/ready" {
            kept = None;
        }
        let begun = Instant::now();
        let had_one = kept.is_some();
        let mut answer = timeout(Duration::from_secs(10), ask(address, &mut kept, path)).await;
        if had_one && !matches!(answer, Ok(Ok(()))) {
            // A kept connection may have ended: so it is with any server.
            answer = timeout(Duration::from_secs(10), ask(address, &mut kept, path)).await;
        }
        match answer {
            Ok(Ok(())) => seen.latencies.push(begun.elapsed().as_micros() as u64),
            _ => seen.failed += 1,
        }
        sleep(every).await;
    }
    seen
}
