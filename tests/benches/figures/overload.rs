//! A destination that can do 400 requests a second is asked for 2,000: how long those take that are admitted, compared with a
//! destination that is not busy, with `concurrency_limit` and without.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use emberline_proxy::{Proxy, config};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

use crate::Figure;

const COMMAND: &str = "make bench NAME=overload";
/// Requests that the destination works on at once, and how long each takes.
const AT_ONCE: usize = 8;
const WORK: Duration = Duration::from_millis(20);
/// Requests a second: what it can do is 400.
const CALM: u32 = 40;
const OVERLOAD: u32 = 2_000;
const TIME: Duration = Duration::from_secs(10);

/// Statuses and times in milliseconds.
type Answers = Vec<(u16, f64)>;

pub(crate) fn run() -> Result<Vec<Figure>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let app = listener.local_addr()?;
        tokio::spawn(serve(listener));
        let limit =
            format!(", filters: [{{concurrency_limit: {{requests: {AT_ONCE}, queue: {AT_ONCE}, queue_ms: 20}}}}]");
        let mut p99s = Vec::new();
        for (what, filters, rate) in [
            ("not busy", limit.as_str(), CALM),
            ("5 times its capacity, with concurrency_limit", &limit, OVERLOAD),
            ("5 times its capacity, without", "", OVERLOAD),
        ] {
            let text = format!(
                "workload: {{service: shop}}\nadmin: 127.0.0.1:0\nprofiler: {{enabled: false}}\n\
                 inbound: [{{listen: 127.0.0.1:0, to: {app}, protocol: http1{filters}}}]"
            );
            let proxy = Proxy::start(config::parse("overload".as_ref(), &text)?, None)?;
            let answers = load(proxy.addresses().inbound[0], rate).await;
            tokio::task::spawn_blocking(move || proxy.stop()).await?;
            let mut times: Vec<f64> = answers.iter().filter(|a| a.0 == 200).map(|a| a.1).collect();
            times.sort_by(f64::total_cmp);
            let at = |q: f64| times.get(((times.len() - 1) as f64 * q) as usize).copied();
            let p99 = at(0.99).context("nothing was answered")?;
            println!(
                "{what:45} {} of {} answered, p50 {:.1} ms, p99 {p99:.1} ms",
                times.len(),
                answers.len(),
                at(0.5).unwrap_or_default()
            );
            p99s.push(p99);
        }
        let ratio = p99s[1] / p99s[0];
        ensure!(ratio <= 3.0, "{ratio:.2} times as long as when it is not busy");
        Ok(vec![Figure::plain("overload_p99_ratio", ratio, "", 1, COMMAND)])
    })
}

/// The destination.
async fn serve(listener: TcpListener) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    while let Ok((mut stream, _)) = listener.accept().await {
        let places = Arc::clone(&places);
        tokio::spawn(async move {
            while read_head(&mut stream).await.is_some() {
                let Ok(_place) = places.acquire().await else { return };
                tokio::time::sleep(WORK).await;
                if stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .await
                    .is_err()
                {
                    return;
                }
            }
        });
    }
}

/// Sends so many a second, whatever becomes of those before.
async fn load(proxy: std::net::SocketAddr, rate: u32) -> Answers {
    let (began, mut asking) = (Instant::now(), JoinSet::new());
    let mut answers = Answers::new();
    for number in 0.. {
        let due = Duration::from_secs(1) * number / rate;
        if due >= TIME {
            break;
        }
        tokio::time::sleep_until((began + due).into()).await;
        asking.spawn(async move {
            let sent = Instant::now();
            let status = ask(proxy).await.unwrap_or(0);
            (status, sent.elapsed().as_secs_f64() * 1e3)
        });
        while let Some(Ok(answer)) = asking.try_join_next() {
            answers.push(answer);
        }
    }
    answers.extend(asking.join_all().await);
    answers
}

async fn ask(proxy: std::net::SocketAddr) -> Option<u16> {
    let mut stream = TcpStream::connect(proxy).await.ok()?;
    let request = b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n";
    stream.write_all(request).await.ok()?;
    let head = read_head(&mut stream).await?;
    head.split(' ').nth(1)?.parse().ok()
}

/// Up to the end of a head; what follows in the same packet is dropped.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        head.extend_from_slice(&buffer[..read]);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}
