//! Rows of each table, collected column by column.

use std::{collections::BTreeSet, sync::Arc};

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, ListBuilder, StringArray, StringBuilder, UInt8Array, UInt32Array,
    UInt32Builder, UInt64Array, UInt64Builder,
};
use emberline_model::{Component, Frame, Release, Workload, WorkloadWindow};

use super::type_id;
use crate::journal::Lsn;

#[derive(Default)]
pub(super) struct SampleRows {
    pub(super) ts: Vec<u32>,
    pub(super) series: Vec<u64>,
    pub(super) label_set: Vec<u64>,
    pub(super) stack: Vec<u64>,
    pub(super) value: Vec<u64>,
    pub(super) samples: Vec<u64>,
    pub(super) lsn: Vec<u64>,
}

#[derive(Default)]
pub(super) struct ExemplarRows {
    pub(super) ts: Vec<u32>,
    pub(super) series: Vec<u64>,
    pub(super) label_set: Vec<u64>,
    pub(super) stack: Vec<u64>,
    pub(super) value: Vec<u64>,
    pub(super) at_ns: Vec<u64>,
    pub(super) trace_high: Vec<u64>,
    pub(super) trace_low: Vec<u64>,
    pub(super) span_id: Vec<u64>,
    pub(super) cut: Vec<u64>,
    pub(super) lsn: Vec<u64>,
}

#[derive(Default)]
pub(super) struct WindowRows {
    pub(super) ts: Vec<u32>,
    pub(super) workload: Vec<u64>,
    pub(super) component: Vec<u8>,
    pub(super) length: Vec<u32>,
    pub(super) has_requests: Vec<bool>,
    pub(super) has_profiles: Vec<bool>,
    pub(super) profile_types: ListBuilder<UInt64Builder>,
    pub(super) rate_hz: Vec<f64>,
    pub(super) dropped: Vec<u64>,
    pub(super) truncated: Vec<u64>,
    pub(super) cpu_ns: Vec<u64>,
    pub(super) overhead_ns: Vec<u64>,
    pub(super) lsn: Vec<u64>,
}

#[derive(Default)]
pub(super) struct SeriesRows {
    pub(super) id: Vec<u64>,
    pub(super) workload: Vec<u64>,
    pub(super) namespace: Vec<String>,
    pub(super) service: Vec<String>,
    pub(super) version: Vec<String>,
    pub(super) instance: Vec<String>,
    pub(super) component: Vec<u8>,
    pub(super) profile_type: Vec<String>,
    pub(super) check: Vec<u64>,
    pub(super) workload_check: Vec<u64>,
}

#[derive(Default)]
pub(super) struct LabelSetRows {
    pub(super) id: Vec<u64>,
    pub(super) side: Vec<u8>,
    pub(super) route: Vec<String>,
    pub(super) peer: PeerColumns,
    pub(super) check: Vec<u64>,
}

#[derive(Default)]
pub(super) struct LocationRows {
    pub(super) id: Vec<u64>,
    pub(super) mapping: Vec<Option<u64>>,
    pub(super) offset: Vec<u64>,
    pub(super) functions: ListBuilder<StringBuilder>,
    pub(super) files: ListBuilder<StringBuilder>,
    pub(super) lines: ListBuilder<UInt32Builder>,
    pub(super) check: Vec<u64>,
}

/// A row's identifier, and the check of its content.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    pub(super) id: u64,
    pub(super) check: u64,
}

/// The peer release as three columns, all null when it is not known.
#[derive(Default)]
pub(super) struct PeerColumns {
    pub(super) namespace: StringBuilder,
    pub(super) service: StringBuilder,
    pub(super) version: StringBuilder,
}

impl PeerColumns {
    pub(super) fn push(&mut self, peer: Option<&Release>) {
        self.namespace.append_option(peer.map(|p| &p.namespace));
        self.service.append_option(peer.map(|p| &p.service));
        self.version.append_option(peer.map(|p| &p.version));
    }

    pub(super) fn finish(mut self) -> [ArrayRef; 3] {
        [
            Arc::new(self.namespace.finish()),
            Arc::new(self.service.finish()),
            Arc::new(self.version.finish()),
        ]
    }
}

impl WindowRows {
    pub(super) fn push(&mut self, window: &WorkloadWindow, ts: u32, workload: u64, lsn: Lsn) {
        let mut stats = emberline_model::ProfileStats::default();
        for profile in &window.profiles {
            stats.rate_hz = stats.rate_hz.max(profile.stats.rate_hz);
            stats.dropped = stats.dropped.saturating_add(profile.stats.dropped);
            stats.truncated = stats.truncated.saturating_add(profile.stats.truncated);
            stats.cpu_ns = stats.cpu_ns.saturating_add(profile.stats.cpu_ns);
            stats.overhead_ns = stats.overhead_ns.saturating_add(profile.stats.overhead_ns);
        }
        self.ts.push(ts);
        self.workload.push(workload);
        self.component.push(window.component.code());
        self.length.push(window.length_s);
        self.has_requests.push(window.has_requests);
        self.has_profiles.push(window.has_profiles);
        let types: BTreeSet<&str> = window.profiles.iter().map(|p| p.profile_type.0.as_str()).collect();
        for profile_type in types {
            self.profile_types.values().append_value(type_id(profile_type));
        }
        self.profile_types.append(true);
        self.rate_hz.push(stats.rate_hz);
        self.dropped.push(stats.dropped);
        self.truncated.push(stats.truncated);
        self.cpu_ns.push(stats.cpu_ns);
        self.overhead_ns.push(stats.overhead_ns);
        self.lsn.push(lsn);
    }
}

impl SeriesRows {
    pub(super) fn push(
        &mut self,
        row: Identity,
        of: Identity,
        workload: &Workload,
        component: Component,
        profile_type: &str,
    ) {
        self.id.push(row.id);
        self.check.push(row.check);
        self.workload.push(of.id);
        self.workload_check.push(of.check);
        self.namespace.push(workload.namespace.clone());
        self.service.push(workload.service.clone());
        self.version.push(workload.version.clone());
        self.instance.push(workload.instance.clone());
        self.component.push(component.code());
        self.profile_type.push(profile_type.to_owned());
    }
}

impl LocationRows {
    pub(super) fn push(&mut self, row: Identity, mapping: Option<u64>, offset: u64, frames: &[Frame]) {
        self.id.push(row.id);
        self.check.push(row.check);
        self.mapping.push(mapping);
        self.offset.push(offset);
        for frame in frames {
            self.functions.values().append_value(&frame.function);
            self.files.values().append_value(&frame.file);
            self.lines.values().append_value(frame.line);
        }
        self.functions.append(true);
        self.files.append(true);
        self.lines.append(true);
    }
}

pub(super) fn numbers(values: Vec<u64>) -> ArrayRef {
    Arc::new(UInt64Array::from(values))
}

pub(super) fn texts(values: Vec<String>) -> ArrayRef {
    Arc::new(StringArray::from(values))
}

pub(super) fn doubles(values: Vec<f64>) -> ArrayRef {
    Arc::new(Float64Array::from(values))
}

pub(super) fn flags(values: Vec<bool>) -> ArrayRef {
    Arc::new(BooleanArray::from(values))
}

pub(super) fn codes(values: Vec<u8>) -> ArrayRef {
    Arc::new(UInt8Array::from(values))
}

pub(super) fn times(values: Vec<u32>) -> ArrayRef {
    Arc::new(UInt32Array::from(values))
}

impl SampleRows {
    pub(super) fn into_columns(self) -> Vec<ArrayRef> {
        vec![
            times(self.ts),
            numbers(self.series),
            numbers(self.label_set),
            numbers(self.stack),
            numbers(self.value),
            numbers(self.samples),
            numbers(self.lsn),
        ]
    }
}

impl ExemplarRows {
    pub(super) fn into_columns(self) -> Vec<ArrayRef> {
        vec![
            times(self.ts),
            numbers(self.series),
            numbers(self.label_set),
            numbers(self.stack),
            numbers(self.value),
            numbers(self.at_ns),
            numbers(self.trace_high),
            numbers(self.trace_low),
            numbers(self.span_id),
            numbers(self.cut),
            numbers(self.lsn),
        ]
    }
}

impl WindowRows {
    pub(super) fn into_columns(mut self) -> Vec<ArrayRef> {
        vec![
            times(self.ts),
            numbers(self.workload),
            codes(self.component),
            times(self.length),
            flags(self.has_requests),
            flags(self.has_profiles),
            Arc::new(self.profile_types.finish()),
            doubles(self.rate_hz),
            numbers(self.dropped),
            numbers(self.truncated),
            numbers(self.cpu_ns),
            numbers(self.overhead_ns),
            numbers(self.lsn),
        ]
    }
}
