//! Requests as columns. Guarantee: they are in the order of the table's definition, with the batch number last.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int16Builder, ListBuilder, StringBuilder, UInt16Array, UInt64Builder};
use emberline_model::RequestSeries;

use super::columns::{PeerColumns, codes, doubles, flags, numbers, times};
use crate::journal::Lsn;

/// Rows of requests.
#[derive(Default)]
pub(crate) struct RequestRows {
    ts: Vec<u32>,
    series: Vec<u64>,
    side: Vec<u8>,
    route: StringBuilder,
    method: StringBuilder,
    peer: PeerColumns,
    protocol: StringBuilder,
    status: Vec<u16>,
    error: Vec<bool>,
    zero_count: Vec<u64>,
    sum: Vec<f64>,
    min: Vec<f64>,
    max: Vec<f64>,
    bucket: ListBuilder<Int16Builder>,
    n: ListBuilder<UInt64Builder>,
    request_bytes: Vec<u64>,
    response_bytes: Vec<u64>,
    destination: StringBuilder,
    streaming_s: Vec<f64>,
    open: Vec<u64>,
    lsn: Vec<u64>,
}

impl RequestRows {
    /// Adds a row.
    pub(crate) fn push(&mut self, request: &RequestSeries, ts: u32, series: u64, lsn: Lsn) {
        self.ts.push(ts);
        self.series.push(series);
        self.side.push(request.side.code());
        self.route.append_value(&request.route);
        self.method.append_value(&request.method);
        self.peer.push(request.peer.as_ref());
        self.protocol.append_value(&request.protocol);
        self.status.push(request.status);
        self.error.push(request.error);
        let duration = &request.duration;
        self.zero_count.push(duration.zero_count());
        self.sum.push(duration.sum());
        self.min.push(duration.min());
        self.max.push(duration.max());
        for &(bucket, n) in duration.buckets() {
            self.bucket.values().append_value(bucket);
            self.n.values().append_value(n);
        }
        self.bucket.append(true);
        self.n.append(true);
        self.request_bytes.push(request.request_bytes);
        self.response_bytes.push(request.response_bytes);
        self.destination.append_value(&request.destination);
        self.streaming_s.push(request.streaming_s);
        self.open.push(request.open);
        self.lsn.push(lsn);
    }

    /// The columns of all rows.
    pub(crate) fn into_columns(mut self) -> Vec<ArrayRef> {
        let [namespace, service, version] = self.peer.finish();
        vec![
            times(self.ts),
            numbers(self.series),
            codes(self.side),
            Arc::new(self.route.finish()),
            Arc::new(self.method.finish()),
            namespace,
            service,
            version,
            Arc::new(self.protocol.finish()),
            Arc::new(UInt16Array::from(self.status)),
            flags(self.error),
            numbers(self.zero_count),
            doubles(self.sum),
            doubles(self.min),
            doubles(self.max),
            Arc::new(self.bucket.finish()),
            Arc::new(self.n.finish()),
            numbers(self.request_bytes),
            numbers(self.response_bytes),
            Arc::new(self.destination.finish()),
            doubles(self.streaming_s),
            numbers(self.open),
            numbers(self.lsn),
        ]
    }
}
