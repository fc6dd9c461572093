//! A collector on real sockets with a real store in a temporary folder, and batches to send it.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses a part of this"
)]

pub mod asking;
pub mod canary;
pub mod wire;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use emberline_collector::{Collector, CollectorConfig, Tasks};
use emberline_model::{
    Batch, Component, Frame, Histogram, LabelSet, Location, Mapping, Profile, Release, RequestSeries, Sample, Side,
    Workload, WorkloadWindow, time::Clock,
};
use emberline_storage::{Options, Store};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Channel;

/// Start of the first window of the tests.
pub const T0: i64 = 1_790_000_000;

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    pub fn at(unix_s: i64) -> Arc<ManualClock> {
        Arc::new(ManualClock(AtomicI64::new(unix_s * 1_000_000_000)))
    }

    pub fn set(&self, unix_s: i64) {
        self.0.store(unix_s * 1_000_000_000, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_unix_ns(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

pub struct Server {
    pub collector: Collector,
    pub store: Store,
    pub clock: Arc<ManualClock>,
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    pub dir: PathBuf,
    tasks: Option<Tasks>,
    servers: Vec<tokio::task::JoinHandle<()>>,
    keep: Option<tempfile::TempDir>,
}

impl Server {
    /// A collector with a changed configuration, in a new folder.
    pub async fn start(change: impl FnOnce(&mut CollectorConfig)) -> Server {
        let keep = tempfile::tempdir().unwrap();
        let mut server = Server::start_in(keep.path().to_owned(), ManualClock::at(T0 + 60), change).await;
        server.keep = Some(keep);
        server
    }

    pub async fn start_in(dir: PathBuf, clock: Arc<ManualClock>, change: impl FnOnce(&mut CollectorConfig)) -> Server {
        let store = Store::open(
            Options {
                memory_limit_mb: 128,
                ..Options::new(&dir)
            },
            clock.clone(),
        )
        .unwrap();
        let mut config = CollectorConfig::new(&dir);
        config.symbol_reader = Some(vec![env!("CARGO_BIN_EXE_emberline-read-symbols").into()]);
        change(&mut config);
        let collector = Collector::new(config, store.clone(), clock.clone()).unwrap();
        let (grpc_listener, http_listener) = (listen().await, listen().await);
        let (grpc, http) = (grpc_listener.local_addr().unwrap(), http_listener.local_addr().unwrap());
        let routes = collector.grpc_router();
        let http_routes = collector.http_router();
        let servers = vec![
            tokio::spawn(async move {
                let incoming = TcpListenerStream::new(grpc_listener);
                tonic::transport::Server::builder()
                    .add_routes(routes)
                    .serve_with_incoming(incoming)
                    .await
                    .unwrap();
            }),
            tokio::spawn(async move {
                let service = http_routes.into_make_service_with_connect_info::<SocketAddr>();
                axum::serve(http_listener, service).await.unwrap();
            }),
        ];
        Server {
            collector,
            store,
            clock,
            grpc,
            http,
            dir,
            tasks: None,
            servers,
            keep: None,
        }
    }

    /// Seconds since the Unix epoch.
    pub fn clock_s(&self) -> i64 {
        self.clock.now_unix_s()
    }

    /// Starts symbol worker, verdict runner and notifiers.
    pub fn spawn_tasks(&mut self) {
        self.tasks = Some(self.collector.spawn_tasks());
    }

    pub async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.grpc))
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    /// Stores windows as one batch without an id, and makes them visible.
    pub async fn append(&self, windows: Vec<WorkloadWindow>) {
        let batch = Batch {
            id: None,
            received_unix_ms: self.clock.now_unix_ms(),
            windows,
        };
        self.store.append(batch).await.unwrap();
    }

    /// Stops everything and frees the data directory; the folder stays when it is not this server's own.
    pub async fn stop(mut self) {
        if let Some(tasks) = self.tasks.take() {
            tasks.shutdown().await;
        }
        self.servers.iter().for_each(|server| server.abort());
        for server in self.servers.drain(..) {
            let _ = server.await;
        }
        self.store.close();
    }
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Polls until something is there; the deadline is far beyond what it takes.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited for a minute: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn release(service: &str, version: &str) -> Release {
    Release {
        namespace: "demo".into(),
        service: service.into(),
        version: version.into(),
    }
}

pub fn window(service: &str, version: &str, start_unix_s: i64) -> WorkloadWindow {
    WorkloadWindow {
        workload: Workload {
            namespace: "demo".into(),
            service: service.into(),
            version: version.into(),
            instance: format!("{service}-{version}-0"),
        },
        component: Component::Application,
        start_unix_s,
        length_s: 10,
        has_requests: true,
        has_profiles: true,
        requests: Vec::new(),
        profiles: Vec::new(),
    }
}

pub fn series(side: Side, route: &str, peer: Option<Release>, nanoseconds: &[u64]) -> RequestSeries {
    let mut duration = Histogram::new();
    nanoseconds.iter().for_each(|&ns| duration.record_ns(ns));
    RequestSeries {
        side,
        route: route.into(),
        method: "GET".into(),
        peer,
        destination: String::new(),
        protocol: "http/1.1".into(),
        status: 200,
        error: false,
        duration,
        streaming_s: 0.0,
        request_bytes: 10,
        response_bytes: 20,
        open: 0,
    }
}

/// A window whose one stack is of an address of a build.
pub fn native_window(service: &str, build: &str, offset: u64) -> WorkloadWindow {
    let mut profile = Profile::empty_cpu(T0 * 1_000_000_000, 10_000_000_000);
    profile.mappings = vec![Mapping {
        build_id: build.into(),
        path: format!("/srv/{service}"),
    }];
    profile.label_sets = vec![LabelSet::none()];
    profile.locations = vec![Location::Native { mapping: 0, offset }];
    profile.stacks = vec![vec![0]];
    profile.samples = vec![Sample {
        stack: 0,
        label_set: 0,
        value: 1,
        count: 1,
    }];
    let mut window = window(service, "1", T0);
    window.profiles = vec![profile];
    window
}

/// A CPU profile of one window; stacks are leaf first, values in milliseconds, sampled every 10 ms.
pub fn profile(start_unix_s: i64, rows: &[(&str, &[&str], i64)]) -> Profile {
    let mut profile = Profile::empty_cpu(start_unix_s * 1_000_000_000, 10_000_000_000);
    profile.period = 10_000_000;
    for (route, stack, milliseconds) in rows {
        let locations = stack.iter().map(|name| {
            let frame = Frame {
                function: (*name).to_owned(),
                file: "src/x.rs".to_owned(),
                line: 1,
            };
            profile.locations.push(Location::Named { frames: vec![frame] });
            profile.locations.len() as u32 - 1
        });
        let locations: Vec<u32> = locations.collect();
        profile.stacks.push(locations);
        let side = (!route.is_empty()).then_some(Side::Server);
        let labels = LabelSet {
            side,
            route: (*route).to_owned(),
            peer: None,
        };
        let label_set = profile.label_sets.iter().position(|l| *l == labels).unwrap_or_else(|| {
            profile.label_sets.push(labels);
            profile.label_sets.len() - 1
        });
        profile.samples.push(Sample {
            stack: profile.stacks.len() as u32 - 1,
            label_set: label_set as u32,
            value: milliseconds * 1_000_000,
            count: (*milliseconds / 10).max(1).unsigned_abs(),
        });
    }
    profile
}

/// Numbers that look random and are the same in every run.
pub struct Numbers(pub u64);

impl Numbers {
    /// Uniform in `0..1`.
    pub fn unit(&mut self) -> f64 {
        // Knuth's MMIX generator; the upper bits are the good ones.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Durations around a median, skewed to the right like latencies are.
    pub fn durations(&mut self, count: usize, median_ms: f64) -> Vec<u64> {
        (0..count)
            .map(|_| (median_ms * 1e6 * (0.7 + 0.5 * self.unit() + self.unit().powi(8))) as u64)
            .collect()
    }
}
