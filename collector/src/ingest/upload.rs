//! Plain uploads of profiles, on the OTLP/HTTP port.
//!
//! `POST /api/ingest?service=S&version=V` accepts a file as its body, in any of the formats of
//! [`emberline_model::formats`], optionally gzipped. Further parameters: `namespace`, `instance`, `route`; `format` to
//! skip detection; `kind` and `sample_rate` for numbers without a unit; `name` for the first part of the profile type;
//! `from` and `until` (seconds since the Unix epoch, or finer) to override the file's own time, or `time=received` for
//! a recording that is filed as if it had just ended; `cumulative=alloc_space,alloc_objects` for types that count from
//! the start of their process (which `instance` must name): their increase since its last upload is stored, and the
//! first upload only sets the base.
//!
//! Guarantees: those of [`crate::ingest`]; the response says in JSON what was stored and what was not; an unknown
//! parameter is refused, because a misspelt `version` would file a release under another name.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    body::Body,
    extract::{Query, State},
    http::{HeaderValue, Request, Response, Uri, header},
};
use emberline_model::{
    ProfileType, Side,
    formats::{self, FORMAT_NAMES, Format, Reading, Sender, Times},
    otlp::Decoded,
    workload::{UNKNOWN, clean_name},
};

use serde::{Deserialize, Serialize};

use super::{
    Accepted, Ingest, Payload, body,
    left_out::{self, Told},
    rejection::Rejection,
};
use crate::cumulative::Looking;

/// The parameters of a request; the last one of a name counts.
pub(super) type Parameters = BTreeMap<String, String>;

const KNOWN: [&str; 13] = [
    "service",
    "version",
    "namespace",
    "instance",
    "route",
    "format",
    "kind",
    "sample_rate",
    "name",
    "from",
    "until",
    "time",
    "cumulative",
];

/// Accepts one file.
pub(super) async fn upload(State(ingest): State<Arc<Ingest>>, request: Request<Body>) -> Response<Body> {
    let asked = Asked::parse(request.uri());
    let taken = match asked {
        Ok(asked) => asked.take(&ingest, request).await,
        Err(refused) => {
            ingest.count_refusal("profiles", &refused);
            Err(refused)
        }
    };
    match taken {
        Ok(accepted) => kept(&accepted),
        Err(refused) => refused.to_connect(),
    }
}

/// What was stored of a file: the response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored<'r> {
    /// Windows.
    pub windows: u64,
    /// Profiles.
    pub profiles: u64,
    /// Samples.
    pub samples: u64,
    /// What was dropped.
    pub left_out: Vec<Told<'r>>,
    /// What was changed.
    pub changed: Vec<Told<'r>>,
}

/// The response for what was stored.
pub(super) fn kept(accepted: &Accepted) -> Response<Body> {
    let stored = Stored {
        windows: accepted.windows as u64,
        profiles: accepted.profiles as u64,
        samples: accepted.samples as u64,
        left_out: left_out::told(&accepted.outcome.rejected),
        changed: left_out::told(&accepted.outcome.changed),
    };
    // Text and numbers: JSON can represent all of it.
    let mut response = Response::new(Body::from(serde_json::to_vec(&stored).unwrap_or_default()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    left_out::in_header(accepted, response.headers_mut());
    response
}

/// Parses a URL's query.
pub(super) fn parameters(uri: &Uri) -> Result<Parameters, Rejection> {
    let parsed = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| Rejection::Parameter {
        name: "query",
        reason: error.to_string(),
    })?;
    Ok(parsed.0.into_iter().collect())
}

/// Parses a sampling rate in samples per second.
pub(super) fn rate(parameters: &Parameters, name: &'static str) -> Result<Option<u32>, Rejection> {
    let Some(text) = parameters.get(name) else {
        return Ok(None);
    };
    let rate = text.parse().ok().filter(|rate| (1..=10_000_000).contains(rate));
    rate.map(Some).ok_or_else(|| Rejection::Parameter {
        name,
        reason: format!("`{}` is not a rate from 1 to 10000000 Hz", shortened(text)),
    })
}

/// From and until, if given: seconds since the Unix epoch, or milli-, micro- or nanoseconds.
pub(super) fn times(parameters: &Parameters) -> Result<Times, Rejection> {
    let instant = |name: &'static str| -> Result<Option<i64>, Rejection> {
        let Some(text) = parameters.get(name) else {
            return Ok(None);
        };
        let wrong = || Rejection::Parameter {
            name,
            reason: format!("`{}` is not a Unix timestamp", shortened(text)),
        };
        let number: i64 = text.parse().map_err(|_| wrong())?;
        // From 1973 to 5138 the magnitude determines the unit.
        let factor = match number {
            0..100_000_000_000 => 1_000_000_000,
            100_000_000_000..100_000_000_000_000 => 1_000_000,
            100_000_000_000_000..100_000_000_000_000_000 => 1_000,
            100_000_000_000_000_000.. => 1,
            _ => return Err(wrong()),
        };
        number.checked_mul(factor).map(Some).ok_or_else(wrong)
    };
    match (instant("from")?, instant("until")?) {
        (None, None) => Ok(Times::OfFile),
        (Some(from_unix_ns), Some(until_unix_ns)) if from_unix_ns <= until_unix_ns => Ok(Times::Given {
            from_unix_ns,
            until_unix_ns,
        }),
        (Some(_), Some(_)) => Err(Rejection::Parameter {
            name: "until",
            reason: "it is before `from`".to_owned(),
        }),
        _ => Err(Rejection::Parameter {
            name: "from",
            reason: "`from` and `until` must be set together".to_owned(),
        }),
    }
}

pub(super) fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

/// The format with this name, or a refusal that lists the supported ones.
pub(super) fn format_of(name: &str) -> Result<Format, Rejection> {
    Format::of_name(name).ok_or_else(|| Rejection::Format {
        format: shortened(name),
        accepted: FORMAT_NAMES,
    })
}

/// The request's parameters.
struct Asked {
    sender: Sender,
    format: Option<Format>,
    kind: Option<String>,
    rate_hz: Option<u32>,
    /// Sample types that count from the start of the process.
    cumulative: Vec<String>,
}

impl Asked {
    fn parse(uri: &Uri) -> Result<Asked, Rejection> {
        let parameters = parameters(uri)?;
        if let Some(unknown) = parameters.keys().find(|name| !KNOWN.contains(&name.as_str())) {
            return Err(Rejection::Parameter {
                name: "query",
                reason: format!("`{}` is not one of {}", shortened(unknown), KNOWN.join(", ")),
            });
        }
        let find = |name: &str| parameters.get(name).filter(|value| !value.is_empty());
        let service = find("service").ok_or_else(|| Rejection::Parameter {
            name: "service",
            reason: "it is missing: set `?service=NAME&version=VERSION`".to_owned(),
        })?;
        let mut sender = Sender::of_service(service);
        for (name, into) in [
            ("version", &mut sender.workload.version),
            ("namespace", &mut sender.workload.namespace),
            ("instance", &mut sender.workload.instance),
            ("route", &mut sender.labels.route),
        ] {
            if let Some(value) = find(name) {
                *into = clean_name(value);
            }
        }
        sender.labels.side = (!sender.labels.route.is_empty()).then_some(Side::Server);
        sender.name = find("name").cloned();
        sender.times = match find("time").map(String::as_str) {
            None => times(&parameters)?,
            Some("received") => Times::Received,
            Some(other) => {
                return Err(Rejection::Parameter {
                    name: "time",
                    reason: format!("`{}` is not supported: use `received`", shortened(other)),
                });
            }
        };
        let list = find("cumulative").map(|list| list.split(',').map(str::to_owned).collect());
        let cumulative: Vec<String> = list.unwrap_or_default();
        if !cumulative.is_empty() && sender.workload.instance == UNKNOWN {
            return Err(Rejection::Parameter {
                name: "cumulative",
                reason: "set `instance`: otherwise cumulative values of two processes cannot be told apart".to_owned(),
            });
        }
        Ok(Asked {
            sender,
            cumulative,
            format: find("format").map(|name| format_of(name)).transpose()?,
            kind: find("kind").cloned(),
            rate_hz: rate(&parameters, "sample_rate")?,
        })
    }

    async fn take(self, ingest: &Ingest, request: Request<Body>) -> Result<Accepted, Rejection> {
        let received = body::receive(ingest, request).await;
        let (_, file, place) = received.inspect_err(|refused| ingest.count_refusal("profiles", refused))?;
        let bytes = file.len();
        if self.cumulative.is_empty() {
            let reader = move |received_unix_ns, limit| self.read(&file, limit, received_unix_ns, None);
            let payload = Payload::third_party(bytes, reader);
            return ingest.accept(place.sender, None, payload, bytes).await;
        }
        let kind = format!(
            "{},{}",
            self.sender.name.as_deref().unwrap_or_default(),
            self.cumulative.join(",")
        );
        let slot = ingest.place_of(place.sender, &self.sender.workload, &kind)?;
        let mut last = slot.lock_owned().await;
        let looking = Looking::new(&ingest.cumulative, place.sender, last.clone());
        let reader = {
            let looking = looking.clone();
            move |received_unix_ns, limit| self.read(&file, limit, received_unix_ns, Some(&looking))
        };
        let reader = Payload::third_party(bytes, reader);
        let accepted = ingest.accept(place.sender, None, reader, bytes).await?;
        (*last, _) = looking.stored();
        Ok(accepted)
    }

    fn read(
        &self,
        file: &[u8],
        limit: usize,
        received_unix_ns: i64,
        looking: Option<&Looking>,
    ) -> Result<Decoded, Rejection> {
        let reading = Reading {
            format: self.format,
            kind: self.kind.as_deref(),
            rate_hz: self.rate_hz,
            limit,
            ..Reading::default()
        };
        let mut read = formats::read(file, &reading).map_err(|error| Rejection::of_format(&error, limit))?;
        if let Some(looking) = looking {
            let held = |named: &&String| {
                read.profiles
                    .iter()
                    .any(|p| p.profile_type.parts()[1] == named.as_str())
            };
            if let Some(unknown) = self.cumulative.iter().find(|named| !held(named)) {
                return Err(Rejection::Parameter {
                    name: "cumulative",
                    reason: format!("the file has no sample type `{}`", shortened(unknown)),
                });
            }
            let chosen = |profile_type: &ProfileType| {
                let sample_type = profile_type.parts()[1];
                self.cumulative.iter().any(|named| named == sample_type)
            };
            let now_unix_ns = match self.sender.times {
                Times::Given { until_unix_ns, .. } => until_unix_ns,
                _ => received_unix_ns,
            };
            let left_out = looking.look(&mut read.profiles, now_unix_ns, chosen).1;
            read.left_out.extend(left_out.into_iter().map(Into::into));
        }
        Ok(self.sender.place(read, received_unix_ns))
    }
}
