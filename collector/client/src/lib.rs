//! The client for all peers: webhooks, Alertmanager, scrape targets, a proxy's collector, the command line's server.
//!
//! Guarantees:
//! - **Bounded.** An exchange ends when its time is over, whatever the peer does, and no more of a response is read
//!   than requested. Redirects are not followed.
//! - **TLS is verified**: against the system's roots or the CAs of `ca_file`, for the requested name. There is no
//!   switch to skip it. Files are reread when they change, without a restart.
//! - **Errors say what to do**: an expired certificate, one for other names, an unknown CA, a missing client
//!   certificate, TLS on one side only. No error, log or `Debug` contains a path, a query, a password, a header or a
//!   key, since each may be a secret.
//!
//! Wrong on purpose: each HTTP exchange has a connection of its own, and TLS sessions are not resumed: alerts and
//! scrapes are rare, and an idle connection may have been closed by the peer. Proxies from the environment
//! (`HTTPS_PROXY`) are not used. Certificates are not checked for revocation.

mod address;
mod connect;
mod error;
mod exchange;
mod kept;
pub mod pem;
mod roots;
mod settings;
mod spiffe;
mod stream;
mod tls;

pub use address::{Address, InvalidAddress};
pub use connect::{Connector, Speaks};
pub use error::{Error, TlsFailure, cause, reason_of, tls_failure};
pub use exchange::{Client, Reply};
pub use kept::{Kept, Refreshed};
pub use settings::TlsError;
pub use spiffe::{Names, SpiffeId};
pub use stream::Stream;
pub use tls::Tls;
