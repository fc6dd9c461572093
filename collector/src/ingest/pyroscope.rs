//! `POST /ingest` (also `/pyroscope/ingest`), the endpoint of Pyroscope's older clients, on the OTLP/HTTP port.
//!
//! Supported: the parameters `name`, `from`, `until`, `sampleRate`, `units`, `format`; the formats pprof, folded
//! (`groups`, also the default), `lines`, speedscope and JFR (sent by Java agents), as the body itself or as the field
//! `profile` or `jfr` of a form; and `sample_type_config`, which selects and names the types of a pprof file. Every
//! other format is answered 415 by name.
//!
//! Guarantees: those of [`crate::ingest`].
//!
//! Types that a client declares cumulative are stored as their increase since its last push; the first push only sets
//! the base.
//!
//! Wrong on purpose: `aggregationType` is ignored, because a profile's type already says whether it is a sum;
//! cumulative types of a client without an instance are dropped and counted, because two processes could not be
//! distinguished; `prev_profile` is refused; and labels set by a Java program at run time (the field `labels`) are
//! dropped and counted: its samples count without them.

use std::{collections::HashMap, convert::Infallible, sync::Arc};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, Request, Response, header},
};
use bytes::Bytes;
use emberline_model::{
    Profile, ProfileType,
    formats::{self, DEFAULT_RATE_HZ, Format, Reading, Sender, Times, Units, app_name::AppName},
    otlp::{Decoded, Rejected},
    workload::{UNKNOWN, clean_name},
};
use serde::Deserialize;

use super::{
    Accepted, Ingest, Payload, body,
    rejection::Rejection,
    upload::{self, Parameters, shortened},
};
use crate::cumulative::Looking;

/// Formats accepted here, by the clients' names.
const ACCEPTED: &str = "pprof, folded (groups), lines, speedscope, jfr";
/// The most fields of a form.
const MAX_FIELDS: usize = 16;

/// Accepts one profile.
pub(super) async fn ingest(State(ingest): State<Arc<Ingest>>, request: Request<Body>) -> Response<Body> {
    let asked = Asked::parse(&request);
    let taken = match asked {
        Ok(asked) => asked.take(&ingest, request).await,
        Err(refused) => {
            ingest.count_refusal("profiles", &refused);
            Err(refused)
        }
    };
    match taken {
        Ok(accepted) => upload::kept(&accepted),
        Err(refused) => refused.to_connect(),
    }
}

/// The request's parameters.
struct Asked {
    sender: Sender,
    /// `None` if a form's fields decide.
    format: Option<Format>,
    kind: Option<String>,
    rate_hz: Option<u32>,
    /// The boundary of a form.
    boundary: Option<String>,
}

impl Asked {
    fn parse(request: &Request<Body>) -> Result<Asked, Rejection> {
        let parameters = upload::parameters(request.uri())?;
        let name: AppName = match parameters.get("name") {
            Some(name) => name.parse().map_err(|error| Rejection::Parameter {
                name: "name",
                reason: format!("{error}"),
            })?,
            None => {
                return Err(Rejection::Parameter {
                    name: "name",
                    reason: "it is missing: set `?name=application{version=V}`".to_owned(),
                });
            }
        };
        let boundary = boundary_of(request.headers())?;
        let mut sender = sender_of(&name);
        sender.times = upload::times(&parameters)?;
        let units = parameters.get("units").filter(|units| !units.is_empty()).cloned();
        Ok(Asked {
            sender,
            format: format_of(&parameters, request.headers(), boundary.is_some())?,
            // The suffix of the name is more precise: `samples` of `app.wall` are wall time.
            kind: name.kind.or(units),
            rate_hz: upload::rate(&parameters, "sampleRate")?,
            boundary,
        })
    }

    async fn take(self, ingest: &Ingest, request: Request<Body>) -> Result<Accepted, Rejection> {
        let count = |refused: &Rejection| ingest.count_refusal("profiles", refused);
        let (_, message, place) = body::receive(ingest, request).await.inspect_err(count)?;
        let bytes = message.len();
        let form = match &self.boundary {
            Some(boundary) => Form::read(message, boundary).await.inspect_err(count)?,
            None => Form {
                profile: message,
                is_jfr: false,
                labels: false,
                types: None,
            },
        };
        let workload = &self.sender.workload;
        let kind = form.types.as_ref().map(cumulative_types).unwrap_or_default();
        if kind.is_empty() || workload.instance == UNKNOWN {
            let reader = move |received_unix_ns, limit| self.read(&form, limit, received_unix_ns, None);
            let payload = Payload::third_party(bytes, reader);
            return ingest.accept(place.sender, None, payload, bytes).await;
        }
        let slot = ingest.place_of(place.sender, workload, &kind)?;
        let mut last = slot.lock_owned().await;
        let looking = Looking::new(&ingest.cumulative, place.sender, last.clone());
        let reader = {
            let looking = looking.clone();
            move |received_unix_ns, limit| self.read(&form, limit, received_unix_ns, Some(&looking))
        };
        let reader = Payload::third_party(bytes, reader);
        let accepted = ingest.accept(place.sender, None, reader, bytes).await?;
        (*last, _) = looking.stored();
        Ok(accepted)
    }

    fn read(
        &self,
        form: &Form,
        limit: usize,
        received_unix_ns: i64,
        looking: Option<&Looking>,
    ) -> Result<Decoded, Rejection> {
        let known = self.kind.as_deref().filter(|kind| Units::of_kind(kind, 1).is_some());
        let format = if form.is_jfr { Some(Format::Jfr) } else { self.format };
        let reading = Reading {
            format: format.or(Some(Format::Pprof)),
            kind: known,
            rate_hz: self.rate_hz,
            limit,
            ..Reading::default()
        };
        let mut read = formats::read(&form.profile, &reading).map_err(|error| Rejection::of_format(&error, limit))?;
        read.left_out
            .extend(form.labels.then_some(Rejected::of("dynamic_labels", "", 1)));
        if read.format == Format::Pprof {
            if let Some(types) = &form.types {
                let cumulative = choose_types(&mut read.profiles, types);
                let chosen = |profile_type: &ProfileType| cumulative.contains(profile_type);
                let left_out = match (looking, self.sender.times) {
                    _ if cumulative.is_empty() => Vec::new(),
                    (Some(looking), Times::Given { until_unix_ns, .. }) => {
                        looking.look(&mut read.profiles, until_unix_ns, chosen).1
                    }
                    (Some(looking), _) => looking.look(&mut read.profiles, received_unix_ns, chosen).1,
                    (None, _) => {
                        let counters = read.profiles.iter().filter(|profile| chosen(&profile.profile_type));
                        let samples = counters.map(|profile| profile.samples.len() as u64).sum();
                        read.profiles.retain(|profile| !chosen(&profile.profile_type));
                        vec![("cumulative_without_instance", samples)]
                    }
                };
                read.left_out.extend(left_out.into_iter().map(Into::into));
            }
            self.samples_as_time(&mut read.profiles, known);
        }
        Ok(self.sender.place(read, received_unix_ns))
    }

    /// Some clients send only samples, and state the rate separately.
    fn samples_as_time(&self, profiles: &mut [Profile], kind: Option<&str>) {
        let is_samples = |profile: &Profile| {
            let [_, sample_type, unit, ..] = profile.profile_type.parts();
            matches!(sample_type, "samples" | "sample") && unit == "count"
        };
        let [profile] = profiles else { return };
        let rate = self.rate_hz.unwrap_or(DEFAULT_RATE_HZ);
        let units = Units::of_kind(kind.unwrap_or("cpu"), rate).filter(|units| units.period > 0);
        let (true, Some(units)) = (is_samples(profile), units) else {
            return;
        };
        profile.profile_type = units.profile_type;
        profile.period = units.period;
        for sample in &mut profile.samples {
            sample.count = u64::try_from(sample.value).unwrap_or(0).max(1);
            sample.value = sample.value.saturating_mul(units.factor);
        }
    }
}

fn sender_of(name: &AppName) -> Sender {
    let labels = name.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    // The name is the service unless a label says otherwise.
    let labels: Vec<(&str, &str)> = labels
        .filter(|(key, _)| !matches!(*key, "app" | "job"))
        .chain([("app", name.application.as_str())])
        .collect();
    Sender::from_labels(&labels).unwrap_or_else(|| Sender::of_service(&name.application))
}

fn format_of(parameters: &Parameters, headers: &HeaderMap, is_form: bool) -> Result<Option<Format>, Rejection> {
    let refused = |format: &str| {
        Err(Rejection::Format {
            format: shortened(format),
            accepted: ACCEPTED,
        })
    };
    let essence = body::essence(headers).to_ascii_lowercase();
    if let Some(format) = essence.strip_prefix("binary/octet-stream+") {
        return refused(format);
    }
    match parameters.get("format").map(String::as_str) {
        Some("" | "groups" | "folded") => Ok(Some(Format::Folded)),
        Some("pprof") => Ok(Some(Format::Pprof)),
        Some("lines") => Ok(Some(Format::Lines)),
        Some("speedscope") => Ok(Some(Format::Speedscope)),
        Some("jfr") => Ok(Some(Format::Jfr)),
        Some(other) => refused(other),
        None if is_form => Ok(None),
        None => Ok(Some(Format::Folded)),
    }
}

fn boundary_of(headers: &HeaderMap) -> Result<Option<String>, Rejection> {
    if !body::essence(headers).eq_ignore_ascii_case("multipart/form-data") {
        return Ok(None);
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let boundary = multer::parse_boundary(content_type.unwrap_or_default());
    boundary
        .map(Some)
        .map_err(|error| Rejection::Profile(format!("cannot read the form: {error}")))
}

/// A type of a pprof file, as a client describes it.
#[derive(Debug, Deserialize)]
struct TypeConfig {
    #[serde(default, rename = "display-name")]
    display_name: Option<String>,
    #[serde(default)]
    cumulative: bool,
}

/// The fields of a form.
struct Form {
    profile: Bytes,
    /// The profile was the field `jfr`.
    is_jfr: bool,
    /// There are labels in a separate field.
    labels: bool,
    types: Option<HashMap<String, TypeConfig>>,
}

impl Form {
    async fn read(message: Bytes, boundary: &str) -> Result<Form, Rejection> {
        let broken = |error: multer::Error| Rejection::Profile(format!("cannot read the form: {error}"));
        let stream = futures_util::stream::once(std::future::ready(Ok::<_, Infallible>(message)));
        let mut fields = multer::Multipart::new(stream, boundary);
        let (mut profile, mut types, mut seen) = (None, None, 0);
        let (mut is_jfr, mut labels) = (false, false);
        while let Some(field) = fields.next_field().await.map_err(broken)? {
            seen += 1;
            if seen > MAX_FIELDS {
                return Err(Rejection::Profile(format!(
                    "the form has more than {MAX_FIELDS} fields"
                )));
            }
            match field.name().unwrap_or_default() {
                name @ ("profile" | "jfr") => {
                    is_jfr = name == "jfr";
                    profile = Some(field.bytes().await.map_err(broken)?);
                }
                "labels" => labels = !field.bytes().await.map_err(broken)?.is_empty(),
                "sample_type_config" => {
                    let json = field.bytes().await.map_err(broken)?;
                    let parsed = serde_json::from_slice(&json)
                        .map_err(|error| Rejection::Profile(format!("`sample_type_config`: {error}")))?;
                    types = Some(parsed);
                }
                "prev_profile" => {
                    return Err(Rejection::Profile(
                        "`prev_profile` is not supported: configure the client to send deltas".to_owned(),
                    ));
                }
                _ => {}
            }
        }
        let profile =
            profile.ok_or_else(|| Rejection::Profile("the form has no field `profile` or `jfr`".to_owned()))?;
        Ok(Form {
            profile,
            is_jfr,
            labels,
            types,
        })
    }
}

/// Distinguishes the pushes of one process: mutex and block profiles arrive separately, with types of the same names.
/// Empty if nothing is cumulative.
fn cumulative_types(types: &HashMap<String, TypeConfig>) -> String {
    let cumulative = types.iter().filter(|(_, config)| config.cumulative);
    let mut names: Vec<String> = cumulative
        .map(|(name, config)| format!("{name}={}", config.display_name.as_deref().unwrap_or_default()))
        .collect();
    names.sort();
    names.join(",")
}

/// Keeps the types that the client names, under its display names, and returns which of them are cumulative. If it
/// names none of them, all are kept.
fn choose_types(profiles: &mut Vec<Profile>, types: &HashMap<String, TypeConfig>) -> Vec<ProfileType> {
    let config_of = |profile: &Profile| types.get(profile.profile_type.parts()[1]);
    let mut cumulative = Vec::new();
    if !profiles.iter().any(|profile| config_of(profile).is_some()) {
        return cumulative;
    }
    profiles.retain_mut(|profile| {
        let Some(config) = config_of(profile) else { return false };
        let shown = config.display_name.as_deref().and_then(|name| Units::of_kind(name, 1));
        if let Some(units) = shown {
            let [_, sample_type, unit, period_type, period_unit] = profile.profile_type.parts();
            let name = clean_name(units.profile_type.parts()[0]);
            profile.profile_type = ProfileType::from_parts(&name, sample_type, unit, period_type, period_unit);
        }
        if config.cumulative {
            cumulative.push(profile.profile_type.clone());
        }
        true
    });
    cumulative
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::Index};

    use super::*;

    fn read(message: Vec<u8>, boundary: &str) -> Result<Form, Rejection> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(Form::read(message.into(), boundary))
    }

    fn form(boundary: &str, fields: &[(&str, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, content) in fields {
            let head = format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n"
            );
            body.extend(head.as_bytes());
            body.extend(*content);
            body.extend(b"\r\n");
        }
        body.extend(format!("--{boundary}--\r\n").as_bytes());
        body
    }

    const TYPES: &str = r#"{"cpu":{"units":"samples","display-name":"cpu"},"alloc_space":{"cumulative":true}}"#;

    proptest! {
        #[test]
        fn a_form_gives_its_fields_as_they_are(profile in prop::collection::vec(any::<u8>(), 0..300), order in any::<bool>()) {
            let mut fields = [("profile", profile.as_slice()), ("sample_type_config", TYPES.as_bytes())];
            if order {
                fields.reverse();
            }
            let read = read(form("b0undary", &fields), "b0undary").unwrap();
            prop_assert_eq!(&read.profile[..], profile.as_slice());
            let types = read.types.unwrap();
            prop_assert!(types["alloc_space"].cumulative && !types["cpu"].cumulative);
            prop_assert_eq!(types["cpu"].display_name.as_deref(), Some("cpu"));
        }

        #[test]
        fn a_changed_form_is_refused_or_gives_a_piece_of_itself(
            profile in prop::collection::vec(any::<u8>(), 0..80),
            boundary in "[a-z-]{1,12}",
            changes in prop::collection::vec((any::<Index>(), 0u8..4, any::<u8>()), 1..5),
        ) {
            let mut bytes = form(&boundary, &[("sample_type_config", TYPES.as_bytes()), ("profile", &profile), ("other", b"x")]);
            for (at, which, byte) in changes {
                let at = at.index(bytes.len().max(1)).min(bytes.len());
                let end = (at + usize::from(byte)).min(bytes.len());
                match which {
                    0 if at < bytes.len() => bytes[at] = byte,
                    1 => bytes.truncate(at),
                    2 => drop(bytes.drain(at..end)),
                    _ => {
                        let piece = bytes[at..end].to_vec();
                        bytes.splice(at..at, piece);
                    }
                }
            }
            if let Ok(read) = read(bytes.clone(), &boundary) {
                let held = bytes.windows(read.profile.len().max(1)).any(|piece| piece == &read.profile[..]);
                prop_assert!(held || read.profile.is_empty());
            }
        }

        #[test]
        fn any_bytes_behind_any_boundary_end(bytes in prop::collection::vec(any::<u8>(), 0..200), boundary in "\\PC{0,20}", header in "\\PC{0,40}") {
            for sent in [bytes.clone(), [format!("--{boundary}\r\n").into_bytes(), bytes].concat()] {
                if let Ok(form) = read(sent.clone(), &boundary) {
                    prop_assert!(form.profile.len() < sent.len());
                }
            }
            let mut headers = HeaderMap::new();
            if let Ok(value) = format!("multipart/form-data; {header}").parse() {
                headers.insert(header::CONTENT_TYPE, value);
                if let Ok(Some(boundary)) = boundary_of(&headers) {
                    prop_assert!(!boundary.is_empty() && boundary.len() <= header.len(), "{boundary} of {header}");
                }
            }
        }
    }

    #[test]
    fn a_form_of_fields_without_end_is_refused() {
        let fields = vec![("x", b"".as_slice()); MAX_FIELDS + 1];
        let refused = read(form("b", &fields), "b").err().unwrap();
        assert!(refused.to_string().contains("fields"), "{refused}");
    }
}
