//! A collector for tests: real gRPC servers that remember what they were sent and answer as told.
//!
//! It knows nothing of the proxy, so that unit tests can include it too. It runs on threads of its own: a test can
//! kill it in the middle of anything, as a crash would.

#![allow(dead_code)]

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use emberline_model::{
    BatchId, Signal, WorkloadWindow,
    batch::BATCH_ID_HEADER,
    otlp,
    proto::v1::{
        ShouldUploadRequest, ShouldUploadResponse, UploadRequest, UploadResponse,
        debug_info_server::{DebugInfo, DebugInfoServer},
        upload_request::Part,
    },
    time::Clock,
};
use opentelemetry_proto::tonic::collector::{
    metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    profiles::v1development::{
        ExportProfilesServiceRequest, ExportProfilesServiceResponse,
        profiles_service_server::{ProfilesService, ProfilesServiceServer},
    },
};
use parking_lot::Mutex;
use tonic::{Request, Response, Status, Streaming, codec::CompressionEncoding, metadata::MetadataMap};

/// A clock that stands still until it is told.
#[derive(Debug, Default)]
pub(crate) struct ManualClock(AtomicI64);

impl ManualClock {
    pub(crate) fn at_ms(unix_ms: i64) -> Arc<ManualClock> {
        let clock = ManualClock::default();
        clock.set_ms(unix_ms);
        Arc::new(clock)
    }

    pub(crate) fn set_ms(&self, unix_ms: i64) {
        self.0.store(unix_ms * 1_000_000, Ordering::SeqCst);
    }

    pub(crate) fn advance_ms(&self, ms: i64) {
        self.0.fetch_add(ms * 1_000_000, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_unix_ns(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Waits until a condition holds; a minute is far more than any of them takes.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

type Decide = dyn Fn(u64, &BatchId) -> Result<(), Status> + Send + Sync;
type DecideBuild<T> = dyn Fn(usize) -> Result<T, Status> + Send + Sync;

/// What the collector saw and how it answers.
pub(crate) struct Book {
    /// Every attempt: id and windows, whatever the answer was.
    pub(crate) attempts: Mutex<Vec<(BatchId, Vec<WorkloadWindow>)>>,
    /// Acknowledged batches, each id once as a store would keep it.
    pub(crate) stored: Mutex<BTreeMap<BatchId, Vec<WorkloadWindow>>>,
    /// Acknowledged batches in order of arrival, repetitions included.
    pub(crate) acked: Mutex<Vec<BatchId>>,
    /// The answer to the n-th attempt (from 0).
    pub(crate) decide: Mutex<Box<Decide>>,
    /// Text put into the answers of requests batches.
    pub(crate) message: Mutex<String>,
    /// Questions about builds.
    pub(crate) asked: Mutex<Vec<ShouldUploadRequest>>,
    /// Whether builds are wanted, by the number of the question (from 0).
    pub(crate) wants: Mutex<Box<DecideBuild<bool>>>,
    /// Upload streams begun.
    pub(crate) uploads_begun: Mutex<usize>,
    /// The answer to the n-th upload (from 0) after its bytes arrived.
    pub(crate) accepts: Mutex<Box<DecideBuild<()>>>,
    /// Files received whole, by build id.
    pub(crate) files: Mutex<HashMap<String, Vec<u8>>>,
    /// Size of the largest piece of an upload.
    pub(crate) largest_piece: Mutex<usize>,
}

impl Default for Book {
    fn default() -> Book {
        Book {
            attempts: Mutex::default(),
            stored: Mutex::default(),
            acked: Mutex::default(),
            decide: Mutex::new(Box::new(|_, _| Ok(()))),
            message: Mutex::default(),
            asked: Mutex::default(),
            wants: Mutex::new(Box::new(|_| Ok(false))),
            uploads_begun: Mutex::default(),
            accepts: Mutex::new(Box::new(|_| Ok(()))),
            files: Mutex::default(),
            largest_piece: Mutex::default(),
        }
    }
}

impl Book {
    pub(crate) fn answer_with(&self, decide: impl Fn(u64, &BatchId) -> Result<(), Status> + Send + Sync + 'static) {
        *self.decide.lock() = Box::new(decide);
    }

    fn take(&self, metadata: &MetadataMap, windows: Vec<WorkloadWindow>) -> Result<(), Status> {
        let id = metadata
            .get(BATCH_ID_HEADER)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        let id: BatchId = id.parse().map_err(|e| Status::invalid_argument(format!("{e}")))?;
        let number = {
            let mut attempts = self.attempts.lock();
            attempts.push((id.clone(), windows.clone()));
            attempts.len() as u64 - 1
        };
        (self.decide.lock())(number, &id)?;
        self.acked.lock().push(id.clone());
        self.stored.lock().insert(id, windows);
        Ok(())
    }

    /// Windows stored, of both signals, in the order of their ids.
    pub(crate) fn windows(&self) -> Vec<WorkloadWindow> {
        self.stored.lock().values().flatten().cloned().collect()
    }

    /// Starts of the windows stored with a signal, sorted.
    pub(crate) fn starts(&self, signal: Signal) -> Vec<i64> {
        let has = |w: &WorkloadWindow| {
            if signal == Signal::Requests {
                w.has_requests
            } else {
                w.has_profiles
            }
        };
        let mut starts: Vec<i64> = self
            .windows()
            .iter()
            .filter(|w| has(w))
            .map(|w| w.start_unix_s)
            .collect();
        starts.sort_unstable();
        starts
    }

    /// Requests in all stored batches.
    pub(crate) fn requests(&self) -> u64 {
        self.windows()
            .iter()
            .flat_map(|w| &w.requests)
            .map(|r| r.duration.count())
            .sum()
    }
}

struct Service(Arc<Book>);

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let (metadata, _, body) = request.into_parts();
        self.0.take(&metadata, otlp::decode_metrics(body).windows)?;
        let error_message = self.0.message.lock().clone();
        let partial_success = (!error_message.is_empty()).then_some(ExportMetricsPartialSuccess {
            rejected_data_points: 0,
            error_message,
        });
        Ok(Response::new(ExportMetricsServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl ProfilesService for Service {
    async fn export(
        &self,
        request: Request<ExportProfilesServiceRequest>,
    ) -> Result<Response<ExportProfilesServiceResponse>, Status> {
        let (metadata, _, body) = request.into_parts();
        let decoded = otlp::decode_profiles(&body).map_err(|e| Status::invalid_argument(e.to_string()))?;
        self.0.take(&metadata, decoded.windows)?;
        Ok(Response::new(ExportProfilesServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl DebugInfo for Service {
    async fn should_upload(
        &self,
        request: Request<ShouldUploadRequest>,
    ) -> Result<Response<ShouldUploadResponse>, Status> {
        let number = {
            let mut asked = self.0.asked.lock();
            asked.push(request.into_inner());
            asked.len() - 1
        };
        let upload = (self.0.wants.lock())(number)?;
        Ok(Response::new(ShouldUploadResponse {
            upload,
            reason: String::new(),
        }))
    }

    async fn upload(&self, request: Request<Streaming<UploadRequest>>) -> Result<Response<UploadResponse>, Status> {
        let number = {
            let mut begun = self.0.uploads_begun.lock();
            *begun += 1;
            *begun - 1
        };
        let mut parts = request.into_inner();
        let header = match parts.message().await?.and_then(|m| m.part) {
            Some(Part::Header(header)) => header,
            _ => return Err(Status::invalid_argument("no header")),
        };
        let mut bytes = Vec::new();
        while let Some(message) = parts.message().await? {
            match message.part {
                Some(Part::Chunk(chunk)) => {
                    let mut largest = self.0.largest_piece.lock();
                    *largest = chunk.len().max(*largest);
                    bytes.extend(chunk);
                }
                _ => return Err(Status::invalid_argument("not a chunk")),
            }
        }
        (self.0.accepts.lock())(number)?;
        if bytes.len() as u64 != header.size {
            return Err(Status::invalid_argument("size differs"));
        }
        let received_bytes = bytes.len() as u64;
        self.0.files.lock().insert(header.build_id, bytes);
        Ok(Response::new(UploadResponse { received_bytes }))
    }
}

/// A running collector. Dropping it kills it.
pub(crate) struct FakeCollector {
    pub(crate) addr: SocketAddr,
    pub(crate) book: Arc<Book>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl FakeCollector {
    /// Starts one on a port of its own.
    pub(crate) fn start() -> FakeCollector {
        FakeCollector::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), Arc::default())
    }

    /// Starts one at an address, with a book to go on with.
    pub(crate) fn start_at(addr: SocketAddr, book: Arc<Book>) -> FakeCollector {
        // A collector that was just killed may hold the port for a moment.
        let deadline = Instant::now() + Duration::from_secs(30);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime for the test");
        let listener = loop {
            match std::net::TcpListener::bind(addr) {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < deadline, "cannot listen at {addr}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let addr = listener.local_addr().expect("a bound socket has an address");
        listener
            .set_nonblocking(true)
            .expect("a socket can be made non-blocking");
        let entered = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener).expect("the runtime is there");
        drop(entered);
        let zstd = CompressionEncoding::Zstd;
        let server = tonic::transport::Server::builder()
            .add_service(MetricsServiceServer::new(Service(Arc::clone(&book))).accept_compressed(zstd))
            .add_service(ProfilesServiceServer::new(Service(Arc::clone(&book))).accept_compressed(zstd))
            .add_service(DebugInfoServer::new(Service(Arc::clone(&book))))
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
        runtime.spawn(server);
        FakeCollector {
            addr,
            book,
            runtime: Some(runtime),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Kills it at once: connections break, nothing is answered any more.
    pub(crate) fn kill(mut self) -> (SocketAddr, Arc<Book>) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        (self.addr, Arc::clone(&self.book))
    }
}

impl Drop for FakeCollector {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
