//! Asks another service whether a request may go on: Envoy's `ext_authz`, over gRPC or HTTP.
//!
//! Guarantees: a request that the service did not allow reaches nobody, unless the configuration says that it may when
//! there is no answer; what the service says of the caller takes the place of what the caller says.
//!
//! Source: Envoy's API v3 (`envoy.service.auth.v3`), and "External Authorization" of its documentation for HTTP.
//!
//! Wrong on purpose: bodies are not sent along, and metadata and query parameters of the answer are not used.

use std::collections::HashMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Version, header};

use super::{
    Denied, Refused,
    chain::{Asking, Filter, Flow, Step, WayBack},
    envoy_api::{
        AttributeContext, AttributeRequest, CHECK, CheckRequest, CheckResponse, EnvoyAddress, HttpRequest, Peer,
        SocketAddress, write,
    },
    remote::{Reach, Remote, Unanswered},
};
use crate::{
    body::RequestBody,
    config::{ExtAuthzConfig, ExtAuthzProtocol, may_edit},
};

/// Asks for each request.
#[derive(Debug)]
pub(crate) struct ExtAuthz {
    remote: Remote,
    protocol: ExtAuthzProtocol,
    path_prefix: String,
    /// Of requests, towards the service, over HTTP.
    told: Vec<HeaderName>,
    /// Of its answers, towards the endpoint, over HTTP.
    taken: Vec<HeaderName>,
    context: HashMap<String, String>,
}

impl ExtAuthz {
    pub(crate) fn new(config: &ExtAuthzConfig, reach: &Reach<'_>) -> ExtAuthz {
        let names = |list: &[String]| {
            let names = list.iter().filter_map(|name| name.parse().ok());
            names.filter(may_edit).collect()
        };
        let on_failure = (!config.allow_on_failure).then_some(Refused::EXT_AUTHZ_UNAVAILABLE);
        ExtAuthz {
            remote: Remote::new("ext_authz", (&config.address, config.timeout_ms), on_failure, reach),
            protocol: config.protocol,
            path_prefix: config.path_prefix.clone(),
            told: names(&config.request_headers),
            taken: names(&config.upstream_headers),
            context: config.context.clone().into_iter().collect(),
        }
    }

    async fn by_grpc(&self, asking: Asking<'_>, request: &mut Request<RequestBody>, back: &mut WayBack) -> Asked {
        let question = self.question(asking, request);
        let answer: CheckResponse = self.remote.call(CHECK, &question).await?;
        if answer.status.unwrap_or_default().code == 0 {
            if let Some(ok) = answer.ok_response {
                let headers = request.headers_mut();
                for name in ok.headers_to_remove.iter().filter_map(|name| name.parse().ok()) {
                    if may_edit(&name) {
                        headers.remove(name);
                    }
                }
                write(&ok.headers, headers);
                if !ok.response_headers_to_add.is_empty() {
                    back.then(move |response| write(&ok.response_headers_to_add, response.headers_mut()));
                }
            }
            return Ok(Flow::Continue);
        }
        let denied = answer.denied_response.unwrap_or_default();
        let mut headers = HeaderMap::new();
        write(&denied.headers, &mut headers);
        Ok(deny(
            denied.status.unwrap_or_default().code,
            headers,
            denied.body.into(),
        ))
    }

    async fn by_http(&self, asking: Asking<'_>, request: &mut Request<RequestBody>) -> Asked {
        let mut question = Request::new(RequestBody::empty());
        *question.method_mut() = request.method().clone();
        let path = format!("{}{}", self.path_prefix, path(request));
        // In origin form, so that the caller's host stays.
        *question.uri_mut() = path
            .parse()
            .map_err(|_| Unanswered::Failed(format!("`{path}` is not a path")))?;
        let headers = question.headers_mut();
        let always = [header::AUTHORIZATION];
        for name in self.told.iter().chain(&always) {
            for value in request.headers().get_all(name) {
                headers.append(name, value.clone());
            }
        }
        let host = HeaderValue::from_str(host(request)).unwrap_or(HeaderValue::from_static(""));
        headers.insert(header::HOST, host);
        if let Some(caller) = asking.caller
            && let Ok(caller) = HeaderValue::from_str(&caller.address.to_string())
        {
            headers.insert("x-forwarded-for", caller);
        }
        let answer = self.remote.exchange(question).await?;
        let status = answer.status().as_u16();
        if status == 200 {
            let headers = request.headers_mut();
            for name in &self.taken {
                headers.remove(name);
                for value in answer.headers().get_all(name) {
                    headers.append(name, value.clone());
                }
            }
            return Ok(Flow::Continue);
        }
        if answer.status().is_server_error() {
            return Err(Unanswered::Failed(format!("HTTP status {status}")));
        }
        let headers = answer.headers().iter().filter(|(name, _)| may_edit(name));
        let headers = headers.map(|(name, value)| (name.clone(), value.clone())).collect();
        Ok(deny(status.into(), headers, answer.into_body()))
    }

    fn question(&self, asking: Asking<'_>, request: &Request<RequestBody>) -> CheckRequest {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let mut headers = HashMap::new();
        for name in request.headers().keys() {
            let values: Vec<String> = request.headers().get_all(name).iter().map(text).collect();
            headers.insert(name.as_str().to_owned(), values.join(","));
        }
        let caller = asking.caller;
        let source = caller.map(|caller| Peer {
            address: Some(EnvoyAddress {
                socket_address: Some(SocketAddress {
                    address: caller.address.to_string(),
                }),
            }),
            principal: caller
                .certificate
                .as_ref()
                .and_then(|c| c.principal())
                .unwrap_or_default(),
        });
        let size = request.headers().get(header::CONTENT_LENGTH);
        let size = size.and_then(|size| size.to_str().ok()?.parse().ok());
        let http = HttpRequest {
            id: request.headers().get("x-request-id").map(text).unwrap_or_default(),
            method: request.method().to_string(),
            headers,
            path: path(request).to_owned(),
            host: host(request).to_owned(),
            scheme: if caller.is_some_and(|caller| caller.is_tls) {
                "https"
            } else {
                "http"
            }
            .to_owned(),
            size: size.unwrap_or(-1),
            protocol: match request.version() {
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            }
            .to_owned(),
        };
        CheckRequest {
            attributes: Some(AttributeContext {
                source,
                request: Some(AttributeRequest { http: Some(http) }),
                context_extensions: self.context.clone(),
            }),
        }
    }
}

type Asked = Result<Flow, Unanswered>;

/// With its query.
fn path(request: &Request<RequestBody>) -> &str {
    request.uri().path_and_query().map_or("/", |path| path.as_str())
}

fn host(request: &Request<RequestBody>) -> &str {
    let of_header = || request.headers().get(header::HOST)?.to_str().ok();
    let of_uri = request.uri().authority().map(|authority| authority.as_str());
    of_uri.or_else(of_header).unwrap_or_default()
}

/// What the caller gets: 403, unless the service says another status of a failure or a redirect.
fn deny(status: i32, headers: HeaderMap, body: Bytes) -> Flow {
    let said = u16::try_from(status).ok().filter(|status| (300..600).contains(status));
    Flow::Deny(Box::new(Denied {
        refused: Refused {
            status: said.unwrap_or(403),
            ..Refused::EXT_AUTHZ_DENIED
        },
        headers,
        body,
    }))
}

impl Filter for ExtAuthz {
    fn on_request<'a>(
        &'a self,
        asking: Asking<'a>,
        request: &'a mut Request<RequestBody>,
        back: &'a mut WayBack,
    ) -> Step<'a, Flow> {
        Step::later(async move {
            let asked = match self.protocol {
                ExtAuthzProtocol::Grpc => self.by_grpc(asking, request, back).await,
                ExtAuthzProtocol::Http => self.by_http(asking, request).await,
            };
            asked.unwrap_or_else(|error| {
                // What only the service may say, nobody says.
                for name in &self.taken {
                    request.headers_mut().remove(name);
                }
                self.remote.without_answer(&error)
            })
        })
    }

    fn sweep(&self) {
        self.remote.sweep();
    }
}
