//! An open-loop load generator: requests are sent at the times of a seeded schedule, whether or not earlier ones were
//! answered, so that a slow service cannot slow down its own load. Times between requests are exponential.

use std::{cell::RefCell, net::SocketAddr, path::PathBuf, rc::Rc, time::Duration};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use emberline_proxy::stop_requested;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{ledger::Ledger, work::Numbers};

/// One route and its request rate.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Template with one parameter, for example `/quote/{id}`.
    pub route: String,
    /// Requests per second, on average.
    pub rate: f64,
}

impl std::str::FromStr for Stream {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Stream> {
        let (route, rate) = text
            .rsplit_once('=')
            .context("use ROUTE=RATE, for example /quote/{id}=10")?;
        let rate: f64 = rate
            .parse()
            .with_context(|| format!("`{rate}` is not a number of requests per second"))?;
        if !(rate > 0.0 && rate <= 10_000.0 && route.starts_with('/')) {
            bail!("`{text}`: the route must begin with / and the rate must be between 0 and 10000");
        }
        Ok(Stream {
            route: route.to_owned(),
            rate,
        })
    }
}

/// What to send, where, and where to write the results.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The server.
    pub target: SocketAddr,
    /// The routes.
    pub streams: Vec<Stream>,
    /// Seed of schedules and ids.
    pub seed: u64,
    /// Path of the ledger: written about every second, and completely at the end.
    pub ledger: PathBuf,
    /// Length of the run; `None` until stopped.
    pub duration: Option<Duration>,
    /// A request without a response for this long has failed.
    pub patience: Duration,
    /// Exit when standard input is closed.
    pub exit_on_stdin_close: bool,
}

type Http = Client<HttpConnector, Empty<Bytes>>;

/// Runs until told to stop, then waits for what is in flight and writes the complete ledger. Must run on a
/// [`tokio::task::LocalSet`].
pub async fn run(options: LoadOptions) -> Result<Ledger> {
    let client: Http = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .build_http();
    let ledger = Rc::new(RefCell::new(Ledger::default()));
    let options = Rc::new(options);
    let mut streams = tokio::task::JoinSet::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    for (at, stream) in options.streams.iter().enumerate() {
        let numbers = Numbers::new(options.seed.wrapping_mul(1_000_003).wrapping_add(at as u64));
        let parts = (Rc::clone(&options), Rc::clone(&ledger), client.clone(), stopped.clone());
        streams.spawn_local(run_stream(stream.clone(), numbers, parts.0, parts.1, parts.2, parts.3));
    }
    let end = async {
        match options.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let report = async {
        loop {
            tick.tick().await;
            if let Err(error) = ledger.borrow().write(&options.ledger) {
                break error;
            }
        }
    };
    tokio::select! {
        () = end => {}
        () = stop_requested(options.exit_on_stdin_close) => {}
        error = report => return Err(error),
    }
    stop.send_replace(true);
    while let Some(joined) = streams.join_next().await {
        joined.context("a stream of requests ended early")?;
    }
    let mut whole = ledger.borrow().clone();
    whole.complete = true;
    whole.write(&options.ledger)?;
    Ok(whole)
}

async fn run_stream(
    stream: Stream,
    mut numbers: Numbers,
    options: Rc<LoadOptions>,
    ledger: Rc<RefCell<Ledger>>,
    client: Http,
    mut stopped: tokio::sync::watch::Receiver<bool>,
) {
    let mut in_flight = tokio::task::JoinSet::new();
    let mut next = Instant::now();
    loop {
        next += Duration::from_secs_f64(-(1.0 - numbers.fraction()).ln() / stream.rate);
        tokio::select! {
            () = sleep_until(next) => {}
            _ = stopped.wait_for(|stop| *stop) => break,
        }
        let path = with_parameter(&stream.route, numbers.below(100_000));
        ledger.borrow_mut().routes.entry(stream.route.clone()).or_default().sent += 1;
        let (route, options, ledger, client) = (stream.route.clone(), options.clone(), ledger.clone(), client.clone());
        in_flight.spawn_local(async move {
            let answer = timeout(options.patience, ask(&client, options.target, &path)).await;
            let mut ledger = ledger.borrow_mut();
            let counts = ledger.routes.entry(route).or_default();
            match answer {
                Ok(Ok(status)) => *counts.answered.entry(status.as_u16()).or_default() += 1,
                Ok(Err(_)) | Err(_) => counts.failed += 1,
            }
        });
        while in_flight.try_join_next().is_some() {}
    }
    while in_flight.join_next().await.is_some() {}
}

async fn ask(client: &Http, target: SocketAddr, path: &str) -> Result<StatusCode> {
    let request = Request::get(format!("http://{target}{path}")).body(Empty::new())?;
    let response = client.request(request).await?;
    let status = response.status();
    response.into_body().collect().await?;
    Ok(status)
}

/// Fills the only `{parameter}` of a template.
fn with_parameter(route: &str, value: u64) -> String {
    match (route.find('{'), route.find('}')) {
        (Some(from), Some(to)) if from < to => format!("{}{value}{}", &route[..from], &route[to + 1..]),
        _ => route.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_read_and_bad_ones_named() {
        let stream: Stream = "/quote/{id}=2.5".parse().unwrap();
        assert_eq!((stream.route.as_str(), stream.rate), ("/quote/{id}", 2.5));
        assert_eq!(with_parameter("/quote/{id}/x", 7), "/quote/7/x");
        for bad in ["/quote", "quote=1", "/a=0", "/a=x"] {
            assert!(bad.parse::<Stream>().is_err(), "{bad}");
        }
    }
}
