//! The demo's own server, asked through its API.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::process::{Directory, Process, free_port};

/// `emberline serve` as a child process.
pub(crate) struct Server {
    process: Process,
    arguments: Vec<String>,
    directory: std::path::PathBuf,
    web: SocketAddr,
    otlp: SocketAddr,
}

impl Server {
    /// Starts the server and waits until it is ready.
    pub(crate) async fn start(directory: &Directory, port: u16) -> Result<Server> {
        let port = if port == 0 { free_port()? } else { port };
        let web = SocketAddr::from(([127, 0, 0, 1], port));
        if let Err(error) = std::net::TcpListener::bind(web) {
            bail!("cannot listen on {web} ({error}): stop what uses it or choose another with --port");
        }
        let otlp = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let otlp_http = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let data = directory.path().join("data");
        let arguments = [
            "serve",
            "--exit-on-stdin-close",
            "--data-dir",
            &data.to_string_lossy(),
            "--listen",
            &web.to_string(),
            "--otlp-grpc",
            &otlp.to_string(),
            "--otlp-http",
            &otlp_http.to_string(),
            // The sample mesh starts warm.
            "--warm-up-seconds",
            "0",
        ]
        .map(str::to_owned)
        .to_vec();
        let program = std::env::current_exe().context("cannot find out where this command lies")?;
        let process = Process::start("server", &program, &arguments, directory)?;
        let mut server = Server {
            process,
            arguments,
            directory: directory.path().to_path_buf(),
            web,
            otlp,
        };
        server.wait_until_ready().await?;
        Ok(server)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(120);
        while Instant::now() < deadline {
            self.process.check()?;
            if matches!(self.get("/-/ready").await, Ok((200, _))) {
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
        bail!(
            "the server did not become ready; its log is {}",
            self.directory.join("server.log").display()
        );
    }

    /// Starts the server anew if it has ended; true if it had.
    pub(crate) async fn restart_if_dead(&mut self) -> Result<bool> {
        if !self.process.has_ended() {
            return Ok(false);
        }
        let directory = Directory::new(Some(&self.directory))?;
        let program = std::env::current_exe()?;
        self.process = Process::start("server", &program, &self.arguments, &directory)?;
        self.wait_until_ready().await?;
        Ok(true)
    }

    /// Base URL of the pages.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.web)
    }

    /// Where telemetry goes.
    pub(crate) fn otlp_url(&self) -> String {
        format!("http://{}", self.otlp)
    }

    /// Alerts that are stated now.
    pub(crate) async fn firing_alerts(&self) -> Result<Vec<Value>> {
        let (status, body) = self.get("/api/v1/alerts?state=firing").await?;
        if status != 200 {
            bail!("the server answered {status}");
        }
        let answer: Value = serde_json::from_slice(&body)?;
        Ok(answer["alerts"].as_array().cloned().unwrap_or_default())
    }

    /// One request without keep-alive; the demo asks twice a second.
    async fn get(&self, path: &str) -> Result<(u16, Vec<u8>)> {
        let exchange = async {
            let mut stream = TcpStream::connect(self.web).await?;
            let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.web);
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            anyhow::Ok(answer)
        };
        let answer = timeout(Duration::from_secs(10), exchange)
            .await
            .context("the server does not answer")??;
        let split = answer
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .context("not an HTTP answer")?;
        let head = String::from_utf8_lossy(&answer[..split]);
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .context("not an HTTP answer")?;
        Ok((status, answer[split + 4..].to_vec()))
    }

    /// Ends the server in order.
    pub(crate) async fn stop(&mut self) {
        self.process.stop(Duration::from_secs(15)).await;
    }
}
