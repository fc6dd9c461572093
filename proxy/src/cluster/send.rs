//! One request, until an endpoint has answered or there is nobody left to ask.
//!
//! Guarantees: where an endpoint accepts no connection, or says that it did nothing with the request, another one is tried,
//! each at most once; all attempts to connect together take at most `timeouts.connect_ms`: each has half of the time that is
//! left, the last one all of it. If no endpoint accepts a connection the first refusal is what the caller is told.

use std::{sync::Arc, time::Duration};

use http::{Request, Response};
use tokio::{net::TcpStream, time::Instant};

use super::{
    Cluster, UpstreamError,
    dial::Times,
    endpoint::{Answer, Endpoint},
    error::Failed,
    in_flight::InFlight,
    upstream_body::UpstreamBody,
};
use crate::{body::RequestBody, config::Timeouts};

/// How a request is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) timeouts: &'a Timeouts,
    pub(crate) is_http2: bool,
    /// What [`Cluster::key_of`] says.
    pub(crate) key: Option<u64>,
}

/// The endpoints that a request was tried at, and what is left of its time to connect.
struct Attempts {
    key: Option<u64>,
    tried: Vec<Arc<Endpoint>>,
    /// Why the first one failed, as long as none accepted a connection.
    refusal: Option<UpstreamError>,
    connect: Duration,
}

impl Attempts {
    /// After the first one, which had half of the time and used it, or next to nothing of it.
    fn after(endpoint: Arc<Endpoint>, error: &UpstreamError, timeouts: &Timeouts, key: Option<u64>) -> Attempts {
        let used = match error {
            UpstreamError::ConnectTimeout { .. } => timeouts.connect() / 2,
            _ => Duration::ZERO,
        };
        Attempts {
            key,
            tried: vec![endpoint],
            refusal: None,
            connect: timeouts.connect().saturating_sub(used),
        }
    }

    /// The next endpoint and its time to connect, after `error` at the last one.
    fn next(&mut self, cluster: &Cluster, error: UpstreamError) -> Result<(Arc<Endpoint>, Duration), UpstreamError> {
        let error = if error.is_connect() {
            self.refusal.take().unwrap_or(error)
        } else {
            error
        };
        let Some(next) = cluster.pick_after(self.key, &self.tried) else {
            return Err(error);
        };
        self.refusal = error.is_connect().then_some(error);
        self.tried.push(Arc::clone(&next));
        let is_last = self.tried.len() >= cluster.size();
        let patience = if is_last { self.connect } else { self.connect / 2 };
        Ok((next, patience))
    }

    fn took(&mut self, time: Duration) {
        self.connect = self.connect.saturating_sub(time);
    }
}

/// Takes note of a response.
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

impl Cluster {
    /// Sends a request; `to` learns of each endpoint that is tried, before it is.
    pub(crate) async fn send(
        &self,
        request: Request<RequestBody>,
        call: Call<'_>,
        mut to: impl FnMut(&Endpoint),
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let endpoint = self.pick(call.key, call.timeouts).await?;
        to(&endpoint);
        let times = Times {
            timeouts: *call.timeouts,
            connect: self.first_patience(call.timeouts),
        };
        let in_flight = self.begin(endpoint);
        match in_flight.endpoint().send(request, call.is_http2, &times).await {
            Ok(answer) => Ok(answered(answer, in_flight)),
            // Boxed: most requests do not pay for its size.
            Err(failed) => Box::pin(self.send_elsewhere(in_flight, failed, call, to)).await,
        }
    }

    fn begin(&self, endpoint: Arc<Endpoint>) -> InFlight {
        InFlight::begin(endpoint, self.decay)
    }

    async fn send_elsewhere(
        &self,
        mut in_flight: InFlight,
        mut failed: Failed,
        call: Call<'_>,
        mut to: impl FnMut(&Endpoint),
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let first = Arc::clone(in_flight.endpoint());
        let mut attempts = Attempts::after(first, &failed.error, call.timeouts, call.key);
        loop {
            in_flight.failed();
            in_flight.endpoint().gave_no_answer(&failed.error);
            let Some(request) = failed.again else {
                return Err(failed.error);
            };
            let (endpoint, connect) = attempts.next(self, failed.error)?;
            to(&endpoint);
            in_flight = self.begin(endpoint);
            let times = Times {
                timeouts: *call.timeouts,
                connect,
            };
            let began = Instant::now();
            match in_flight.endpoint().send(*request, call.is_http2, &times).await {
                Ok(answer) => return Ok(answered(answer, in_flight)),
                Err(next) => failed = next,
            }
            if failed.error.is_connect() {
                attempts.took(began.elapsed());
            }
        }
    }

    /// Opens a connection for bytes that are no requests.
    pub(crate) async fn connect(
        &self,
        key: Option<u64>,
        timeouts: &Timeouts,
    ) -> Result<(TcpStream, InFlight), UpstreamError> {
        let mut endpoint = self.pick(key, timeouts).await?;
        let mut connect = self.first_patience(timeouts);
        let mut attempts: Option<Attempts> = None;
        loop {
            let times = Times {
                timeouts: *timeouts,
                connect,
            };
            let began = Instant::now();
            let mut in_flight = self.begin(Arc::clone(&endpoint));
            let error = match endpoint.dial().connect(&times).await {
                Ok(stream) => {
                    in_flight.answered();
                    endpoint.succeeded();
                    return Ok((stream, in_flight));
                }
                Err(error) => error,
            };
            in_flight.failed();
            endpoint.gave_no_answer(&error);
            let attempts = match &mut attempts {
                Some(attempts) => {
                    attempts.took(began.elapsed());
                    attempts
                }
                None => attempts.insert(Attempts::after(endpoint, &error, timeouts, key)),
            };
            (endpoint, connect) = attempts.next(self, error)?;
        }
    }

    /// Time to connect to the first endpoint.
    fn first_patience(&self, timeouts: &Timeouts) -> Duration {
        if self.size() > 1 {
            timeouts.connect() / 2
        } else {
            timeouts.connect()
        }
    }
}
