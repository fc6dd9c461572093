//! The one client for what is outside: webhooks, Alertmanager, scrape targets, the collector as a proxy sees it, a server as the
//! command line sees it.
//!
//! Guarantees:
//! - **Bounded.** An exchange ends when its time is over, whatever the peer does, and no more of an answer is read than asked for.
//!   Redirects are not followed.
//! - **TLS is verified**: against the system's roots or the CAs of `ca_file`, for the name that was asked for. There is no switch
//!   to skip it. Files are read again when they change, without a restart.
//! - **Errors say what to do**: an expired certificate, one for other names, an unknown CA, a client certificate that is missing,
//!   TLS on one side only. No error, log or `Debug` holds a path, a query, a password, a header or a key, since each may be a
//!   secret.
//!
//! Wrong on purpose: each HTTP exchange has a connection of its own, and TLS sessions are not resumed: alerts and scrapes are
//! seldom, and a connection that is kept may have been closed by the peer. Proxies of the environment (`HTTPS_PROXY`) are not
//! used. Certificates are not looked up in lists of revoked ones.

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
