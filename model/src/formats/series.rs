//! Requests with labelled pprof files: Pyroscope's `push.v1` and Parca's `profilestore.v1alpha1`.
//!
//! Guarantees: a request is read completely or not at all, and the error names the series and file at fault; all files
//! of a request together decompress to no more than the limit; a series without a service is dropped and counted.
//!
//! Wrong on purpose: labels other than identity and route are dropped, as are the sender's own ids of files: a request
//! sent twice counts twice.

use prost::Message;

use super::{
    Sender,
    format::Format,
    read::{FormatError, Reading, read as read_format},
};
use crate::{
    otlp::{
        Decoded, JsonError,
        json::{
            schema::{Field, Kind, Schema},
            to_protobuf,
        },
    },
    pprof::Addresses,
    proto::{parca, push},
    unpack::UnpackError,
    weight::{Shape, TEXT, TooHeavy, memory_of, weigh},
};

/// A request that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SeriesError {
    /// Not the protobuf of the request.
    #[error("{0}")]
    Protobuf(#[from] prost::DecodeError),
    /// Not the JSON of the request.
    #[error("{0}")]
    Json(#[from] JsonError),
    /// It expands to too much data.
    #[error("{0}")]
    TooHeavy(#[from] TooHeavy),
    /// One of its files.
    #[error("series {series}, profile {profile}: {error}")]
    Profile {
        /// Counted from 0.
        series: usize,
        /// Counted from 0 within the series.
        profile: usize,
        /// What is wrong with it.
        error: FormatError,
    },
}

/// Labels and their files.
struct Series {
    labels: Vec<(String, String)>,
    profiles: Vec<Vec<u8>>,
}

static PUSH_REQUEST: Schema = Schema {
    name: "a push request",
    fields: &[many("series", 1, Kind::Message(&PUSH_SERIES))],
};

static PUSH_SERIES: Schema = Schema {
    name: "a series",
    fields: &[
        many("labels", 1, Kind::Message(&PUSH_LABEL)),
        many("samples", 2, Kind::Message(&PUSH_SAMPLE)),
    ],
};

static PUSH_LABEL: Schema = Schema {
    name: "a label",
    fields: &[one("name", 1, Kind::Text), one("value", 2, Kind::Text)],
};

/// JSON may also use the names of the protobuf fields.
static PUSH_SAMPLE: Schema = Schema {
    name: "a profile of a series",
    fields: &[
        one("rawProfile", 1, Kind::Base64),
        one("raw_profile", 1, Kind::Base64),
        one("ID", 2, Kind::Text),
        one("id", 2, Kind::Text),
    ],
};

const fn one(name: &'static str, number: u32, kind: Kind) -> Field {
    Field {
        name,
        number,
        kind,
        repeated: false,
    }
}

const fn many(name: &'static str, number: u32, kind: Kind) -> Field {
    Field {
        name,
        number,
        kind,
        repeated: true,
    }
}

const fn shape(each: u64, fields: &'static [(u64, &'static Shape)]) -> Shape {
    Shape {
        each,
        per_byte: 0,
        fields,
    }
}

/// The weight of the messages without the files in them.
static PUSH: Shape = shape(0, &[(1, &shape(120, &[(1, &LABEL), (2, &RAW_SAMPLE)]))]);
static WRITE_RAW: Shape = shape(
    0,
    &[(1, &shape(120, &[(1, &shape(64, &[(1, &LABEL)])), (2, &RAW_SAMPLE)]))],
);
static LABEL: Shape = shape(160, &[(1, &TEXT), (2, &TEXT)]);
static RAW_SAMPLE: Shape = shape(120, &[(1, &TEXT), (2, &TEXT)]);

/// Reads a `push.v1.PushRequest`.
pub fn read_push(protobuf: &[u8], limit: usize, received_unix_ns: i64) -> Result<Decoded, SeriesError> {
    weigh(protobuf, &PUSH, memory_of(limit as u64))?;
    let request = push::PushRequest::decode(protobuf)?;
    let series = request.series.into_iter().map(|series| Series {
        labels: series
            .labels
            .into_iter()
            .map(|label| (label.name, label.value))
            .collect(),
        profiles: series.samples.into_iter().map(|sample| sample.raw_profile).collect(),
    });
    windows(series, Addresses::InMemory, limit, received_unix_ns)
}

/// The same in JSON.
pub fn read_push_json(json: &[u8], limit: usize, received_unix_ns: i64) -> Result<Decoded, SeriesError> {
    read_push(&to_protobuf(&PUSH_REQUEST, json)?, limit, received_unix_ns)
}

/// Reads a `parca.profilestore.v1alpha1.WriteRawRequest`.
pub fn read_write_raw(protobuf: &[u8], limit: usize, received_unix_ns: i64) -> Result<Decoded, SeriesError> {
    weigh(protobuf, &WRITE_RAW, memory_of(limit as u64))?;
    let request = parca::WriteRawRequest::decode(protobuf)?;
    let series = request.series.into_iter().map(|series| {
        let labels = series.labels.unwrap_or_default().labels.into_iter();
        Series {
            labels: labels.map(|label| (label.name, label.value)).collect(),
            profiles: series.samples.into_iter().map(|sample| sample.raw_profile).collect(),
        }
    });
    let addresses = if request.normalized {
        Addresses::InFile
    } else {
        Addresses::InMemory
    };
    windows(series, addresses, limit, received_unix_ns)
}

fn windows(
    all: impl Iterator<Item = Series>,
    addresses: Addresses,
    limit: usize,
    received_unix_ns: i64,
) -> Result<Decoded, SeriesError> {
    let mut decoded = Decoded::default();
    let mut left = limit;
    for (at, series) in all.enumerate() {
        let labels: Vec<(&str, &str)> = series
            .labels
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let Some(mut sender) = Sender::from_labels(&labels) else {
            decoded.reject("no_service_name", series.profiles.len() as u64);
            continue;
        };
        // The file of a mutex profile is like that of a block profile; only the label tells them apart.
        let mut names = labels
            .iter()
            .filter(|(name, _)| *name == "__name__")
            .map(|(_, value)| *value);
        sender.name = names
            .next()
            .filter(|name| matches!(*name, "mutex" | "block"))
            .map(str::to_owned);
        for (number, bytes) in series.profiles.iter().enumerate() {
            let wrong = |error| SeriesError::Profile {
                series: at,
                profile: number,
                error,
            };
            let reading = Reading {
                format: Some(Format::Pprof),
                addresses,
                limit: left,
                ..Reading::default()
            };
            let read = read_format(bytes, &reading).map_err(|error| match error {
                FormatError::Packed(UnpackError::TooLarge { .. }) => wrong(UnpackError::TooLarge { limit }.into()),
                error => wrong(error),
            })?;
            left = left.saturating_sub(read.unpacked_bytes);
            decoded.append(sender.place(read, received_unix_ns));
        }
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        pprof::{PprofMeta, write},
        profile::ProfileType,
        resolve::{FunctionInfo, ResolvedStacks},
    };

    fn pprof() -> Vec<u8> {
        let info = FunctionInfo {
            id: 0,
            name: "main".to_owned(),
            module: String::new(),
            file: String::new(),
            unresolved: false,
        };
        let resolved = ResolvedStacks {
            functions: vec![std::sync::Arc::new(info)],
            stacks: [(7, vec![0u32].into_boxed_slice())].into_iter().collect(),
        };
        let meta = PprofMeta {
            profile_type: ProfileType("mutex:delay:nanoseconds:contentions:count".to_owned()),
            time_ns: 1_790_000_000_000_000_000,
            duration_ns: 10_000_000_000,
            period: 1,
        };
        write(&meta, &resolved, &[(7, [42, 0])], false)
    }

    fn push(labels: &[(&str, &str)], profiles: &[Vec<u8>]) -> Vec<u8> {
        let labels = labels.iter().map(|(name, value)| push::LabelPair {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        });
        let samples = profiles.iter().map(|raw| push::RawSample {
            raw_profile: raw.clone(),
            id: "00000000-0000-0000-0000-000000000000".to_owned(),
        });
        let series = push::RawProfileSeries {
            labels: labels.collect(),
            samples: samples.collect(),
        };
        push::PushRequest { series: vec![series] }.encode_to_vec()
    }

    #[test]
    fn pushed_files_land_under_their_labels_in_protobuf_and_json() {
        let labels = [("service_name", "shop"), ("version", "v2"), ("__name__", "block")];
        let protobuf = read_push(&push(&labels, &[pprof(), pprof()]), 1 << 20, 0).unwrap();
        let raw = base64::engine::general_purpose::STANDARD.encode(pprof());
        let json = format!(
            r#"{{"series":[{{"labels":[{{"name":"service_name","value":"shop"}},{{"name":"version","value":"v2"}},
            {{"name":"__name__","value":"block"}}],"samples":[{{"ID":"x","rawProfile":"{raw}"}},{{"rawProfile":"{raw}"}}]}}]}}"#
        );
        let json = read_push_json(json.as_bytes(), 1 << 20, 0).unwrap();
        assert_eq!(protobuf, json);
        let window = &protobuf.windows[0];
        assert_eq!(
            (window.workload.service.as_str(), window.workload.version.as_str()),
            ("shop", "v2")
        );
        assert_eq!(window.profiles.len(), 2);
        assert_eq!(window.profiles[0].total(), 42);
        assert_eq!(
            window.profiles[0].profile_type.0,
            "block:delay:nanoseconds:contentions:count"
        );
    }

    #[test]
    fn raw_profiles_of_parca_land_under_their_labels() {
        let label = |name: &str, value: &str| parca::Label {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let request = parca::WriteRawRequest {
            series: vec![parca::RawProfileSeries {
                labels: Some(parca::LabelSet {
                    labels: vec![label("job", "shop"), label("instance", "shop:7070")],
                }),
                samples: vec![parca::RawSample { raw_profile: pprof() }],
            }],
            normalized: true,
        };
        let decoded = read_write_raw(&request.encode_to_vec(), 1 << 20, 0).unwrap();
        assert_eq!(decoded.windows[0].workload.service, "shop");
        assert_eq!(decoded.windows[0].workload.instance, "shop:7070");
        assert_eq!(decoded.windows[0].profiles[0].total(), 42);
    }

    #[test]
    fn what_is_wrong_is_named_and_series_without_a_service_are_counted() {
        let error = read_push(&push(&[("app", "a")], &[pprof(), b"x".to_vec()]), 1 << 20, 0).unwrap_err();
        assert!(error.to_string().starts_with("series 0, profile 1: "), "{error}");
        let decoded = read_push(&push(&[("version", "a")], &[pprof()]), 1 << 20, 0).unwrap();
        assert_eq!((decoded.windows.len(), decoded.rejected_total()), (0, 1));
    }

    #[test]
    fn the_limit_is_for_all_files_of_a_request_together() {
        let one = read_format(
            &pprof(),
            &Reading {
                limit: 1 << 20,
                ..Reading::default()
            },
        )
        .unwrap()
        .unpacked_bytes;
        let request = push(&[("app", "a")], &[pprof(), pprof()]);
        assert!(read_push(&request, 2 * one, 0).is_ok());
        let error = read_push(&request, 2 * one - 1, 0).unwrap_err();
        assert!(
            matches!(
                error,
                SeriesError::Profile {
                    profile: 1,
                    error: FormatError::Packed(UnpackError::TooLarge { .. }),
                    ..
                }
            ),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_refused_or_give_valid_profiles(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let read = [read_push(&bytes, 1 << 16, 0), read_push_json(&bytes, 1 << 16, 0), read_write_raw(&bytes, 1 << 16, 0)];
            for window in read.iter().flatten().flat_map(|decoded| &decoded.windows) {
                prop_assert!(window.profiles.iter().all(|profile| profile.validate().is_ok()));
            }
        }

        #[test]
        fn a_file_with_any_byte_changed_is_refused_or_valid(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            use std::io::Read;
            let mut raw = Vec::new();
            flate2::read::GzDecoder::new(pprof().as_slice()).read_to_end(&mut raw).unwrap();
            let at = at.index(raw.len());
            raw[at] = byte;
            if let Ok(decoded) = read_push(&push(&[("app", "a")], &[raw]), 1 << 16, 0) {
                for profile in decoded.windows.iter().flat_map(|w| &w.profiles) {
                    prop_assert!(profile.validate().is_ok());
                }
            }
        }
    }
}
