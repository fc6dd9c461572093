//! Whether a request is retried, by configuration (`retries`).
//!
//! Guarantees: a request that reached no endpoint goes to another one, at no cost to the budget; one that may have been
//! processed is retried only if configured, the method is idempotent (or all are configured), the body is available and
//! the budget allows it: over the last ten seconds, retries are `budget_percent` of the requests plus
//! `budget_min_per_second`, as in Finagle and Linkerd. An endpoint that was tried is not tried again while another one
//! is left.
//!
//! Wrong on purpose: each worker has its own budget; retries follow at once, because they go to another endpoint.

use std::sync::Arc;

use http::{HeaderMap, Method, Request, Uri, Version};
use http_body::Body;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    UpstreamError,
    endpoint::Answer,
    outgoing::Outgoing,
    replay::{KEPT_BYTES, is_idempotent},
};
use crate::{
    body::{KeptBody, RequestBody},
    config::{RetryConfig, RetryOn},
};

/// How many seconds the budget covers.
const WINDOW: u64 = 10;

/// The configuration, and what has been spent.
#[derive(Debug)]
pub(crate) struct Retries {
    config: RetryConfig,
    /// Some condition is configured for requests that may have been processed.
    needs_copies: bool,
    since: Instant,
    spent: Mutex<[Second; WINDOW as usize]>,
}

/// The requests of one second.
#[derive(Debug, Default, Clone, Copy)]
struct Second {
    number: u64,
    requests: u64,
    retries: u64,
}

/// What is needed to send a request again.
#[derive(Debug)]
pub(super) struct RequestCopy {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    body: Option<Arc<KeptBody>>,
    began: Instant,
}

impl RequestCopy {
    /// The request; `None` if its body is too long, or was not sent completely.
    fn request(&self) -> Option<Request<RequestBody>> {
        let body = match &self.body {
            Some(kept) => kept.again()?,
            None => RequestBody::empty(),
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers.clone();
        Some(request)
    }

    /// When the request began.
    pub(super) fn began(&self) -> Instant {
        self.began
    }
}

/// What happens after an attempt.
pub(super) enum Next {
    /// Its result goes to the caller.
    Done,
    /// The request, which did not reach this endpoint, goes to another one.
    Elsewhere,
    /// It goes to another endpoint, or to the same one again if there is no other.
    Again,
}

impl Retries {
    pub(crate) fn new(config: RetryConfig) -> Retries {
        let reached_nobody = [RetryOn::ConnectFailure, RetryOn::Unprocessed];
        Retries {
            needs_copies: config.attempts > 0 && config.on.iter().any(|on| !reached_nobody.contains(on)),
            config,
            since: Instant::now(),
            spent: Mutex::default(),
        }
    }

    /// Time for the head of a response, if an attempt may take less than the whole request.
    pub(super) fn per_try(&self) -> Option<std::time::Duration> {
        self.config.per_try()
    }

    /// Whether a request without a connection goes to another endpoint.
    pub(super) fn moves_on(&self) -> bool {
        self.config.on.contains(&RetryOn::ConnectFailure)
    }

    /// Counts a request, and copies it if it may be retried.
    pub(super) fn begin(&self, request: &mut Request<RequestBody>) -> Option<Box<RequestCopy>> {
        if !self.needs_copies {
            return None;
        }
        self.second(|second| second.requests += 1);
        if !self.config.non_idempotent && !is_idempotent(request.method()) {
            return None;
        }
        Some(Box::new(RequestCopy {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: request.headers().clone(),
            body: (!request.body().is_end_stream()).then(|| request.body_mut().keep(KEPT_BYTES)),
            began: Instant::now(),
        }))
    }

    /// What happens after an attempt and `retries` earlier ones that count towards the limit; if it continues, the
    /// request is in `request`. `Err` when the budget is spent.
    pub(super) fn next(
        &self,
        attempt: &Result<Answer, UpstreamError>,
        request: &mut Outgoing,
        copy: Option<&RequestCopy>,
        retries: u32,
    ) -> Result<Next, Spent> {
        let on = match attempt {
            Ok(answer) => RetryOn::Status(answer.status().as_u16()),
            Err(error) if request.is_some() => {
                let is_connect = error.is_connect();
                let on = if is_connect {
                    RetryOn::ConnectFailure
                } else {
                    RetryOn::Unprocessed
                };
                let is_wanted = self.config.on.contains(&on) && (is_connect || retries < self.config.attempts);
                return Ok(if is_wanted { Next::Elsewhere } else { Next::Done });
            }
            Err(UpstreamError::Closed { .. } | UpstreamError::Reset { .. }) => RetryOn::Reset,
            Err(UpstreamError::Timeout { .. }) => RetryOn::Timeout,
            Err(_) => return Ok(Next::Done),
        };
        if retries >= self.config.attempts || !self.config.on.contains(&on) {
            return Ok(Next::Done);
        }
        let Some(again) = copy.and_then(RequestCopy::request) else {
            return Ok(Next::Done);
        };
        if self.withdraw() {
            *request = Some(again);
            Ok(Next::Again)
        } else {
            Err(Spent)
        }
    }

    fn second<T>(&self, change: impl FnOnce(&mut Second) -> T) -> T {
        let number = self.since.elapsed().as_secs();
        let mut spent = self.spent.lock();
        let second = &mut spent[(number % WINDOW) as usize];
        if second.number != number {
            *second = Second {
                number,
                ..Second::default()
            };
        }
        change(second)
    }

    /// Takes one retry out of the budget.
    fn withdraw(&self) -> bool {
        let now = self.since.elapsed().as_secs();
        let (mut requests, mut retries) = (0, 0);
        for second in self.spent.lock().iter().filter(|second| second.number + WINDOW > now) {
            requests += second.requests;
            retries += second.retries;
        }
        let budget = requests * u64::from(self.config.budget_percent) / 100
            + WINDOW * u64::from(self.config.budget_min_per_second);
        let is_left = retries < budget;
        if is_left {
            self.second(|second| second.retries += 1);
        }
        is_left
    }
}

/// The budget allows no retry.
#[derive(Debug)]
pub(super) struct Spent;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn retries(config: &RetryConfig) -> Retries {
        Retries::new(RetryConfig {
            attempts: 1,
            on: vec![RetryOn::Reset],
            ..config.clone()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_is_a_share_of_the_requests_of_ten_seconds() {
        let retries = retries(&RetryConfig {
            budget_percent: 20,
            budget_min_per_second: 0,
            ..RetryConfig::default()
        });
        let withdrawn = || (0..100).take_while(|_| retries.withdraw()).count();
        assert_eq!(withdrawn(), 0);
        for _ in 0..50 {
            retries.begin(&mut Request::new(RequestBody::empty()));
        }
        assert_eq!(withdrawn(), 10);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(withdrawn(), 0);
        tokio::time::advance(Duration::from_secs(2)).await;
        for _ in 0..10 {
            retries.begin(&mut Request::new(RequestBody::empty()));
        }
        assert_eq!(withdrawn(), 2, "what is older no longer counts");
    }

    #[tokio::test(start_paused = true)]
    async fn few_requests_have_retries_too() {
        let retries = retries(&RetryConfig::default());
        assert_eq!((0..1_000).take_while(|_| retries.withdraw()).count(), 100);
    }

    #[test]
    fn only_what_may_be_sent_twice_is_copied() {
        let request = |method: Method| {
            let mut request = Request::new(RequestBody::from("body"));
            *request.method_mut() = method;
            request
        };
        let careful = retries(&RetryConfig::default());
        assert!(careful.begin(&mut request(Method::POST)).is_none());
        let copy = careful.begin(&mut request(Method::PUT)).unwrap();
        assert!(copy.request().is_none(), "the body has not passed");
        let bold = retries(&RetryConfig {
            non_idempotent: true,
            ..RetryConfig::default()
        });
        assert!(bold.begin(&mut request(Method::POST)).is_some());
        assert!(
            Retries::new(RetryConfig::default())
                .begin(&mut request(Method::GET))
                .is_none()
        );
    }
}
