//! Batch ⇄ bytes, as stored in the journal. Guarantee: decoding an encoded batch gives an equal one; bytes that are not
//! a batch give an error, never a panic or a partial batch.

use prost::Message;

use crate::{
    batch::{Batch, BatchId, RequestSeries, Signal, WorkloadWindow},
    histogram::Histogram,
    profile::{Exemplar, Frame, InvalidProfile, Location, Mapping, Profile, ProfileStats, ProfileType, Sample},
    proto::v1 as pb,
    workload::{Component, LabelSet, Release, Side, Workload},
};

/// Bytes that are not a batch.
#[derive(Debug, thiserror::Error)]
pub enum DecodeBatchError {
    /// Not the protobuf of a batch.
    #[error("not a batch: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A field is missing or has an impossible value.
    #[error("not a batch: {0} is missing or out of range")]
    Field(&'static str),
    /// A profile's tables do not fit together.
    #[error("not a batch: {0}")]
    Profile(#[from] InvalidProfile),
}

/// Encodes a batch.
pub fn encode_batch(batch: &Batch) -> Vec<u8> {
    pb::Batch {
        id: batch.id.as_ref().map(|id| pb::BatchId {
            sender: id.sender.clone(),
            epoch: id.epoch,
            sequence: id.sequence,
            signal: id.signal.code(),
        }),
        received_unix_ms: batch.received_unix_ms,
        windows: batch.windows.iter().map(encode_window).collect(),
    }
    .encode_to_vec()
}

/// Decodes and validates a batch.
pub fn decode_batch(bytes: &[u8]) -> Result<Batch, DecodeBatchError> {
    let batch = pb::Batch::decode(bytes)?;
    let id = match batch.id {
        None => None,
        Some(id) => Some(BatchId {
            sender: id.sender,
            epoch: id.epoch,
            sequence: id.sequence,
            signal: Signal::from_code(id.signal).ok_or(DecodeBatchError::Field("signal"))?,
        }),
    };
    let windows = batch.windows.into_iter().map(decode_window).collect::<Result<_, _>>()?;
    Ok(Batch {
        id,
        received_unix_ms: batch.received_unix_ms,
        windows,
    })
}

fn encode_release(release: &Release) -> pb::Release {
    pb::Release {
        namespace: release.namespace.clone(),
        service: release.service.clone(),
        version: release.version.clone(),
    }
}

fn decode_release(release: pb::Release) -> Release {
    Release {
        namespace: release.namespace,
        service: release.service,
        version: release.version,
    }
}

fn encode_window(window: &WorkloadWindow) -> pb::WorkloadWindow {
    pb::WorkloadWindow {
        workload: Some(pb::Workload {
            namespace: window.workload.namespace.clone(),
            service: window.workload.service.clone(),
            version: window.workload.version.clone(),
            instance: window.workload.instance.clone(),
        }),
        component: u32::from(window.component.code()),
        start_unix_s: window.start_unix_s,
        length_s: window.length_s,
        has_requests: window.has_requests,
        has_profiles: window.has_profiles,
        requests: window.requests.iter().map(encode_requests).collect(),
        profiles: window.profiles.iter().map(encode_profile).collect(),
    }
}

fn decode_window(window: pb::WorkloadWindow) -> Result<WorkloadWindow, DecodeBatchError> {
    let workload = window.workload.ok_or(DecodeBatchError::Field("workload"))?;
    Ok(WorkloadWindow {
        workload: Workload {
            namespace: workload.namespace,
            service: workload.service,
            version: workload.version,
            instance: workload.instance,
        },
        component: Component::from_code(window.component),
        start_unix_s: window.start_unix_s,
        length_s: window.length_s,
        has_requests: window.has_requests,
        has_profiles: window.has_profiles,
        requests: window
            .requests
            .into_iter()
            .map(decode_requests)
            .collect::<Result<_, _>>()?,
        profiles: window
            .profiles
            .into_iter()
            .map(decode_profile)
            .collect::<Result<_, _>>()?,
    })
}

fn encode_requests(series: &RequestSeries) -> pb::RequestSeries {
    pb::RequestSeries {
        side: u32::from(series.side.code()),
        route: series.route.clone(),
        method: series.method.clone(),
        peer: series.peer.as_ref().map(encode_release),
        protocol: series.protocol.clone(),
        status: u32::from(series.status),
        error: series.error,
        duration: Some(encode_histogram(&series.duration)),
        request_bytes: series.request_bytes,
        response_bytes: series.response_bytes,
        destination: series.destination.clone(),
        streaming_s: series.streaming_s,
        open: series.open,
    }
}

fn decode_requests(series: pb::RequestSeries) -> Result<RequestSeries, DecodeBatchError> {
    Ok(RequestSeries {
        side: Side::from_code(series.side).ok_or(DecodeBatchError::Field("side"))?,
        route: series.route,
        method: series.method,
        peer: series.peer.map(decode_release),
        protocol: series.protocol,
        status: u16::try_from(series.status).map_err(|_| DecodeBatchError::Field("status"))?,
        error: series.error,
        duration: decode_histogram(series.duration.ok_or(DecodeBatchError::Field("duration"))?)?,
        request_bytes: series.request_bytes,
        response_bytes: series.response_bytes,
        destination: series.destination,
        streaming_s: series.streaming_s,
        open: series.open,
    })
}

fn encode_histogram(histogram: &Histogram) -> pb::Histogram {
    let mut before = 0;
    pb::Histogram {
        count: histogram.count(),
        zero_count: histogram.zero_count(),
        sum: histogram.sum(),
        min: histogram.min(),
        max: histogram.max(),
        bucket_delta: histogram
            .buckets()
            .iter()
            .map(|b| {
                let delta = i32::from(b.0) - before;
                before = i32::from(b.0);
                delta
            })
            .collect(),
        bucket_count: histogram.buckets().iter().map(|b| b.1).collect(),
    }
}

fn decode_histogram(histogram: pb::Histogram) -> Result<Histogram, DecodeBatchError> {
    if histogram.bucket_delta.len() != histogram.bucket_count.len() {
        return Err(DecodeBatchError::Field("bucket"));
    }
    let mut index = 0i32;
    let mut buckets = Vec::with_capacity(histogram.bucket_delta.len());
    for (delta, count) in histogram.bucket_delta.into_iter().zip(histogram.bucket_count) {
        index = index.checked_add(delta).ok_or(DecodeBatchError::Field("bucket"))?;
        buckets.push((
            i16::try_from(index).map_err(|_| DecodeBatchError::Field("bucket"))?,
            count,
        ));
    }
    Ok(Histogram::from_parts(
        histogram.zero_count,
        histogram.sum,
        histogram.min,
        histogram.max,
        buckets,
    ))
}

fn encode_profile(profile: &Profile) -> pb::Profile {
    pb::Profile {
        profile_type: profile.profile_type.0.clone(),
        start_unix_ns: profile.start_unix_ns,
        duration_ns: profile.duration_ns,
        period: profile.period,
        mappings: profile
            .mappings
            .iter()
            .map(|m| pb::Mapping {
                build_id: m.build_id.clone(),
                path: m.path.clone(),
            })
            .collect(),
        locations: profile.locations.iter().map(encode_location).collect(),
        stacks: profile
            .stacks
            .iter()
            .map(|s| pb::Stack { locations: s.clone() })
            .collect(),
        label_sets: profile
            .label_sets
            .iter()
            .map(|l| pb::LabelSet {
                side: l.side.map_or(0, |s| u32::from(s.code())),
                route: l.route.clone(),
                peer: l.peer.as_ref().map(encode_release),
            })
            .collect(),
        samples: profile
            .samples
            .iter()
            .map(|s| pb::Sample {
                stack: s.stack,
                label_set: s.label_set,
                value: s.value,
                count: s.count,
            })
            .collect(),
        exemplars: profile.exemplars.iter().map(encode_exemplar).collect(),
        exemplars_cut: profile.exemplars_cut,
        stats: Some(pb::ProfileStats {
            rate_hz: profile.stats.rate_hz,
            dropped: profile.stats.dropped,
            truncated: profile.stats.truncated,
            cpu_ns: profile.stats.cpu_ns,
            overhead_ns: profile.stats.overhead_ns,
        }),
    }
}

fn encode_exemplar(exemplar: &Exemplar) -> pb::Exemplar {
    let (trace_high, trace_low) = exemplar.trace_halves();
    pb::Exemplar {
        stack: exemplar.stack,
        label_set: exemplar.label_set,
        value: exemplar.value,
        unix_ns: exemplar.unix_ns.cast_unsigned(),
        trace_high,
        trace_low,
        span_id: exemplar.span_id,
    }
}

fn decode_exemplar(exemplar: pb::Exemplar) -> Exemplar {
    Exemplar {
        stack: exemplar.stack,
        label_set: exemplar.label_set,
        value: exemplar.value,
        unix_ns: exemplar.unix_ns.cast_signed(),
        trace_id: Exemplar::trace_of(exemplar.trace_high, exemplar.trace_low),
        span_id: exemplar.span_id,
    }
}

fn encode_location(location: &Location) -> pb::Location {
    match location {
        Location::Native { mapping, offset } => pb::Location {
            mapping_plus_one: mapping + 1,
            offset: *offset,
            frames: Vec::new(),
        },
        Location::Named { frames } => pb::Location {
            mapping_plus_one: 0,
            offset: 0,
            frames: frames
                .iter()
                .map(|f| pb::Frame {
                    function: f.function.clone(),
                    file: f.file.clone(),
                    line: f.line,
                })
                .collect(),
        },
    }
}

fn decode_profile(profile: pb::Profile) -> Result<Profile, DecodeBatchError> {
    let stats = profile.stats.unwrap_or_default();
    let decoded = Profile {
        profile_type: ProfileType(profile.profile_type),
        start_unix_ns: profile.start_unix_ns,
        duration_ns: profile.duration_ns,
        period: profile.period,
        mappings: profile
            .mappings
            .into_iter()
            .map(|m| Mapping {
                build_id: m.build_id,
                path: m.path,
            })
            .collect(),
        locations: profile
            .locations
            .into_iter()
            .map(|l| match l.mapping_plus_one {
                0 => Location::Named {
                    frames: l
                        .frames
                        .into_iter()
                        .map(|f| Frame {
                            function: f.function,
                            file: f.file,
                            line: f.line,
                        })
                        .collect(),
                },
                n => Location::Native {
                    mapping: n - 1,
                    offset: l.offset,
                },
            })
            .collect(),
        stacks: profile.stacks.into_iter().map(|s| s.locations).collect(),
        label_sets: profile
            .label_sets
            .into_iter()
            .map(|l| LabelSet {
                side: Side::from_code(l.side),
                route: l.route,
                peer: l.peer.map(decode_release),
            })
            .collect(),
        samples: profile
            .samples
            .into_iter()
            .map(|s| Sample {
                stack: s.stack,
                label_set: s.label_set,
                value: s.value,
                count: s.count,
            })
            .collect(),
        exemplars: profile.exemplars.into_iter().map(decode_exemplar).collect(),
        exemplars_cut: profile.exemplars_cut,
        stats: ProfileStats {
            rate_hz: stats.rate_hz,
            dropped: stats.dropped,
            truncated: stats.truncated,
            cpu_ns: stats.cpu_ns,
            overhead_ns: stats.overhead_ns,
        },
    };
    decoded.validate()?;
    Ok(decoded)
}
