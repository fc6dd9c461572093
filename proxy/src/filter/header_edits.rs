//! Edits of headers, of requests and of responses.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Request};

use super::chain::{Asking, Filter, Flow, Step, WayBack};
use crate::{
    body::RequestBody,
    config::{HeaderEdits, HeadersConfig},
};

/// Edits that are ready to be made. What is no header was refused with the configuration.
#[derive(Debug, Default)]
struct Edits {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    append: Vec<(HeaderName, HeaderValue)>,
}

impl Edits {
    fn new(config: &HeaderEdits) -> Edits {
        let pair = |(name, value): (&String, &String)| Some((name.parse().ok()?, value.parse().ok()?));
        Edits {
            remove: config.remove.iter().filter_map(|name| name.parse().ok()).collect(),
            set: config.set.iter().filter_map(pair).collect(),
            append: config.append.iter().filter_map(pair).collect(),
        }
    }

    fn make(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.append {
            headers.append(name, value.clone());
        }
    }

    fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.append.is_empty()
    }
}

/// Edits heads.
#[derive(Debug)]
pub(crate) struct EditHeaders {
    request: Edits,
    response: Arc<Edits>,
}

impl EditHeaders {
    pub(crate) fn new(config: &HeadersConfig) -> EditHeaders {
        EditHeaders {
            request: Edits::new(&config.request),
            response: Arc::new(Edits::new(&config.response)),
        }
    }
}

impl Filter for EditHeaders {
    fn on_request<'a>(
        &'a self,
        _asking: Asking<'a>,
        request: &'a mut Request<RequestBody>,
        back: &'a mut WayBack,
    ) -> Step<'a, Flow> {
        self.request.make(request.headers_mut());
        if !self.response.is_empty() {
            let edits = Arc::clone(&self.response);
            back.then(move |response| edits.make(response.headers_mut()));
        }
        Step::Done(Flow::Continue)
    }
}
