//! Sends one request, until an endpoint has responded or there is none left to try.
//!
//! Guarantees: if an endpoint accepts no connection, or says that it did not process the request, another one is tried,
//! each at most once; all other retries are decided in [`retry`](super::retry); all connection attempts together take
//! at most `timeouts.connect_ms`: each gets half of the time left, the last one all of it. If no endpoint accepts a
//! connection, the caller gets the first refusal.

use std::{sync::Arc, time::Duration};

use emberline_client::Speaks;
use http::Response;
use tokio::time::Instant;

use super::{
    Cluster, UpstreamError,
    dial::Times,
    endpoint::{Answer, Endpoint},
    in_flight::InFlight,
    outgoing::Outgoing,
    retry::{Next, RequestCopy, Retries, Spent},
    upstream_body::UpstreamBody,
};
use crate::{config::Timeouts, wire::transport::Transport};

/// How a request is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) timeouts: &'a Timeouts,
    pub(crate) is_http2: bool,
    /// The result of [`Cluster::key_of`].
    pub(crate) key: Option<u64>,
    /// Instead of the cluster's.
    pub(crate) retries: Option<&'a Retries>,
}

/// The endpoints tried for a request, and the time left to connect.
struct Attempts {
    key: Option<u64>,
    tried: Vec<Arc<Endpoint>>,
    /// Why the first one accepted no connection.
    refusal: Option<UpstreamError>,
    connect: Duration,
}

impl Attempts {
    /// After the first endpoint, which used its half of the time, or next to nothing.
    fn after(
        endpoint: Arc<Endpoint>,
        error: Option<&UpstreamError>,
        timeouts: &Timeouts,
        key: Option<u64>,
    ) -> Attempts {
        let used = match error {
            Some(UpstreamError::ConnectTimeout { .. }) => timeouts.connect() / 2,
            _ => Duration::ZERO,
        };
        Attempts {
            key,
            tried: vec![endpoint],
            refusal: None,
            connect: timeouts.connect().saturating_sub(used),
        }
    }

    /// The error for the caller if this was the last attempt.
    fn told(&mut self, error: UpstreamError) -> UpstreamError {
        match self.refusal.take() {
            Some(first) if error.is_connect() => first,
            _ => error,
        }
    }

    /// The next endpoint and its time to connect, after `error` at the last one.
    fn elsewhere(
        &mut self,
        cluster: &Cluster,
        error: UpstreamError,
    ) -> Result<(Arc<Endpoint>, Duration), UpstreamError> {
        let Some(next) = cluster.pick_after(self.key, &self.tried) else {
            return Err(self.told(error));
        };
        if error.is_connect() {
            self.refusal.get_or_insert(error);
        }
        self.tried.push(Arc::clone(&next));
        let is_last = self.tried.len() >= cluster.size();
        let patience = if is_last { self.connect } else { self.connect / 2 };
        Ok((next, patience))
    }

    /// Another endpoint if there is one, otherwise any; with the full time to connect.
    fn again(
        &mut self,
        cluster: &Cluster,
        retries: &Retries,
        timeouts: &Timeouts,
    ) -> Option<(Arc<Endpoint>, Duration)> {
        self.connect = timeouts.connect();
        let next = cluster.pick_after(self.key, &self.tried);
        let next = next.or_else(|| cluster.pick_after(self.key, &[]))?;
        self.tried.push(Arc::clone(&next));
        Some((next, cluster.first_patience(retries, timeouts)))
    }

    fn took(&mut self, time: Duration) {
        self.connect = self.connect.saturating_sub(time);
    }
}

/// Records a response.
fn answered(answer: Answer, mut in_flight: InFlight) -> Response<UpstreamBody> {
    if answer.is_failure() {
        in_flight.failed();
        in_flight.endpoint().failed();
    } else {
        in_flight.answered();
        in_flight.endpoint().succeeded();
    }
    UpstreamBody::of(answer, in_flight)
}

/// The time limits of an attempt, `passed` into the request.
fn times(retries: &Retries, timeouts: &Timeouts, connect: Duration, passed: Duration) -> Times {
    let left = timeouts.request().saturating_sub(passed);
    let per_try = retries.per_try().filter(|per_try| *per_try < left);
    Times {
        timeouts: *timeouts,
        connect,
        response: per_try.unwrap_or(left),
        is_per_try: per_try.is_some(),
    }
}

impl Cluster {
    /// Sends a request; `to` is called with each endpoint before it is tried.
    pub(crate) async fn send(
        &self,
        request: &mut Outgoing,
        call: Call<'_>,
        mut to: impl FnMut(&Endpoint),
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let retries = call.retries.unwrap_or(&self.retries);
        let copy = request.as_mut().and_then(|request| retries.begin(request));
        let endpoint = self.pick(call.key, call.timeouts).await?;
        to(&endpoint);
        let in_flight = self.begin(endpoint);
        let patience = self.first_patience(retries, call.timeouts);
        let times = times(retries, call.timeouts, patience, Duration::ZERO);
        match in_flight.endpoint().send(request, call.is_http2, &times).await {
            Ok(answer) if copy.is_none() || !answer.status().is_server_error() => Ok(answered(answer, in_flight)),
            // Boxed: most requests do not pay for its size.
            attempt => Box::pin(self.go_on(request, in_flight, attempt, copy, call, to)).await,
        }
    }

    fn begin(&self, endpoint: Arc<Endpoint>) -> InFlight {
        InFlight::begin(endpoint, self.decay)
    }

    /// After a first attempt that failed, or whose response may call for another.
    async fn go_on(
        &self,
        request: &mut Outgoing,
        mut in_flight: InFlight,
        mut attempt: Result<Answer, UpstreamError>,
        copy: Option<Box<RequestCopy>>,
        call: Call<'_>,
        mut to: impl FnMut(&Endpoint),
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let first = Arc::clone(in_flight.endpoint());
        let mut attempts = Attempts::after(first, attempt.as_ref().err(), call.timeouts, call.key);
        let retries = call.retries.unwrap_or(&self.retries);
        let mut retried = 0;
        loop {
            let counters = in_flight.endpoint().dial().counters();
            let next = retries.next(&attempt, request, copy.as_deref(), retried);
            let next = next.unwrap_or_else(|Spent| {
                counters.retry_budget_spent.add();
                Next::Done
            });
            let is_connect = matches!(&attempt, Err(error) if error.is_connect());
            if !is_connect && !matches!(next, Next::Done) {
                counters.retries.add();
                retried += 1;
            }
            let error = match attempt {
                Ok(answer) => {
                    let response = answered(answer, in_flight);
                    if matches!(next, Next::Done) {
                        return Ok(response);
                    }
                    None
                }
                Err(error) => {
                    in_flight.failed();
                    let endpoint = in_flight.endpoint();
                    endpoint.gave_no_answer(&error, retries.moves_on());
                    Some(error)
                }
            };
            let (endpoint, connect) = match (next, error) {
                (Next::Elsewhere, Some(error)) => attempts.elsewhere(self, error)?,
                (Next::Again, _) => {
                    let next = attempts.again(self, retries, call.timeouts);
                    next.ok_or(UpstreamError::NoDestination)?
                }
                (_, error) => return Err(attempts.told(error.unwrap_or(UpstreamError::NoDestination))),
            };
            to(&endpoint);
            in_flight = self.begin(endpoint);
            let passed = copy.as_ref().map_or(Duration::ZERO, |copy| copy.began().elapsed());
            let times = times(retries, call.timeouts, connect, passed);
            let began = Instant::now();
            attempt = in_flight.endpoint().send(request, call.is_http2, &times).await;
            if matches!(&attempt, Err(error) if error.is_connect()) {
                attempts.took(began.elapsed());
            }
        }
    }

    /// Opens a connection for bytes that are not requests.
    pub(crate) async fn connect(
        &self,
        key: Option<u64>,
        timeouts: &Timeouts,
    ) -> Result<(Transport, InFlight), UpstreamError> {
        let mut endpoint = self.pick(key, timeouts).await?;
        let mut connect = self.first_patience(&self.retries, timeouts);
        let mut attempts: Option<Attempts> = None;
        loop {
            let times = times(&self.retries, timeouts, connect, Duration::ZERO);
            let began = Instant::now();
            let mut in_flight = self.begin(Arc::clone(&endpoint));
            let error = match endpoint.dial().connect(&times, Speaks::Bytes).await {
                Ok(stream) => {
                    in_flight.answered();
                    endpoint.succeeded();
                    return Ok((stream, in_flight));
                }
                Err(error) => error,
            };
            in_flight.failed();
            endpoint.gave_no_answer(&error, self.retries.moves_on());
            if !self.retries.moves_on() {
                return Err(error);
            }
            let attempts = match &mut attempts {
                Some(attempts) => {
                    attempts.took(began.elapsed());
                    attempts
                }
                None => attempts.insert(Attempts::after(endpoint, Some(&error), timeouts, key)),
            };
            (endpoint, connect) = attempts.elsewhere(self, error)?;
        }
    }

    /// Time to connect to the first endpoint.
    fn first_patience(&self, retries: &Retries, timeouts: &Timeouts) -> Duration {
        if retries.moves_on() && self.size() > 1 {
            timeouts.connect() / 2
        } else {
            timeouts.connect()
        }
    }
}
