//! `emberline demo`: the server and the sample mesh as processes of their own, a second release after a while, and the
//! verdict when it arrives.
//!
//! Guarantees: nothing here knows the verdict; it is read from the server's API, as by any client. No process outlives
//! this one: each ends when its standard input closes, even after a kill -9 of this one. A server that dies is
//! restarted on the same data.

mod mesh;
mod process;
mod report;
mod server;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use emberline_proxy::stop_requested;

use crate::cli::DemoArgs;
use mesh::SampleMesh;
use process::Directory;
use report::{Event, Reporter};
use server::Server;

/// When the second release starts serving.
const CANARY_AFTER: Duration = Duration::from_secs(20);

pub(crate) fn run(args: DemoArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(demo(args))
}

async fn demo(args: DemoArgs) -> Result<ExitCode> {
    let started = Instant::now();
    let directory = Directory::new(args.data_dir.as_deref())?;
    let mut reporter = Reporter::new(args.output);
    let mut server = Server::start(&directory, args.port).await?;
    let url = server.url();
    reporter.say(&Event::Ready { url: url.clone() });
    reporter.note(&format!("Logs and data: {}", directory.path().display()));

    let plant = (!args.no_regression).then_some(args.plant);
    let mut mesh = SampleMesh::start(&directory, server.otlp_url(), args.seed).await?;
    reporter.say(&Event::Release {
        service: "checkout".to_owned(),
        version: "v1".to_owned(),
    });
    reporter.note(&format!(
        "The mesh is up; release v2 follows in {} s.",
        CANARY_AFTER.as_secs()
    ));

    let outcome = tokio::select! {
        result = story(&args, plant, &mut server, &mut mesh, &mut reporter, started) => result,
        () = stop_requested(false) => {
            reporter.note("Stopping ...");
            Ok(())
        }
    };
    // The last windows are shipped while the server still runs.
    mesh.stop().await;
    server.stop().await;
    outcome?;
    reporter.say(&Event::Done);
    Ok(ExitCode::SUCCESS)
}

/// Everything that happens until the time is up.
async fn story(
    args: &DemoArgs,
    plant: Option<crate::cli::PlantRoute>,
    server: &mut Server,
    mesh: &mut SampleMesh,
    reporter: &mut Reporter,
    started: Instant,
) -> Result<()> {
    let end = args.seconds.map(|seconds| started + Duration::from_secs(seconds));
    let canary_at = Instant::now() + CANARY_AFTER;
    let mut released = false;
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    while end.is_none_or(|end| Instant::now() < end) {
        tick.tick().await;
        mesh.check()?;
        if server.restart_if_dead().await? {
            reporter.note("The server exited and was restarted on the same data.");
        }
        if !released && Instant::now() >= canary_at {
            released = true;
            mesh.release_v2(plant)
                .await
                .context("cannot start the second release")?;
            reporter.say(&Event::Release {
                service: "checkout".to_owned(),
                version: "v2".to_owned(),
            });
            match plant {
                Some(plant) => reporter.say(&Event::Planted {
                    service: "checkout".to_owned(),
                    route: plant.route.to_owned(),
                }),
                None => reporter.note("Release v2 has no regression: no verdict is expected."),
            }
        }
        if released {
            // A restarting server does not answer; the next tick retries.
            for alert in server.firing_alerts().await.unwrap_or_default() {
                reporter.verdict(&alert, &server.url(), started.elapsed());
            }
        }
    }
    Ok(())
}
