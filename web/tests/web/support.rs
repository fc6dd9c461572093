//! A store with a small shop in it, and a way to ask.

use std::sync::Arc;

use axum::{Router, body::Body};
use emberline_model::{
    Batch, Component, Exemplar, Frame, Histogram, LabelSet, Location, Mapping, Profile, ProfileType, Release,
    RequestSeries, Sample, Side, Workload, WorkloadWindow,
    alert::{Alert, AlertStatus, AlertsBoard, ClientServerSplit, ComparisonMode, GuiltyFunction},
    comparison::LatencyEvidence,
    time::Clock,
};
use emberline_storage::{Options, Store};
use emberline_web::{WebState, router};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

/// Start of the first window; `now` is [`NOW_S`].
pub(crate) const BASE_S: i64 = 1_800_000_000;
/// Two minutes later.
pub(crate) const NOW_S: i64 = BASE_S + 120;

/// A clock that stands still.
pub(crate) struct StoppedClock;

impl Clock for StoppedClock {
    fn now_unix_ns(&self) -> i64 {
        NOW_S * 1_000_000_000
    }
}

/// A server without a socket.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) state: WebState,
    pub(crate) router: Router,
    _folder: tempfile::TempDir,
}

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) trailers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl World {
    pub(crate) async fn new(windows: Vec<WorkloadWindow>) -> World {
        let folder = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(StoppedClock);
        let store = Store::open(Options::new(folder.path()), clock.clone()).unwrap();
        for window in windows {
            let batch = Batch {
                id: None,
                received_unix_ms: NOW_S * 1000,
                windows: vec![window],
            };
            store.append(batch).await.unwrap();
        }
        store.flush_applied().await.unwrap();
        let mut state = WebState::new(store.clone(), AlertsBoard::default(), clock);
        state.allow_delete = true;
        World {
            router: router(state.clone()),
            store,
            state,
            _folder: folder,
        }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap();
        Answer {
            status: head.status,
            headers: head.headers,
            trailers: body.trailers().cloned().unwrap_or_default(),
            body: body.to_bytes().to_vec(),
        }
    }

    pub(crate) async fn get(&self, address: &str) -> Answer {
        self.send(Request::get(address).body(Body::empty()).unwrap()).await
    }

    /// The JSON of an answer that must be 200.
    pub(crate) async fn json(&self, address: &str) -> Value {
        let answer = self.get(address).await;
        assert_eq!(answer.status, StatusCode::OK, "{address}: {}", answer.text());
        answer.json()
    }
}

pub(crate) fn release(service: &str, version: &str) -> Release {
    Release {
        namespace: "shop".to_owned(),
        service: service.to_owned(),
        version: version.to_owned(),
    }
}

/// One window of one instance, being filled.
pub(crate) struct Window(WorkloadWindow);

/// A window that both signals of arrived.
pub(crate) fn window(service: &str, version: &str, component: Component, index: i64) -> Window {
    let Release {
        namespace,
        service,
        version,
    } = release(service, version);
    let instance = format!("{service}-{version}-0");
    Window(WorkloadWindow {
        workload: Workload {
            namespace,
            service,
            version,
            instance,
        },
        component,
        start_unix_s: BASE_S + index * 10,
        length_s: 10,
        has_requests: true,
        has_profiles: true,
        requests: Vec::new(),
        profiles: Vec::new(),
    })
}

impl Window {
    /// Requests of 1 ms times 1, 2, 3, ...; the first `errors` of them failed.
    pub(crate) fn requests(
        mut self,
        side: Side,
        route: &str,
        peer: Option<Release>,
        count: u64,
        errors: u64,
    ) -> Window {
        for (status, from, to) in [(500, 0, errors), (200, errors, count)] {
            if from == to {
                continue;
            }
            let mut duration = Histogram::new();
            (from..to).for_each(|n| duration.record_ns((n + 1) * 1_000_000));
            self.0.requests.push(RequestSeries {
                side,
                route: route.to_owned(),
                method: "GET".to_owned(),
                peer: peer.clone(),
                destination: String::new(),
                protocol: "http/1.1".to_owned(),
                status,
                error: status == 500,
                duration,
                streaming_s: 0.0,
                request_bytes: 10,
                response_bytes: 20,
                open: 0,
            });
        }
        self
    }

    /// Says more of the requests that were added last.
    pub(crate) fn of_which(mut self, change: impl FnOnce(&mut RequestSeries)) -> Window {
        change(self.0.requests.last_mut().unwrap());
        self
    }

    /// Samples of one stack, written from the outermost function to the leaf.
    pub(crate) fn stack(
        mut self,
        side: Option<Side>,
        route: &str,
        frames: &[&str],
        value: i64,
        samples: u64,
    ) -> Window {
        let start_ns = self.0.start_unix_s * 1_000_000_000;
        if self.0.profiles.is_empty() {
            self.0.profiles.push(Profile::empty_cpu(start_ns, 10_000_000_000));
        }
        let profile = &mut self.0.profiles[0];
        profile.profile_type = ProfileType::cpu();
        let mut stack = Vec::new();
        for frame in frames.iter().rev() {
            // `0x10@build` is an address without a name.
            let location = match frame.strip_prefix("0x").and_then(|rest| rest.split_once('@')) {
                Some((offset, build)) => {
                    profile.mappings.push(Mapping {
                        build_id: build.to_owned(),
                        path: "/opt/shop/server".to_owned(),
                    });
                    let mapping = profile.mappings.len() as u32 - 1;
                    Location::Native {
                        mapping,
                        offset: u64::from_str_radix(offset, 16).unwrap(),
                    }
                }
                None => Location::Named {
                    frames: vec![Frame {
                        function: (*frame).to_owned(),
                        file: "src/lib.rs".to_owned(),
                        line: 1,
                    }],
                },
            };
            profile.locations.push(location);
            stack.push(profile.locations.len() as u32 - 1);
        }
        let labels = match side {
            Some(side) => LabelSet {
                side: Some(side),
                route: route.to_owned(),
                peer: None,
            },
            None => LabelSet::none(),
        };
        let label_set = profile.label_sets.iter().position(|l| *l == labels).unwrap_or_else(|| {
            profile.label_sets.push(labels);
            profile.label_sets.len() - 1
        });
        profile.stacks.push(stack);
        let row = Sample {
            stack: profile.stacks.len() as u32 - 1,
            label_set: label_set as u32,
            value,
            count: samples,
        };
        profile.samples.push(row);
        self
    }

    /// The first sample of the window once more, with the request it worked for.
    pub(crate) fn exemplar(mut self, trace_id: [u8; 16], span_id: u64) -> Window {
        let start_ns = self.0.start_unix_s * 1_000_000_000;
        let profile = &mut self.0.profiles[0];
        profile.exemplars.push(Exemplar {
            stack: profile.samples[0].stack,
            label_set: profile.samples[0].label_set,
            value: profile.samples[0].value,
            unix_ns: start_ns + 1,
            trace_id,
            span_id,
        });
        self
    }

    /// The profile of this window is lost on the way.
    pub(crate) fn without_profile(mut self) -> Window {
        self.0.has_profiles = false;
        self.0.profiles.clear();
        self
    }

    pub(crate) fn done(self) -> WorkloadWindow {
        self.0
    }
}

pub(crate) const QUOTE: &str = "/quote/{id}";
pub(crate) const HEALTH: &str = "/health";

/// Requests of one window of a release of checkout.
pub(crate) const QUOTES: u64 = 20;

/// Two releases of checkout live side by side from the third window on; `/quote/{id}` of v2 burns four times the
/// CPU under `shop::price_basket`. frontend calls checkout; checkout calls cart (behind a proxy) and payment (which
/// reports nothing).
pub(crate) fn shop() -> Vec<WorkloadWindow> {
    let mut windows = Vec::new();
    let frontend = release("frontend", "v1");
    for index in 0..8 {
        let versions: &[&str] = if index < 2 { &["v1"] } else { &["v1", "v2"] };
        let mut front = window("frontend", "v1", Component::Application, index)
            .requests(Side::Server, "/", None, QUOTES * versions.len() as u64 + 1, 1)
            .stack(Some(Side::Server), "/", &["main", "front::render"], 1_000_000, 1)
            .exemplar([1; 16], 7);
        let mut cart = window("cart", "v1", Component::Proxy, index).stack(
            Some(Side::Server),
            "/cart/{id}",
            &["main", "emberline_proxy::copy"],
            500_000,
            2,
        );
        for &version in versions {
            let checkout = release("checkout", version);
            // One more than arrives: it was lost on the way.
            front = front.requests(Side::Client, QUOTE, Some(checkout.clone()), QUOTES + 1, 0);
            let jitter = (index % 3) * 100_000;
            let price = if version == "v2" { 80_000_000 } else { 20_000_000 } + jitter;
            let mut window = window("checkout", version, Component::Application, index)
                .requests(Side::Server, QUOTE, Some(frontend.clone()), QUOTES, 2)
                .requests(Side::Server, HEALTH, None, 5, 0)
                .requests(Side::Client, "/cart/{id}", Some(release("cart", "v1")), 4, 0)
                .stack(
                    Some(Side::Server),
                    QUOTE,
                    &["main", "shop::quote", "shop::price_basket"],
                    price,
                    (price / 1_000_000) as u64,
                )
                .stack(
                    Some(Side::Server),
                    QUOTE,
                    &["main", "shop::quote", "core::fmt::write"],
                    10_000_000,
                    10,
                )
                .stack(
                    Some(Side::Server),
                    QUOTE,
                    &["main", "shop::quote", "shop::tax", "shop::tax"],
                    3_000_001,
                    3,
                )
                .stack(Some(Side::Server), HEALTH, &["main", "shop::health"], 1_000_000, 1)
                .stack(None, "", &["main", "tokio::runtime::park"], 700_000, 1)
                .stack(
                    Some(Side::Server),
                    QUOTE,
                    &["main", &format!("0x1f@build{version}")],
                    900_000,
                    1,
                );
            if version == "v2" {
                window = window.requests(Side::Client, "/pay", Some(release("payment", "v1")), 3, 1);
            }
            windows.push(window.done());
            cart = cart.requests(Side::Server, "/cart/{id}", Some(checkout), 4, 0);
        }
        windows.push(front.done());
        windows.push(cart.done());
    }
    windows
}

/// An alert as the verdict runner writes one.
pub(crate) fn alert(state: AlertStatus) -> Alert {
    Alert {
        id: format!("{state:?}"),
        state,
        kind: "latency".to_owned(),
        namespace: "shop".to_owned(),
        service: "checkout".to_owned(),
        baseline: "v1".to_owned(),
        candidate: "v2".to_owned(),
        route: QUOTE.to_owned(),
        source: Some("frontend@v1".to_owned()),
        mode: ComparisonMode::Concurrent,
        started_ms: BASE_S * 1000,
        updated_ms: NOW_S * 1000,
        resolved_ms: None,
        sentence: "checkout v2 is slower than v1".to_owned(),
        function: Some(GuiltyFunction {
            id: emberline_model::id::HexId(0x0123_4567_89ab_cdef),
            name: "shop::price_basket".to_owned(),
            module: String::new(),
            delta_ns_per_request: 3e6,
            share: 1.0,
            library: false,
            callee: None,
            formerly: None,
        }),
        functions: Vec::new(),
        latency: LatencyEvidence::default(),
        e_value: 5000.0,
        alpha: 0.001,
        windows: 3,
        client_server: ClientServerSplit::default(),
        folded: Vec::new(),
        diff_url: "/compare".to_owned(),
        suppressed_reason: None,
        ended_reason: None,
    }
}

/// Sum of a column or of a field of all rows.
pub(crate) fn sum(rows: &Value, field: &str) -> i64 {
    rows.as_array()
        .unwrap()
        .iter()
        .map(|row| row[field].as_i64().unwrap())
        .sum()
}

/// Sum of a list of numbers.
pub(crate) fn total(column: &Value) -> i64 {
    column
        .as_array()
        .unwrap()
        .iter()
        .map(|value| value.as_i64().unwrap())
        .sum()
}

/// A row of a list by the values of some fields.
pub(crate) fn find<'a>(rows: &'a Value, fields: &[(&str, &str)]) -> &'a Value {
    let rows = rows.as_array().unwrap();
    let found = rows
        .iter()
        .find(|row| fields.iter().all(|(field, value)| row[*field] == *value));
    found.unwrap_or_else(|| panic!("no row has {fields:?}"))
}
