//! A request to be sent to an endpoint.

use http::Request;

use crate::body::RequestBody;

/// A request until it is sent, and again if no endpoint can have processed it. Senders borrow it, so that a request's
/// future contains it once and not once for each function on the way.
pub(super) type Outgoing = Option<Request<RequestBody>>;
