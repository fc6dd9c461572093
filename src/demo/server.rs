//! The demo's own server, queried through its API.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use emberline_client::{Address, Client, Tls};
use emberline_model::alert::Alert;
use emberline_web::types::Alerts;
use http::Request;
use tokio::time::{Instant, sleep};

use super::process::{Directory, Process, free_port};

/// Longest wait for a response.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The longest response; alerts with their evidence are far shorter.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// `emberline serve` as a child process.
pub(crate) struct Server {
    process: Process,
    client: Client,
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
            bail!("cannot listen on {web} ({error}): stop the program that uses it or choose another port with --port");
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
            // The sample mesh needs no warm-up.
            "--warm-up-seconds",
            "0",
        ]
        .map(str::to_owned)
        .to_vec();
        let program = std::env::current_exe().context("cannot determine this program's path")?;
        let process = Process::start("server", &program, &arguments, directory)?;
        let mut server = Server {
            process,
            client: Client::new(&Tls::default())?,
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
            "the server did not become ready; see its log, {}",
            self.directory.join("server.log").display()
        );
    }

    /// Restarts the server if it has ended; returns whether it had.
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

    /// Endpoint for telemetry.
    pub(crate) fn otlp_url(&self) -> String {
        format!("http://{}", self.otlp)
    }

    /// Alerts that are firing.
    pub(crate) async fn firing_alerts(&self) -> Result<Vec<Alert>> {
        let (status, body) = self.get("/api/v1/alerts?state=firing").await?;
        if status != 200 {
            bail!("the server responded with {status}");
        }
        let answer: Alerts = serde_json::from_slice(&body)?;
        Ok(answer.alerts)
    }

    /// One request; the demo polls twice a second.
    async fn get(&self, path: &str) -> Result<(u16, Vec<u8>)> {
        let address = Address::new(false, &self.web.ip().to_string(), self.web.port()).with_path(path);
        let reply = self
            .client
            .send(&address, Request::new(Bytes::new()), ANSWER_LIMIT)
            .await?;
        let status = reply.status.as_u16();
        Ok((status, reply.read(MAX_ANSWER_BYTES).await?.to_vec()))
    }

    /// Stops the server in an orderly way.
    pub(crate) async fn stop(&mut self) {
        self.process.stop(Duration::from_secs(15)).await;
    }
}
