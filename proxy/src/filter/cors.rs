//! Cross-origin resource sharing.
//!
//! Guarantees: only origins that are listed are told that they may call; `vary: origin` is added where the answer depends on it; what the
//! application itself says about it is replaced for those origins and left alone for others.
//!
//! Source: Fetch standard, "HTTP CORS protocol".

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
    },
};

use super::chain::{Asking, Filter, Flow, Step, WayBack};
use crate::{body::RequestBody, config::CorsConfig};

/// Answers preflight requests, and says to pages that they may read.
#[derive(Debug)]
pub(crate) struct Cors {
    origins: Vec<HeaderValue>,
    of_preflight: Vec<(HeaderName, HeaderValue)>,
    of_response: Vec<(HeaderName, HeaderValue)>,
}

impl Cors {
    pub(crate) fn new(config: &CorsConfig) -> Cors {
        let list = |name: HeaderName, items: &[String]| {
            let value = HeaderValue::from_str(&items.join(", ")).ok()?;
            (!items.is_empty()).then_some((name, value))
        };
        let credentials = (ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        let credentials = config.credentials.then_some(credentials);
        let max_age = (ACCESS_CONTROL_MAX_AGE, HeaderValue::from(config.max_age_seconds));
        Cors {
            origins: config.origins.iter().filter_map(|origin| origin.parse().ok()).collect(),
            of_preflight: [
                list(ACCESS_CONTROL_ALLOW_METHODS, &config.methods),
                list(ACCESS_CONTROL_ALLOW_HEADERS, &config.headers),
                credentials.clone(),
                Some(max_age),
            ]
            .into_iter()
            .flatten()
            .collect(),
            of_response: [
                list(ACCESS_CONTROL_EXPOSE_HEADERS, &config.exposed_headers),
                credentials,
            ]
            .into_iter()
            .flatten()
            .collect(),
        }
    }

    /// What an origin is told: itself, or everybody; `None` where it may not call.
    fn allowed(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        let listed = self.origins.iter().find(|listed| *listed == origin || *listed == "*");
        listed.cloned()
    }
}

/// Says that an origin may read.
fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    if origin != "*" {
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
}

impl Filter for Cors {
    fn on_request<'a>(
        &'a self,
        _asking: Asking<'a>,
        request: &'a mut Request<RequestBody>,
        back: &'a mut WayBack,
    ) -> Step<'a, Flow> {
        let origin = request.headers().get(ORIGIN).and_then(|origin| self.allowed(origin));
        let Some(origin) = origin else {
            return Step::Done(Flow::Continue);
        };
        let is_preflight =
            request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if is_preflight {
            let mut head = Response::new(()).into_parts().0;
            head.status = StatusCode::NO_CONTENT;
            head.headers.extend(self.of_preflight.iter().cloned());
            allow(&mut head.headers, origin);
            return Step::Done(Flow::Respond(Box::new(head)));
        }
        let more = self.of_response.clone();
        back.then(move |response| {
            let headers = response.headers_mut();
            for (name, value) in more {
                headers.insert(name, value);
            }
            allow(headers, origin);
        });
        Step::Done(Flow::Continue)
    }
}
