//! Debug information of builds: requested once, sent once.
//!
//! Guarantees: those of [`crate::symbols::files`]; a file is requested if the collector has none for that build
//! (locations not yet executed may need it), or has one from a sender with a weaker claim; a "no" says why, and a
//! sender that stalls is cut off.

use std::{net::IpAddr, sync::Arc, time::Duration};

use emberline_model::proto::v1::{
    ShouldUploadRequest, ShouldUploadResponse, UploadHeader, UploadRequest, UploadResponse,
    debug_info_server::{DebugInfo, DebugInfoServer},
    upload_request::Part,
};
use emberline_storage::Store;
use tokio::sync::Notify;
use tonic::{Code, Request, Response, Status, Streaming};

use super::sender::SenderKey;
use crate::{
    self_metrics::SelfMetrics,
    symbols::{
        files::{DebugFiles, Kept, Origin},
        reporters::Reporters,
        unwanted::Unwanted,
    },
};

/// The longest pause between two parts.
const STALL: Duration = Duration::from_secs(30);
/// The largest part; senders use at most 256 KiB.
const MAX_PART_BYTES: usize = 4 << 20;

/// The service.
pub(crate) struct DebugInfoService {
    pub(crate) files: Arc<DebugFiles>,
    pub(crate) store: Store,
    pub(crate) reporters: Arc<Reporters>,
    pub(crate) metrics: SelfMetrics,
    /// Notified when a file has arrived.
    pub(crate) arrived: Arc<Notify>,
}

/// The gRPC service.
pub(crate) fn server(service: DebugInfoService) -> DebugInfoServer<DebugInfoService> {
    DebugInfoServer::new(service).max_decoding_message_size(MAX_PART_BYTES)
}

fn code(unwanted: &Unwanted) -> Code {
    match unwanted {
        Unwanted::Stored | Unwanted::BeingSent => Code::AlreadyExists,
        Unwanted::TooManyAtOnce | Unwanted::TooManyOfAddress | Unwanted::NoRoom { .. } | Unwanted::Disk { .. } => {
            Code::Unavailable
        }
        Unwanted::TooSlow { .. } => Code::DeadlineExceeded,
        Unwanted::RefusedBefore(_) | Unwanted::Unreadable(_) => Code::FailedPrecondition,
        Unwanted::TooLarge { .. } => Code::OutOfRange,
        Unwanted::NotABuildId(_) | Unwanted::WrongSize { .. } | Unwanted::WrongFile { .. } => Code::InvalidArgument,
    }
}

fn reason(unwanted: &Unwanted) -> &'static str {
    match unwanted {
        Unwanted::NotABuildId(_) => "not_a_build_id",
        Unwanted::Stored => "stored",
        Unwanted::BeingSent => "being_sent",
        Unwanted::TooManyAtOnce => "too_many_at_once",
        Unwanted::TooManyOfAddress => "too_many_of_address",
        Unwanted::NoRoom { .. } => "no_room",
        Unwanted::TooSlow { .. } => "too_slow",
        Unwanted::Unreadable(_) => "unreadable",
        Unwanted::TooLarge { .. } => "too_large",
        Unwanted::WrongSize { .. } => "wrong_size",
        Unwanted::WrongFile { .. } => "wrong_file",
        Unwanted::RefusedBefore(_) => "refused_before",
        Unwanted::Disk { .. } => "disk",
    }
}

#[tonic::async_trait]
impl DebugInfo for DebugInfoService {
    async fn should_upload(
        &self,
        request: Request<ShouldUploadRequest>,
    ) -> Result<Response<ShouldUploadResponse>, Status> {
        let address = SenderKey::of(request.extensions()).address();
        let asked = request.into_inner();
        let from = self.origin(&asked.build_id, address);
        match self.files.wanted(&asked.build_id, asked.size, &from) {
            Ok(()) => Ok(Response::new(ShouldUploadResponse {
                upload: true,
                reason: "unknown build".to_owned(),
            })),
            Err(unwanted @ Unwanted::NotABuildId(_)) => Err(Status::invalid_argument(unwanted.to_string())),
            Err(unwanted) => Ok(Response::new(ShouldUploadResponse {
                upload: false,
                reason: unwanted.to_string(),
            })),
        }
    }

    async fn upload(&self, request: Request<Streaming<UploadRequest>>) -> Result<Response<UploadResponse>, Status> {
        let address = SenderKey::of(request.extensions()).address();
        match self.take(address, request.into_inner()).await {
            Ok(received_bytes) => {
                self.metrics.debuginfo("stored");
                self.arrived.notify_one();
                Ok(Response::new(UploadResponse { received_bytes }))
            }
            Err((outcome, status)) => {
                self.metrics.debuginfo(outcome);
                tracing::debug!(outcome, "debug information was not stored: {}", status.message());
                Err(status)
            }
        }
    }
}

type Failure = (&'static str, Status);

impl DebugInfoService {
    /// Who sends a build's file, as far as known.
    fn origin(&self, build: &str, address: Option<IpAddr>) -> Origin {
        Origin {
            address,
            reported_unix_ms: address.and_then(|address| self.reporters.since(build, address)),
            ..Origin::default()
        }
    }

    async fn take(&self, address: Option<IpAddr>, mut parts: Streaming<UploadRequest>) -> Result<u64, Failure> {
        let unwanted = |unwanted: Unwanted| (reason(&unwanted), Status::new(code(&unwanted), unwanted.to_string()));
        let protocol = |text: &str| ("protocol", Status::invalid_argument(text));
        let header: UploadHeader = match next(&mut parts).await? {
            Some(Part::Header(header)) => header,
            _ => {
                return Err(protocol(
                    "the first part of an upload must be its header (build id, path and size)",
                ));
            }
        };
        let from = Origin {
            path: header.path.clone(),
            sender: header.sender.clone(),
            ..self.origin(&header.build_id, address)
        };
        let receiving = self.files.receive(&header.build_id, header.size, from);
        let mut receiving = receiving.await.map_err(unwanted)?;
        while let Some(part) = next(&mut parts).await? {
            let Part::Chunk(chunk) = part else {
                return Err(protocol("an upload must have only one header, at its beginning"));
            };
            receiving.write(&chunk).await.map_err(unwanted)?;
        }
        let Kept { bytes, replaced } = receiving.finish().await.map_err(unwanted)?;
        if replaced {
            self.metrics.debuginfo("replaced");
            tracing::warn!(
                build = header.build_id,
                address = address.map(tracing::field::display),
                "debug file replaced by that of a sender that runs this build; resolving names again"
            );
            let (store, build) = (self.store.clone(), header.build_id.clone());
            // Names from the previous file were stored in a file, which is removed.
            let forgotten = tokio::task::spawn_blocking(move || store.forget_symbols(&build)).await;
            if !matches!(forgotten, Ok(Ok(()))) {
                tracing::error!(
                    build = header.build_id,
                    ?forgotten,
                    "names from the replaced file remain; remove them with `emberline store symbols forget`"
                );
            }
        }
        tracing::info!(
            build = header.build_id,
            path = header.path,
            bytes,
            "debug information uploaded"
        );
        Ok(bytes)
    }
}

/// The next part; `None` at the end of the stream.
async fn next(parts: &mut Streaming<UploadRequest>) -> Result<Option<Part>, Failure> {
    match tokio::time::timeout(STALL, parts.message()).await {
        Ok(Ok(None)) => Ok(None),
        Ok(Ok(Some(UploadRequest { part: Some(part) }))) => Ok(Some(part)),
        Ok(Ok(Some(_))) => Err((
            "protocol",
            Status::invalid_argument("an upload part contains neither a header nor a chunk"),
        )),
        Ok(Err(status)) => Err(("broken_stream", status)),
        Err(_) => {
            let message = format!("no data received for {} s; send the file again", STALL.as_secs());
            Err(("stalled", Status::deadline_exceeded(message)))
        }
    }
}
