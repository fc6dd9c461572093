//! A request on its way to an endpoint.

use http::Request;

use crate::body::RequestBody;

/// A request until it leaves, and again where no endpoint can have processed it. Whoever sends it borrows it, so that a request's
/// future holds it once and not once for each function on the way.
pub(super) type Outgoing = Option<Request<RequestBody>>;
