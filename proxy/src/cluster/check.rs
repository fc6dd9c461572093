//! Active health checks: queries endpoints on the admin thread, never on a worker's.
//!
//! Guarantees: each endpoint is checked once per interval, whatever the number of workers, and one that does not answer
//! delays no other; an endpoint counts as healthy until `unhealthy_after` consecutive checks have failed, and again
//! after `healthy_after` have passed; without the setting, nothing is known and nothing is checked.
//!
//! Wrong on purpose: one connection per check, so that accepting connections is checked, too.

use std::{convert::Infallible, fmt, net::SocketAddr, sync::Weak};

use bytes::Bytes;
use emberline_client::Speaks;
use http::{
    HeaderMap, Request, Response,
    header::{CONTENT_TYPE, HOST, TE, USER_AGENT},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    group::{Group, ToCheck},
    health::Health,
};
use crate::{
    body::BoxError,
    config::{CheckKind, HealthConfig},
    grpc,
    tls::Outbound,
    wire::transport::Transport,
};

/// The most bytes read of a response.
const MOST_BYTES: usize = 4 << 10;

/// Why a check failed, as text.
type Failure = String;

fn in_words(error: impl fmt::Display) -> Failure {
    error.to_string()
}

/// Checks until the process ends.
pub(crate) async fn run(mut groups: ToCheck) {
    while let Some(group) = groups.next().await {
        tokio::spawn(watch(group));
    }
    std::future::pending::<()>().await;
}

/// Checks the endpoints of a group until it is gone or no longer to be checked.
async fn watch(group: Weak<Group>) {
    loop {
        let Some(config) = group.upgrade().and_then(|group| group.wanted_check()) else {
            return;
        };
        let mut ticks = interval(config.interval());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(group) = group.upgrade() else { return };
            if group.check_config().as_ref() != Some(&config) {
                break;
            }
            let mut asked = JoinSet::new();
            for (at, health) in group.members() {
                let (config, tls) = (config.clone(), group.tls().cloned());
                asked.spawn(async move {
                    let checked = check(at, &config, tls.as_deref()).await;
                    (at, health, checked)
                });
            }
            while let Some(checked) = asked.join_next().await {
                if let Ok((at, health, checked)) = checked {
                    note(&group, at, &health, checked, &config);
                }
            }
        }
    }
}

fn note(group: &Group, at: SocketAddr, health: &Health, checked: Result<(), Failure>, config: &HealthConfig) {
    let counters = group.counters();
    counters.health_checks.add();
    match checked {
        Ok(()) => {
            if health.check_passed(config.healthy_after) {
                tracing::info!(service = group.service(), endpoint = %at, "endpoint is healthy again");
            }
        }
        Err(error) => {
            counters.health_check_failures.add();
            if health.check_failed(config.unhealthy_after, &counters.endpoints_unhealthy) {
                tracing::warn!(service = group.service(), endpoint = %at, error, "endpoint is unhealthy");
            }
        }
    }
}

/// Runs a single check.
async fn check(at: SocketAddr, config: &HealthConfig, tls: Option<&Outbound>) -> Result<(), Failure> {
    let limit = config.timeout();
    let late = |_| Err(format!("no response within health.timeout_ms ({limit:?})"));
    timeout(limit, ask(at, config, tls)).await.unwrap_or_else(late)
}

async fn ask(at: SocketAddr, config: &HealthConfig, tls: Option<&Outbound>) -> Result<(), Failure> {
    let stream = TcpStream::connect(at).await.map_err(in_words)?;
    let speaks = match config.check {
        CheckKind::Tcp => Speaks::Bytes,
        CheckKind::Http => Speaks::Http1,
        CheckKind::Http2 | CheckKind::Grpc => Speaks::Http2,
    };
    let stream = match tls {
        None => Transport::Plain(stream),
        Some(tls) => tls
            .secure(stream, &at.ip().to_string(), speaks)
            .await
            .map_err(in_words)?,
    };
    match config.check {
        CheckKind::Tcp => Ok(()),
        CheckKind::Http => {
            let request = Request::get(config.path.as_str())
                .header(HOST, at.to_string())
                .header(USER_AGENT, "emberline-proxy")
                .body(Full::<Bytes>::default())
                .map_err(in_words)?;
            let (mut sender, connection) = conn::http1::handshake(TokioIo::new(stream)).await.map_err(in_words)?;
            judge(config, &over(connection, sender.send_request(request)).await?)
        }
        CheckKind::Http2 => {
            let request = Request::get(format!("http://{at}{}", config.path))
                .header(USER_AGENT, "emberline-proxy")
                .body(Full::<Bytes>::default())
                .map_err(in_words)?;
            let (mut sender, connection) = http2(stream).await?;
            judge(config, &over(connection, sender.send_request(request)).await?)
        }
        CheckKind::Grpc => {
            let request = Request::post(format!("http://{at}/grpc.health.v1.Health/Check"))
                .header(CONTENT_TYPE, "application/grpc")
                .header(TE, "trailers")
                .body(Full::new(grpc_request(&config.service)))
                .map_err(in_words)?;
            let (mut sender, connection) = http2(stream).await?;
            let serving = async {
                let response = sender.send_request(request).await?;
                let (head, body) = response.into_parts();
                let body = Limited::new(body, MOST_BYTES).collect().await?;
                let trailers = body.trailers().cloned().unwrap_or(head.headers);
                Ok::<_, BoxError>((trailers, body.to_bytes()))
            };
            let (trailers, message) = over(connection, serving).await?;
            judge_grpc(&trailers, &message)
        }
    }
}

type Http2Sender = conn::http2::SendRequest<Full<Bytes>>;

async fn http2(stream: Transport) -> Result<(Http2Sender, impl Future<Output = hyper::Result<()>>), Failure> {
    conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(in_words)
}

/// Drives a connection until its response is there.
async fn over<T, E: fmt::Display>(
    connection: impl Future<Output = hyper::Result<()>>,
    response: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    let driving = async {
        // The response shows how it ended.
        let _ = connection.await;
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        response = response => response.map_err(in_words),
        never = driving => match never {},
    }
}

fn judge(config: &HealthConfig, response: &Response<Incoming>) -> Result<(), Failure> {
    let status = response.status();
    let is_expected = match config.expect {
        Some(expected) => status.as_u16() == expected,
        None => status.is_success(),
    };
    if is_expected {
        Ok(())
    } else {
        Err(format!("responded with status {status}"))
    }
}

/// `HealthCheckRequest {service}` of grpc.health.v1, after gRPC's message prefix of five bytes.
fn grpc_request(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        prost::encoding::encode_varint(service.len() as u64, &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(&message);
    framed.into()
}

/// Only `HealthCheckResponse {status: SERVING}` of grpc.health.v1 is healthy.
fn judge_grpc(trailers: &HeaderMap, message: &[u8]) -> Result<(), Failure> {
    match grpc::status(trailers) {
        Some(0) if message.get(5..) == Some(&[0x08, 0x01]) => Ok(()),
        Some(0) => Err("responded that it is not serving".to_owned()),
        Some(status) => Err(format!("responded with gRPC status {status}")),
        None => Err("responded without a gRPC status".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_serving_is_well() {
        let mut trailers = HeaderMap::new();
        assert!(judge_grpc(&trailers, b"").is_err());
        trailers.insert("grpc-status", "0".parse().unwrap());
        assert_eq!(judge_grpc(&trailers, &[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        for other in [&[0, 0, 0, 0, 2, 8, 2][..], &[0, 0, 0, 0, 0], b""] {
            assert!(judge_grpc(&trailers, other).is_err(), "{other:?}");
        }
        trailers.insert("grpc-status", "12".parse().unwrap());
        assert!(judge_grpc(&trailers, &[0, 0, 0, 0, 2, 8, 1]).is_err());
        assert_eq!(grpc_request("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(grpc_request("ab").as_ref(), [0, 0, 0, 0, 4, 10, 2, b'a', b'b']);
    }
}
