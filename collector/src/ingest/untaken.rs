//! Traces and logs, which are not stored: SDKs send them to the same address by default, and would log an error for
//! every refused batch.
//!
//! Guarantees: a valid request is answered OK with a partial success that says how many items were not stored and why;
//! invalid bytes are refused as everywhere else. Nothing is stored.

use std::sync::Arc;

use bytes::Bytes;
use emberline_model::otlp;
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsPartialSuccess, ExportMetricsServiceResponse};
use prost::Message;
use tonic::Status;

use super::{Ingest, rejection::Rejection};

/// A signal that is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Untaken {
    Traces,
    Logs,
}

impl Untaken {
    /// Both.
    pub(super) const ALL: [Untaken; 2] = [Untaken::Traces, Untaken::Logs];

    /// Its name in counters and messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Untaken::Traces => "traces",
            Untaken::Logs => "logs",
        }
    }

    /// Its HTTP path.
    pub(super) fn path(self) -> &'static str {
        match self {
            Untaken::Traces => "/v1/traces",
            Untaken::Logs => "/v1/logs",
        }
    }

    /// Its gRPC method.
    pub(super) fn method(self) -> &'static str {
        match self {
            Untaken::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Untaken::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        }
    }

    fn message(self) -> String {
        let (name, variable) = match self {
            Untaken::Traces => ("traces", "OTEL_TRACES_EXPORTER"),
            Untaken::Logs => ("logs", "OTEL_LOGS_EXPORTER"),
        };
        format!("{name} are not supported yet and were not stored; set `{variable}=none` to stop sending them")
    }

    /// The response in protobuf; the messages of all signals have the same shape.
    pub(super) fn protobuf(self, items: u64) -> Vec<u8> {
        let rejected_data_points = i64::try_from(items).unwrap_or(i64::MAX);
        let partial_success = (items > 0).then(|| ExportMetricsPartialSuccess {
            rejected_data_points,
            error_message: self.message(),
        });
        ExportMetricsServiceResponse { partial_success }.encode_to_vec()
    }

    /// The same in JSON.
    pub(super) fn json(self, items: u64) -> Vec<u8> {
        if items == 0 {
            return b"{}".to_vec();
        }
        let rejected = match self {
            Untaken::Traces => "rejectedSpans",
            Untaken::Logs => "rejectedLogRecords",
        };
        let answer = serde_json::json!({
            "partialSuccess": { rejected: items.to_string(), "errorMessage": self.message() }
        });
        answer.to_string().into_bytes()
    }

    /// Counts the items of a request.
    pub(super) fn count(self, ingest: &Ingest, message: &[u8], is_json: bool) -> Result<u64, Rejection> {
        ingest.metrics.ingest_bytes(self.name(), message.len());
        let counted = if is_json {
            otlp::count_items_in_json(message).map_err(|error| error.to_string())
        } else {
            otlp::count_items(message).map_err(|error| error.to_string())
        };
        match counted {
            Ok(items) => {
                ingest.metrics.ingest_request(self.name(), "not_taken", "");
                ingest.metrics.ingest_items(self.name(), "left_out", "not_taken", items);
                Ok(items)
            }
            Err(reason) => {
                let refused = Rejection::Undecodable {
                    what: self.name(),
                    reason,
                };
                ingest.count_refusal(self.name(), &refused);
                Err(refused)
            }
        }
    }

    /// Handles a gRPC call.
    pub(super) async fn export(self, ingest: Arc<Ingest>, message: Bytes) -> Result<Vec<u8>, Status> {
        let items = self
            .count(&ingest, &message, false)
            .map_err(|refused| refused.to_status())?;
        Ok(self.protobuf(items))
    }
}
