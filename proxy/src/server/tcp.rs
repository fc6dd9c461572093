//! Bytes of a protocol that nobody looks into: counted and timed per connection.
//!
//! Guarantees: bytes pass in both directions with half-closes kept; the connection ends when no byte moved for
//! `timeouts.tcp_idle_ms`; it is one record, of the route `tcp` and the protocol `tcp`, whose latency is the time until the
//! destination was connected. While it is open each window counts it and its bytes.
//!
//! Wrong on purpose: the other end is not known, because nothing may be put into the byte stream of a peer that may
//! have no proxy; a status there is none, so only connections that could not be opened or broke are errors.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use emberline_profiler::Labeled;

use super::{
    Charge,
    forward::Forwarder,
    plan::{Plan, Service},
    relay::{Relayed, relay},
};
use crate::{
    access_log::Head,
    budget,
    cluster::{self, UpstreamError},
    drain::Draining,
    listener::Admission,
    record::nanoseconds,
    telemetry::{
        DestinationId, InFlight, Label, Meters, OpenId, Protocol, RequestRecord, ResponseFlags, SeriesId, Telemetry,
    },
    wire::{detect::Expected, io::GuardedIo, transport::Transport},
};

/// The name of the one route of TCP connections.
pub(crate) const TCP_ROUTE: &str = "tcp";

/// Who speaks first on a connection whose caller has been silent.
pub(crate) enum FirstWord {
    /// The caller: what it speaks can be found out now.
    Caller,
    /// The destination, on this connection: only TCP carries such protocols.
    Destination(Box<Connected>),
    /// Nobody: one end is gone, or neither said anything for too long.
    Nobody,
}

/// How a connection ended.
enum End {
    Closed,
    Failed(ResponseFlags),
}

impl Forwarder {
    /// Connects the destination of a silent caller and waits for who speaks first. A caller that opened its connection
    /// in advance, as pools of HTTP clients do, is the same as before once it speaks.
    /// Where HTTP is expected, or was answered, it is the caller who speaks first: its silence costs no connection to a destination.
    pub(crate) async fn first_word(
        &self,
        stream: &mut Transport,
        expected: Expected,
        admission: &Admission,
        draining: &Draining,
    ) -> FirstWord {
        let plan = self.plan.load_full();
        let is_http = expected == Expected::Http || self.probes.is_http();
        let limit = if is_http {
            self.http.caller_times().keep_alive
        } else {
            let service = plan.default_service();
            service.map_or(Duration::ZERO, |service| service.timeouts.tcp_idle())
        };
        // From before it connects: whoever speaks meanwhile counts.
        let give_way = self.probes.asked_to_give_way();
        tokio::pin!(give_way);
        give_way.as_mut().enable();
        let caller = admission.caller;
        let mut destination = if is_http {
            None
        } else {
            // Where nobody can be reached the caller may still speak, and gets its answer in what it speaks.
            match plan.default_service() {
                Some(service) => Connected::open(service, caller).await.ok(),
                None => None,
            }
        };
        let destination_speaks = async {
            match &mut destination {
                Some(destination) => destination.stream.readable().await,
                None => std::future::pending().await,
            }
        };
        let mut draining = draining.clone();
        let destination_spoke = tokio::select! {
            biased;
            caller = stream.readable() => {
                return if matches!(caller, Ok(true)) { FirstWord::Caller } else { FirstWord::Nobody };
            }
            spoke = destination_speaks => matches!(spoke, Ok(true)),
            // The caller is asked again whether it speaks now, without a connection for it.
            () = give_way => return FirstWord::Caller,
            () = tokio::time::sleep(limit) => false,
            () = draining.asked() => false,
        };
        match destination {
            Some(destination) if destination_spoke => FirstWord::Destination(Box::new(destination)),
            _ => FirstWord::Nobody,
        }
    }

    /// Carries one connection of opaque bytes until it ends. While draining it may go on; the process ends it.
    /// `upstream` is the destination's end if it is connected already.
    pub(crate) async fn carry_tcp(
        &self,
        stream: Transport,
        prefix: Bytes,
        upstream: Option<Connected>,
        admission: &Admission,
        draining: Draining,
    ) {
        let guard = &admission.guard;
        if let Err(full) = guard.account().take(budget::TCP) {
            self.counters.refuse_connection(full);
            return;
        }
        let _charge = Charge(guard, budget::TCP);
        // It makes place for nobody, however silent it is.
        guard.begin();
        let plan = self.plan.load_full();
        let mut record = Record::begin(&self.telemetry, &plan, admission.caller);
        let (sent, received) = (Arc::clone(&record.sent), Arc::clone(&record.received));
        let label = record.label;
        let carried = async {
            let Some(service) = plan.default_service() else {
                return End::Failed(ResponseFlags::NR);
            };
            let upstream = match upstream {
                Some(connected) => connected,
                None => match Connected::open(service, admission.caller).await {
                    Ok(connected) => connected,
                    Err(error) => {
                        tracing::debug!(%error, "no upstream for a TCP connection");
                        return End::Failed(error.answer().2);
                    }
                },
            };
            record.connected_after = Some(upstream.after);
            if let Some(head) = &mut record.logged {
                head.endpoint = upstream.in_flight.endpoint().address().to_string();
            }
            let caller = GuardedIo::opaque(stream, prefix, self.http.caller_times(), Arc::clone(guard));
            match relay(
                caller,
                upstream.stream,
                &[],
                service.timeouts.tcp_idle(),
                &sent,
                &received,
            )
            .await
            {
                Relayed::Ended => End::Closed,
                Relayed::Idle => End::Failed(ResponseFlags::SI),
                Relayed::Broken { .. } => End::Failed(ResponseFlags::UC),
            }
        };
        let end = Labeled::new(label, carried).await;
        (record.error, record.flags) = match end {
            End::Closed => (false, ResponseFlags::NONE),
            // A connection that was idle for too long did not fail.
            End::Failed(flags) => (flags != ResponseFlags::SI, flags),
        };
        drop(record);
        guard.end();
        drop(draining);
    }
}

/// A destination's end of a connection.
pub(crate) struct Connected {
    stream: Transport,
    in_flight: cluster::InFlight,
    /// How long it took to get it.
    after: Duration,
}

impl Connected {
    async fn open(service: &Service, caller: IpAddr) -> Result<Connected, UpstreamError> {
        let started = Instant::now();
        let key = service.cluster().key_of(None, caller);
        let (stream, in_flight) = service.cluster().connect(key, &service.timeouts).await?;
        Ok(Connected {
            stream,
            in_flight,
            after: started.elapsed(),
        })
    }
}

/// A connection on its way to its record, which it gets however it ends: also when the process cuts it off.
struct Record {
    telemetry: Telemetry,
    open: OpenId,
    _in_flight: InFlight,
    series: SeriesId,
    label: Label,
    started: Instant,
    connected_after: Option<Duration>,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    error: bool,
    flags: ResponseFlags,
    /// For the access log, where there is one.
    logged: Option<Head>,
}

impl Record {
    fn begin(telemetry: &Telemetry, plan: &Plan, caller: IpAddr) -> Record {
        let label = telemetry.label(plan.side, telemetry.route(TCP_ROUTE), None);
        let destination = plan
            .default_service()
            .map_or(DestinationId::NONE, |service| service.destination);
        let series = telemetry.series_to(label, "", Protocol::Tcp, destination);
        let (sent, received) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let meters = Meters {
            request: Some(Arc::clone(&sent)),
            response: Some(Arc::clone(&received)),
        };
        Record {
            open: telemetry.open(series, 0, meters),
            _in_flight: telemetry.start_request(plan.side),
            telemetry: telemetry.clone(),
            series,
            label,
            started: Instant::now(),
            connected_after: None,
            sent,
            received,
            error: false,
            flags: ResponseFlags::LR,
            logged: telemetry.access_log().map(|_| Head::of_connection(caller)),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let counted = self.telemetry.close(&self.open);
        let lasted = self.started.elapsed();
        let left = |bytes: &AtomicU64, counted: u64| bytes.load(Ordering::Relaxed).saturating_sub(counted);
        let record = RequestRecord {
            series: self.series,
            status: 0,
            error: self.error,
            duration_ns: nanoseconds(self.connected_after.unwrap_or(lasted)),
            streaming_ns: self.connected_after.map_or(0, |_| nanoseconds(lasted)),
            request_bytes: left(&self.sent, counted.request),
            response_bytes: left(&self.received, counted.response),
            flags: self.flags,
            upstream_ns: None,
        };
        self.telemetry.record(&record);
        if let Some(head) = self.logged.take() {
            let bytes = (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed));
            self.telemetry
                .log(head, (self.label, Protocol::Tcp), record, bytes, lasted);
        }
    }
}
