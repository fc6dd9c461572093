//! What is added up, besides samples, when an hour is sealed or a day compacted: requests and CPU over quarters of an
//! hour and over the processes of a release, and consecutive windows into runs.
//!
//! Guarantees: sums contain every row they are made of once; a window's row is counted where the window begins (`ts`)
//! and records where its middle is (`piece`), because a range has the windows that begin in it and a step those whose
//! middles are in it; runs keep the start, the length and the signals of every window. Pieces sealed before sums
//! existed are added up when their day is compacted.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, StructArray},
    datatypes::{Field, Fields},
};
use emberline_model::{Histogram, ProfileType, Release, RequestSeries, Side};

use super::{
    cut::QUARTER_OF_HOUR,
    rows::{RequestRows, type_id},
    schema::{column_names, columns, order},
};
use crate::hot::saturated::saturated_u64;
use crate::{parts::Kind, questions::columns::Columns, readers::Failure};

/// Rows of requests added up at a time when an hour is sealed: each may be a sum of its own, which takes a kilobyte.
pub(super) const SEALED_ROWS: u64 = 32 << 10;
/// The same for a day whose hours have no sums: each chunk reads the source again.
pub(super) const CHUNK_ROWS: u64 = 512 << 10;
/// Sums written at a time.
pub(super) const CHUNK_SUMS: u64 = 32 << 10;

/// The unit that contains the middle of a window of length `length` that begins at `ts`.
fn piece(ts: &str, length: &str) -> String {
    let middle = format!("({ts} + coalesce({length}, 0) // 2)");
    format!("CAST({middle} - {middle} % {QUARTER_OF_HOUR} AS UINTEGER)")
}

/// The input of [`RequestSums::add`], from rows of requests and the windows they belong to.
pub(super) fn of_requests(requests: &str, windows: &str, condition: &str) -> String {
    format!(
        "SELECT CAST(r.ts - r.ts % {QUARTER_OF_HOUR} AS UINTEGER), {}, {SUMMED} FROM {requests} r
            JOIN series d ON d.series_id = r.series_id
            LEFT JOIN (SELECT ts, workload_id, component, max(length) AS length FROM {windows} WHERE has_requests
                GROUP BY 1, 2, 3) w ON w.ts = r.ts AND w.workload_id = d.workload_id AND w.component = d.component
         WHERE {condition}",
        piece("r.ts", "w.length")
    )
}

/// The same from sums.
pub(super) fn of_sums(sums: &str, condition: &str) -> String {
    format!("SELECT r.ts, r.piece, {SUMMED} FROM {sums} r JOIN series d ON d.series_id = r.series_id WHERE {condition}")
}

const SUMMED: &str = "r.series_id, d.namespace, d.service, d.version, d.component, r.side, r.route, r.method,
    r.peer_namespace, r.peer_service, r.peer_version, r.protocol, r.status, r.error, r.zero_count, r.sum, r.min, r.max,
    r.bucket, r.n, r.request_bytes, r.response_bytes, coalesce(r.destination, ''), coalesce(r.streaming_s, 0),
    coalesce(r.open, 0)";

/// CPU by quarter of an hour, release and label set.
pub(super) fn of_cpu(samples: &str, windows: &str) -> String {
    let cpu = ProfileType::CPU;
    format!(
        "SELECT CAST(s.ts - s.ts % {QUARTER_OF_HOUR} AS UINTEGER) AS ts, {} AS piece, r.series_id, s.label_set,
            {sum_of_values} AS value,
            {sum_of_samples} AS samples
         FROM {samples} s JOIN series d ON d.series_id = s.series_id
            JOIN series r ON r.namespace = d.namespace AND r.service = d.service AND r.version = d.version
                AND r.instance = '' AND r.component = d.component AND r.profile_type = d.profile_type
            LEFT JOIN (SELECT ts, workload_id, component, max(length) AS length FROM {windows}
                WHERE has_profiles AND (profile_types IS NULL OR len(profile_types) = 0
                    OR list_contains(profile_types, {}::UBIGINT)) GROUP BY 1, 2, 3) w
                ON w.ts = s.ts AND w.workload_id = d.workload_id AND w.component = d.component
         WHERE d.profile_type = '{cpu}' GROUP BY 1, 2, 3, 4",
        piece("s.ts", "w.length"),
        type_id(cpu),
        sum_of_values = saturated_u64!("sum(s.value)"),
        sum_of_samples = saturated_u64!("sum(s.samples)"),
    )
}

/// Windows as runs. A window that is there twice counts once.
pub(super) fn of_windows(windows: &str) -> String {
    format!(
        "SELECT min(ts) AS ts, workload_id, component, length, CAST(count(*) AS UINTEGER) AS windows, has_requests,
            has_profiles, profile_types
         FROM (SELECT *, ts::BIGINT - length::BIGINT * row_number() OVER (PARTITION BY workload_id, component, length,
                has_requests, has_profiles, profile_types ORDER BY ts) AS run
            FROM (SELECT DISTINCT ts, workload_id, component, length, has_requests, has_profiles, profile_types
                FROM {windows}))
         GROUP BY run, workload_id, component, length, has_requests, has_profiles, profile_types"
    )
}

/// Rows of queries as rows of a part of a kind, in its order.
pub(super) fn sorted(kind: Kind, queries: &[String]) -> String {
    let (names, order) = (column_names(kind), order(kind));
    let each: Vec<String> = queries
        .iter()
        .map(|query| format!("SELECT {names} FROM ({query})"))
        .collect();
    format!("{} ORDER BY {order}", each.join(" UNION ALL "))
}

/// Requests being added up.
pub(super) struct RequestSums {
    unit_s: u32,
    sums: HashMap<Vec<u8>, Sum>,
    key: Vec<u8>,
}

struct Sum {
    ts: u32,
    piece: u32,
    series: u64,
    requests: RequestSeries,
}

impl RequestSums {
    /// Over units of `unit_s` seconds.
    pub(super) fn new(unit_s: u32) -> RequestSums {
        RequestSums {
            unit_s,
            sums: HashMap::new(),
            key: Vec::new(),
        }
    }

    /// Adds rows.
    pub(super) fn add(&mut self, columns: &Columns<'_>) -> Result<(), Failure> {
        let (ts, piece, series) = (columns.u32(0)?, columns.u32(1)?, columns.u64(2)?);
        let (namespace, service, version) = (columns.text(3)?, columns.text(4)?, columns.text(5)?);
        let (component, side) = (columns.u8(6)?, columns.u8(7)?);
        let (route, method) = (columns.text(8)?, columns.text(9)?);
        let (peer_namespace, peer_service) = (columns.text(10)?, columns.text(11)?);
        let (peer_version, protocol) = (columns.text(12)?, columns.text(13)?);
        let (status, error) = (columns.u16(14)?, columns.flag(15)?);
        let (zero_count, sum) = (columns.u64(16)?, columns.f64(17)?);
        let (min, max) = (columns.f64(18)?, columns.f64(19)?);
        let (bucket, n) = (columns.list(20)?, columns.list(21)?);
        let (request_bytes, response_bytes) = (columns.u64(22)?, columns.u64(23)?);
        let (destination, streaming_s, open) = (columns.text(24)?, columns.f64(25)?, columns.u64(26)?);
        for row in 0..columns.rows() {
            let (ts, piece) = (ts[row] - ts[row] % self.unit_s, piece[row] - piece[row] % self.unit_s);
            self.key.clear();
            for number in [ts, piece, u32::from(status[row])] {
                self.key.extend_from_slice(&number.to_le_bytes());
            }
            self.key.extend([component[row], side[row], u8::from(error.value(row))]);
            let texts = [
                &namespace,
                &service,
                &version,
                &route,
                &method,
                &peer_namespace,
                &peer_service,
                &peer_version,
                &protocol,
                &destination,
            ];
            for text in texts {
                // No text is different from an empty text.
                let text = text.get(row);
                let length = text.map_or(u32::MAX, |text| text.len() as u32);
                self.key.extend_from_slice(&length.to_le_bytes());
                self.key.extend_from_slice(text.unwrap_or_default().as_bytes());
            }
            let duration = Histogram::from_parts(
                zero_count[row],
                sum[row],
                min[row],
                max[row],
                bucket.i16(row)?.into_iter().zip(n.u64(row)?),
            );
            if let Some(sum) = self.sums.get_mut(&self.key) {
                let requests = &mut sum.requests;
                requests.duration.merge(&duration);
                requests.request_bytes = requests.request_bytes.saturating_add(request_bytes[row]);
                requests.response_bytes = requests.response_bytes.saturating_add(response_bytes[row]);
                requests.streaming_s += streaming_s[row];
                requests.open = requests.open.saturating_add(open[row]);
                sum.series = sum.series.min(series[row]);
                continue;
            }
            // Rows have had a side ever since they were written; any other code is damage.
            let Some(side) = Side::from_code(u32::from(side[row])) else {
                continue;
            };
            let requests = RequestSeries {
                side,
                route: route.string(row),
                method: method.string(row),
                peer: peer_service.get(row).map(|service| Release {
                    namespace: peer_namespace.string(row),
                    service: service.to_owned(),
                    version: peer_version.string(row),
                }),
                destination: destination.string(row),
                protocol: protocol.string(row),
                status: status[row],
                error: error.value(row),
                duration,
                streaming_s: streaming_s[row],
                request_bytes: request_bytes[row],
                response_bytes: response_bytes[row],
                open: open[row],
            };
            let series = series[row];
            if let Entry::Vacant(free) = self.sums.entry(self.key.clone()) {
                free.insert(Sum {
                    ts,
                    piece,
                    series,
                    requests,
                });
            }
        }
        Ok(())
    }

    /// The sums as rows, in the order of a part; `None` when there are none.
    pub(super) fn finish(self) -> Option<StructArray> {
        let mut sums: Vec<Sum> = self.sums.into_values().collect();
        if sums.is_empty() {
            return None;
        }
        sums.sort_by(|a, b| {
            let key = |sum: &Sum| (sum.series, sum.requests.side.code());
            let texts = |sum: &Sum| {
                let of = &sum.requests;
                [of.route.clone(), of.method.clone(), of.protocol.clone()]
            };
            let rest = |sum: &Sum| {
                let of = &sum.requests;
                (of.status, of.destination.clone(), of.peer.clone(), sum.ts, sum.piece)
            };
            let by_key = key(a).cmp(&key(b)).then_with(|| texts(a).cmp(&texts(b)));
            by_key.then_with(|| rest(a).cmp(&rest(b)))
        });
        let mut rows = RequestRows::default();
        let mut pieces = arrow::array::UInt32Builder::with_capacity(sums.len());
        for sum in &sums {
            rows.push(&sum.requests, sum.ts, sum.series, 0);
            pieces.append_value(sum.piece);
        }
        let mut arrays: Vec<ArrayRef> = rows.into_columns();
        // Sums have no batch of their own.
        arrays.pop();
        arrays.insert(1, Arc::new(pieces.finish()));
        let names = columns(Kind::Sums).iter().map(|(name, _)| *name);
        let fields: Fields = names
            .zip(&arrays)
            .map(|(name, array)| Field::new(name, array.data_type().clone(), true))
            .collect();
        Some(StructArray::new(fields, arrays, None))
    }
}
