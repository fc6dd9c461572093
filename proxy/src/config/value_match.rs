//! Conditions on values, of rules and of filters.

use serde::{Deserialize, Serialize};

/// A condition on a header or a query parameter: that it is there, or what its value is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ValueMatch {
    /// Its name. Header names are case-insensitive.
    pub name: String,
    /// The whole value; default: any.
    #[serde(default)]
    pub exact: Option<String>,
    /// The beginning of the value.
    #[serde(default)]
    pub prefix: Option<String>,
}
