//! Asks a rate limit service, which counts for all proxies together: Envoy's `rls.v3`.
//!
//! Guarantee: a request is asked about once, with all its descriptors; where none applies to it, nobody is asked.
//!
//! Source: Envoy's API v3 (`envoy.service.ratelimit.v3`).

use bytes::Bytes;
use http::{HeaderName, Request};

use super::{
    Denied, Refused,
    chain::{Asking, Filter, Flow, Step, WayBack},
    envoy_api::{
        EnvoyHeader, OVER_LIMIT, RateLimitDescriptor, RateLimitEntry, RateLimitRequest, RateLimitResponse,
        SHOULD_RATE_LIMIT,
    },
    remote::{Reach, Remote},
};
use crate::{
    body::RequestBody,
    config::{RateLimitEntryConfig, RateLimitServiceConfig, RateLimitValue},
};

/// Asks for each request.
#[derive(Debug)]
pub(crate) struct RateLimitService {
    remote: Remote,
    domain: String,
    descriptors: Vec<Vec<Entry>>,
}

/// One part of a descriptor.
#[derive(Debug)]
struct Entry {
    key: String,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Text(String),
    Header(Option<HeaderName>),
    Of(RateLimitValue),
}

impl Entry {
    fn new(config: &RateLimitEntryConfig) -> Entry {
        let value = match (&config.value, &config.header, config.of) {
            (_, _, Some(of)) => Value::Of(of),
            (_, Some(name), None) => Value::Header(name.parse().ok()),
            (value, None, None) => Value::Text(value.clone().unwrap_or_default()),
        };
        Entry {
            key: config.key.clone(),
            value,
        }
    }

    /// `None` where the request has no such value.
    fn of(&self, asking: Asking<'_>, request: &Request<RequestBody>) -> Option<RateLimitEntry> {
        let value = match &self.value {
            Value::Text(text) => text.clone(),
            Value::Header(name) => {
                String::from_utf8_lossy(request.headers().get(name.as_ref()?)?.as_bytes()).into_owned()
            }
            Value::Of(RateLimitValue::RemoteAddress) => asking.caller?.address.to_string(),
            Value::Of(RateLimitValue::Method) => request.method().to_string(),
            Value::Of(RateLimitValue::Path) => request.uri().path().to_owned(),
        };
        Some(RateLimitEntry {
            key: self.key.clone(),
            value,
        })
    }
}

impl RateLimitService {
    pub(crate) fn new(config: &RateLimitServiceConfig, reach: &Reach<'_>) -> RateLimitService {
        let entries = |list: &Vec<RateLimitEntryConfig>| list.iter().map(Entry::new).collect();
        let on_failure = (!config.allow_on_failure).then_some(Refused::RATE_LIMIT_UNAVAILABLE);
        let place = (&config.address, config.timeout_ms);
        RateLimitService {
            remote: Remote::new("rate_limit_service", place, on_failure, reach),
            domain: config.domain.clone(),
            descriptors: config.descriptors.iter().map(entries).collect(),
        }
    }
}

impl Filter for RateLimitService {
    fn on_request<'a>(
        &'a self,
        asking: Asking<'a>,
        request: &'a mut Request<RequestBody>,
        back: &'a mut WayBack,
    ) -> Step<'a, Flow> {
        let descriptors = self.descriptors.iter().filter_map(|entries| {
            let entries = entries
                .iter()
                .map(|entry| entry.of(asking, request))
                .collect::<Option<_>>();
            Some(RateLimitDescriptor { entries: entries? })
        });
        let descriptors: Vec<_> = descriptors.collect();
        if descriptors.is_empty() {
            return Step::Done(Flow::Continue);
        }
        let question = RateLimitRequest {
            domain: self.domain.clone(),
            descriptors,
        };
        Step::later(async move {
            let asked = self
                .remote
                .call::<RateLimitResponse>(SHOULD_RATE_LIMIT, &question)
                .await;
            let answer = match asked {
                Ok(answer) => answer,
                Err(error) => return self.remote.without_answer(&error),
            };
            let of_response = answer.response_headers_to_add;
            if answer.overall_code == OVER_LIMIT {
                return Flow::Deny(Box::new(Denied {
                    refused: Refused::RATE_LIMITED,
                    headers: of_response.iter().filter_map(EnvoyHeader::parse).collect(),
                    body: Bytes::from_static(b"more requests than the rate limit service allows\n"),
                }));
            }
            let of_request = answer.request_headers_to_add.iter();
            request.headers_mut().extend(of_request.filter_map(EnvoyHeader::parse));
            if !of_response.is_empty() {
                back.then(move |response| {
                    let headers = of_response.iter().filter_map(EnvoyHeader::parse);
                    response.headers_mut().extend(headers);
                });
            }
            Flow::Continue
        })
    }

    fn sweep(&self) {
        self.remote.sweep();
    }
}
