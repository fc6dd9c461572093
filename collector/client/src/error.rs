//! What can go wrong between us and a peer, with messages that say what to do.

use std::{
    error::Error as StdError,
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, UNIX_EPOCH},
};

use rustls::{AlertDescription, CertificateError, InvalidMessage};

use crate::settings::TlsError;

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name cannot be resolved.
    #[error("cannot look up `{0}`: {1}")]
    Lookup(String, io::Error),
    /// The address must not be connected to.
    #[error("refusing to connect to {0}: it is {1}")]
    Forbidden(IpAddr, &'static str),
    /// Connection refused or unreachable.
    #[error("cannot connect to {0}: {1}")]
    Connect(SocketAddr, io::Error),
    /// The TLS settings are invalid.
    #[error(transparent)]
    Settings(#[from] TlsError),
    /// The TLS handshake failed.
    #[error(transparent)]
    Tls(#[from] TlsFailure),
    /// No connection in time.
    #[error("no connection to {0} within {1:?}")]
    ConnectTimedOut(String, Duration),
    /// The response was not complete in time.
    #[error("incomplete response after {0:?}")]
    TimedOut(Duration),
    /// The request is invalid.
    #[error("cannot send the request: {0}")]
    Request(String),
    /// The connection was closed, or the response is not HTTP.
    #[error("cannot read the response: {0}")]
    Http(String),
    /// The response is too large.
    #[error("the response exceeds {0} bytes")]
    TooLarge(usize),
}

/// Why TLS failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct TlsFailure {
    /// A short name of the kind, such as `expired`.
    pub reason: &'static str,
    /// What happened, and what to do.
    pub message: String,
}

impl Error {
    /// The peer did not agree on HTTP/2.
    pub(crate) fn no_http2() -> Error {
        Error::Tls(TlsFailure {
            reason: "alpn",
            message: NO_HTTP2.to_owned(),
        })
    }
}

/// The TLS failure that caused an error, if any.
pub fn tls_failure<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a TlsFailure> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(Error::Tls(failure)) = ours(error) {
            return Some(failure);
        }
        next = error.source();
    }
    None
}

/// A short name for why TLS failed, the same on both sides.
pub fn reason_of(error: &io::Error) -> &'static str {
    use rustls::Error as Tls;
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Tls>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "closed",
            _ => "lost",
        };
    };
    match tls {
        Tls::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => "expired",
        Tls::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "not_valid_yet"
        }
        Tls::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "wrong_name",
        Tls::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => "unknown_ca",
        Tls::InvalidCertificate(_) => "bad_certificate",
        Tls::NoCertificatesPresented => "no_certificate",
        Tls::InvalidMessage(InvalidMessage::InvalidContentType) => "not_tls",
        Tls::NoApplicationProtocol | Tls::AlertReceived(AlertDescription::NoApplicationProtocol) => "alpn",
        Tls::AlertReceived(_) => "refused_by_peer",
        Tls::PeerIncompatible(_) => "incompatible",
        _ => "protocol",
    }
}

/// Root cause of an error: ours if there is one in the chain, else the innermost.
pub fn cause(error: &(dyn StdError + 'static)) -> String {
    let mut innermost = error;
    loop {
        if let Some(ours) = ours(innermost) {
            return ours.to_string();
        }
        match innermost.source() {
            Some(source) => innermost = source,
            None => return innermost.to_string(),
        }
    }
}

/// Our own error, even inside an I/O error.
fn ours<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.downcast_ref().or_else(|| wrapped?.downcast_ref())
}

/// What to do about a requested client certificate.
pub(crate) const DEMANDED: &str =
    "the server requires a client certificate: set `cert_file` and `key_file` to one that its CA signed";
/// A peer that should speak plain HTTP speaks TLS.
pub(crate) const SPEAKS_TLS: &str =
    "the server speaks TLS on this port: use `https://` (`scheme: https` for scrape targets)";
/// A peer that should speak TLS does not.
const SPEAKS_PLAIN: &str = "the server does not speak TLS on this port: use `http://` (`scheme: http` for scrape targets), remove `tls`, or use its TLS port";

/// A peer speaks TLS, but not HTTP/2 over it.
const NO_HTTP2: &str = "the server speaks TLS, but did not agree to HTTP/2 (ALPN)";

/// Properties of a connection that explain its errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances<'a> {
    /// The name that the certificate has to match.
    pub(crate) name: &'a str,
    /// The setting that contains it, unless it is from the address.
    pub(crate) configured: Option<&'static str>,
    /// Whether the system's roots are used.
    pub(crate) trusts_system: bool,
    /// The server requested a client certificate and got none.
    pub(crate) owes_certificate: bool,
    /// It got one.
    pub(crate) sent_certificate: bool,
}

/// Explains an I/O error of a TLS connection.
pub(crate) fn explain(error: &io::Error, at: Circumstances<'_>) -> String {
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return in_words(tls, at);
    }
    match error.kind() {
        _ if at.owes_certificate => format!("{DEMANDED} (it closed the connection without one)"),
        io::ErrorKind::UnexpectedEof => {
            "the server closed the connection during the TLS handshake; does it speak TLS on this port?".to_owned()
        }
        _ => format!("the TLS connection was lost: {error}"),
    }
}

fn in_words(error: &rustls::Error, at: Circumstances<'_>) -> String {
    use rustls::Error as Tls;
    match error {
        Tls::InvalidCertificate(why) => certificate(why, at),
        Tls::InvalidMessage(InvalidMessage::InvalidContentType) => SPEAKS_PLAIN.to_owned(),
        Tls::AlertReceived(alert) => refusal(*alert, at),
        Tls::NoApplicationProtocol => "the server speaks TLS, but not the required HTTP version".to_owned(),
        Tls::PeerIncompatible(why) => {
            format!("the server supports neither TLS 1.2 nor 1.3: {why:?}")
        }
        other => format!("TLS failed: {other}"),
    }
}

/// What is wrong with a server's certificate.
fn certificate(why: &CertificateError, at: Circumstances<'_>) -> String {
    let date =
        |time: rustls::pki_types::UnixTime| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(time.as_secs()));
    let what = "the server's certificate";
    match why {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("{what} expired on {}: renew it on the server", date(*not_after))
        }
        CertificateError::Expired => format!("{what} has expired: renew it on the server"),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "{what} is not valid before {}, and this machine's clock says {}: set the clock or renew the certificate",
            date(*not_before),
            date(*time)
        ),
        CertificateError::NotValidYet => format!("{what} is not valid yet: check this machine's clock"),
        CertificateError::NotValidForNameContext { presented, .. } => wrong_name(presented, at),
        CertificateError::NotValidForName => wrong_name(&[], at),
        CertificateError::UnknownIssuer if at.trusts_system => format!(
            "{what} is signed by a CA that this system does not trust: set `ca_file` to that CA's certificate (PEM)"
        ),
        CertificateError::UnknownIssuer => format!(
            "{what} is not signed by a CA in `ca_file`: add its CA's certificate (PEM), and make the server send its intermediates"
        ),
        CertificateError::BadSignature => format!(
            "{what} was not signed with the key of the trusted CA of that name, which probably has a new key: set `ca_file` to the CA's current certificate"
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            format!("{what} is not a server certificate: its extended key usage must include serverAuth")
        }
        CertificateError::Other(other) => match other.to_string().as_str() {
            said if said.contains("CaUsedAsEndEntity") => format!(
                "{what} is a CA certificate (basicConstraints CA:TRUE), the default of `openssl req -x509`: create one with `-addext basicConstraints=CA:FALSE`, or use it to sign another"
            ),
            said if said.contains("UnsupportedCertVersion") => format!(
                "{what} is X.509 version 1, which cannot name hosts: sign it with extensions (`openssl x509 -req -copy_extensions copy`, \
                 with subjectAltName in the request)"
            ),
            said => format!("{what} cannot be used: {said}"),
        },
        other => format!("{what} cannot be used: {other}"),
    }
}

fn wrong_name(presented: &[String], at: Circumstances<'_>) -> String {
    // As the library formats them: `DnsName("a")`, `IpAddress(10.0.0.1)`.
    let names: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
    let names = match names.as_slice() {
        [] => "it has no name in subjectAltName, and its common name is ignored".to_owned(),
        names => format!("it is for {}", names.join(", ")),
    };
    let remedy = match at.configured {
        Some(setting) => format!("correct `{setting}`"),
        None => "use one of these names in the address, or set `server_name` to one".to_owned(),
    };
    format!("the server's certificate is not for `{}`: {names}; {remedy}", at.name)
}

/// A name without the kind wrapped around it.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

/// Explains the alert with which a server ends the handshake.
fn refusal(alert: AlertDescription, at: Circumstances<'_>) -> String {
    use AlertDescription as Alert;
    let ours = |why: &str| format!("the server rejected the client certificate in `cert_file`: {why}");
    match alert {
        Alert::CertificateRequired => DEMANDED.to_owned(),
        _ if at.owes_certificate => format!("{DEMANDED} (TLS alert {alert:?})"),
        Alert::UnknownCA | Alert::BadCertificate | Alert::UnsupportedCertificate | Alert::DecryptError
            if at.sent_certificate =>
        {
            ours("it must be signed by a CA that the server trusts, for client use (clientAuth)")
        }
        Alert::CertificateExpired if at.sent_certificate => ours("it has expired; renew it"),
        Alert::CertificateRevoked if at.sent_certificate => ours("it was revoked; renew it"),
        Alert::AccessDenied | Alert::CertificateUnknown if at.sent_certificate => ours(&format!("TLS alert {alert:?}")),
        Alert::UnrecognisedName => format!(
            "the server does not know the host `{}`: correct the address or `server_name`",
            at.name
        ),
        Alert::NoApplicationProtocol => {
            "the server speaks TLS, but not the required HTTP version (HTTP/2 for gRPC)".to_owned()
        }
        Alert::ProtocolVersion => "the server supports neither TLS 1.2 nor 1.3".to_owned(),
        other => format!("the server aborted the TLS handshake: {other:?}"),
    }
}
