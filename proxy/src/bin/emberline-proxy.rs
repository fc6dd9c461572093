//! The proxy as a program: arguments, log, signals.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use emberline_proxy::{Extensions, HAND_OVER, OtherProcess, Proxy, Reloaded, config, stdin_closed};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Floods leave glibc's heaps fragmented; this allocator returns memory, as in the server. The library links none: an
/// application that embeds it keeps its own.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Sidecar proxy: forwards a workload's requests, samples its own stacks, and reports both to the server.
#[derive(Debug, Parser)]
#[command(name = "emberline-proxy", version)]
struct Arguments {
    /// Configuration file (YAML), reloaded on change and on SIGHUP.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and exit.
    #[arg(long)]
    check: bool,
    /// Take over the listeners of the proxy that runs as this process: same addresses, same user. It stops accepting when
    /// this one serves, keeps the connections it has, and exits with the last of them.
    #[arg(long, value_name = "PID")]
    take_over: Option<i32>,
    /// Exit when standard input is closed, so that the proxy does not outlive its parent.
    #[arg(long)]
    exit_on_stdin_close: bool,
}

/// How often a proxy that was handed over looks whether a connection is left.
const NOTICE: std::time::Duration = std::time::Duration::from_millis(200);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("EMBERLINE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    let config = match config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    if arguments.check {
        println!("{}: configuration is valid", arguments.config.display());
        return ExitCode::SUCCESS;
    }
    match run(&arguments, config) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cannot start emberline-proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, config: config::Config) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut interrupt, mut hang_up, mut handed_over) = runtime.block_on(async {
        // Before the start, so that no signal meets a process that is half there.
        Ok::<_, std::io::Error>((
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::from_raw(HAND_OVER))?,
        ))
    })?;
    let extensions = Extensions {
        take_over: arguments.take_over.map(OtherProcess::find).transpose()?,
        ..Extensions::default()
    };
    let proxy = Proxy::start_with(config, Some(&arguments.config), extensions)?;
    let addresses = proxy.addresses();
    tracing::info!(admin = %addresses.admin, inbound = ?addresses.inbound, outbound = ?addresses.outbound, "running");
    let stdin_closed = stdin_closed();
    let mut is_handed_over = false;
    runtime.block_on(async {
        tokio::pin!(stdin_closed);
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = &mut stdin_closed, if arguments.exit_on_stdin_close => break,
                _ = handed_over.recv() => {
                    tracing::info!("another process takes over; connections that are open go on here");
                    proxy.hand_over();
                    is_handed_over = true;
                }
                () = tokio::time::sleep(NOTICE), if is_handed_over => if proxy.is_left() { break },
                _ = hang_up.recv() => {
                    if proxy.reload() == Reloaded::NoFile {
                        tracing::warn!("no configuration file to reload");
                    }
                }
            }
        }
    });
    tracing::info!("stopping: draining requests in flight");
    let stopping = std::thread::spawn(move || proxy.stop());
    runtime.block_on(async {
        // A second signal ends the wait.
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                () = tokio::time::sleep(std::time::Duration::from_millis(20)) => if stopping.is_finished() { return },
            }
        }
    });
    if !stopping.is_finished() {
        tracing::warn!("stopped immediately: requests in flight were aborted");
        return Ok(ExitCode::FAILURE);
    }
    match stopping.join() {
        Ok(report) => {
            tracing::info!(
                drained = report.drained,
                acked = report.acked,
                unacked = report.unacked,
                spooled = report.spooled,
                "stopped"
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(_) => Ok(ExitCode::FAILURE),
    }
}
