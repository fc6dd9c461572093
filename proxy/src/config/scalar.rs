//! Single values of the configuration. Each is checked where the parser reads it, so that its message carries the
//! line of the value itself.

use std::{borrow::Cow, fmt, net::SocketAddr, str::FromStr};

use emberline_model::workload::MAX_NAME_CHARS;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Network;
use crate::route::{HostPattern, Template};

/// `host:port`: an IP address, or a name, which stands for all its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and port.
    Socket(SocketAddr),
    /// A host's name and port.
    Name(String, u16),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Socket(address) => address.fmt(f),
            Address::Name(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

impl Address {
    /// The IP address or the name, without the port.
    pub(crate) fn host(&self) -> Cow<'_, str> {
        match self {
            Address::Socket(address) => address.ip().to_string().into(),
            Address::Name(host, _) => host.into(),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Socket(address)
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        let wrong =
            |problem: &str| format!("`{text}` is not a valid address ({problem}): use, for example, `127.0.0.1:9080`");
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 {
                Err(wrong("port 0 cannot be used"))
            } else {
                Ok(address.into())
            };
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(wrong("the port is missing"));
        };
        let port: u16 = port
            .parse()
            .ok()
            .filter(|&p| p > 0)
            .ok_or_else(|| wrong("the port must be 1 to 65535"))?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if host.is_empty() || host.len() > 253 || !host.chars().all(is_name) {
            return Err(wrong("the host name is invalid"));
        }
        // A name of digits and dots is a mistyped IP address: looking it up would only fail later.
        if host.chars().all(|c| c.is_ascii_digit() || c == '.') {
            return Err(wrong("the IP address is invalid"));
        }
        Ok(Address::Name(host.to_owned(), port))
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        deserializer.deserialize_str(Text("an address such as 127.0.0.1:9080", str::parse))
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Network, D::Error> {
        deserializer.deserialize_str(Text("a range of addresses such as 10.0.0.0/8", str::parse))
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Template, D::Error> {
        deserializer.deserialize_str(Text("a path template such as `/cart/{id}`", |text| {
            Template::parse(text).map_err(|e| e.to_string())
        }))
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<HostPattern, D::Error> {
        deserializer.deserialize_str(Text("a host such as `cart` or `*.cart.example`", str::parse))
    }
}

/// Reads a text through a check. Errors raised inside a visitor carry the value's own line.
struct Text<T>(&'static str, fn(&str) -> Result<T, String>);

impl<T> de::Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text).map_err(E::custom)
    }
}

/// Reads a whole number within bounds.
struct Whole {
    low: u64,
    high: u64,
    what: &'static str,
}

impl de::Visitor<'_> for Whole {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {} to {}", self.what, self.low, self.high)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
        if (self.low..=self.high).contains(&number) {
            return Ok(number);
        }
        Err(E::custom(format!(
            "{number} is out of range: use {} from {} to {}",
            self.what, self.low, self.high
        )))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<u64, E> {
        Err(E::custom(format!(
            "{number} is out of range: use {} from {} to {}",
            self.what, self.low, self.high
        )))
    }
}

fn whole<'de, D: Deserializer<'de>>(d: D, low: u64, high: u64, what: &'static str) -> Result<u64, D::Error> {
    // Whatever stands there comes to the visitor, which says what is expected.
    d.deserialize_any(Whole { low, high, what })
}

pub(super) fn workers<'de, D: Deserializer<'de>>(d: D) -> Result<u16, D::Error> {
    whole(d, 1, 64, "a number of threads").map(|n| n as u16)
}

pub(super) fn hz<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    whole(d, 1, 10_000, "a rate").map(|n| n as u32)
}

pub(super) fn weight<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    whole(d, 0, 1_000_000, "a weight").map(|n| n as u32)
}

pub(super) fn milliseconds<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    whole(d, 1, 86_400_000, "milliseconds")
}

/// Milliseconds, or the word for no limit.
struct WholeOrNone(Whole);

/// The word for no limit.
const NONE: &str = "none";

impl de::Visitor<'_> for WholeOrNone {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)?;
        write!(f, ", or `{NONE}`")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Option<u64>, E> {
        self.0.visit_u64(number).map(Some)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Option<u64>, E> {
        self.0.visit_i64(number).map(Some)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Option<u64>, E> {
        if text == NONE {
            return Ok(None);
        }
        Err(E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

pub(super) fn milliseconds_or_none<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    d.deserialize_any(WholeOrNone(Whole {
        low: 1,
        high: 86_400_000,
        what: "milliseconds",
    }))
}

pub(super) fn or_none<S: Serializer>(number: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) => serializer.serialize_u64(*number),
        None => serializer.serialize_str(NONE),
    }
}

pub(super) fn drain_seconds<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    whole(d, 0, 3_600, "seconds")
}

pub(super) fn positive<'de, D: Deserializer<'de>>(d: D) -> Result<usize, D::Error> {
    whole(d, 1, 10_000_000, "a number").map(|n| n as usize)
}

pub(super) fn number<'de, D: Deserializer<'de>>(d: D) -> Result<usize, D::Error> {
    whole(d, 0, 10_000_000, "a number").map(|n| n as usize)
}

pub(super) fn optional_positive<'de, D: Deserializer<'de>>(d: D) -> Result<Option<usize>, D::Error> {
    positive(d).map(Some)
}

pub(super) fn memory<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    whole(d, 1 << 20, 1 << 40, "bytes")
}

pub(super) fn optional_memory<'de, D: Deserializer<'de>>(d: D) -> Result<Option<usize>, D::Error> {
    whole(d, 1 << 20, 1 << 40, "bytes").map(|n| Some(n as usize))
}

pub(super) fn positive_u32<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    whole(d, 1, 1_000_000, "a number").map(|n| n as u32)
}

pub(super) fn optional_positive_u32<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u32>, D::Error> {
    positive_u32(d).map(Some)
}

pub(super) fn optional_error_status<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u16>, D::Error> {
    whole(d, 400, 599, "a status").map(|n| Some(n as u16))
}

pub(super) fn seconds_of_a_day<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    whole(d, 0, 86_400, "seconds").map(|n| n as u32)
}

pub(super) fn percent<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    whole(d, 1, 100, "a percentage").map(|n| n as u32)
}

pub(super) fn optional_status<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u16>, D::Error> {
    whole(d, 200, 599, "a status").map(|n| Some(n as u16))
}

pub(super) fn attempts<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    whole(d, 0, 10, "a number").map(|n| n as u32)
}

pub(super) fn small<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    whole(d, 0, 10_000, "a number").map(|n| n as u32)
}

pub(super) fn optional_milliseconds<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    milliseconds(d).map(Some)
}

/// Points of a ring.
pub(super) fn points<'de, D: Deserializer<'de>>(d: D) -> Result<usize, D::Error> {
    whole(d, 1, 1_000_000, "a number of points").map(|n| n as usize)
}

/// A prime that tables of Maglev can have as their size.
pub(super) fn table_size<'de, D: Deserializer<'de>>(d: D) -> Result<usize, D::Error> {
    let size = whole(d, 2, 1_000_000, "a size")?;
    let is_prime = (2..).take_while(|n| n * n <= size).all(|n| size % n != 0);
    if is_prime {
        return Ok(size as usize);
    }
    Err(de::Error::custom(format!(
        "{size} is not a prime: use, for example, 65537"
    )))
}

pub(super) fn header_bytes<'de, D: Deserializer<'de>>(d: D) -> Result<usize, D::Error> {
    whole(d, 8_192, 16_777_216, "bytes").map(|n| n as usize)
}

/// Reads a share from `low` to 1.
struct Share {
    low: f64,
}

impl de::Visitor<'_> for Share {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a share from {} to 1", self.low)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<f64, E> {
        if (self.low..=1.0).contains(&number) {
            return Ok(number);
        }
        Err(E::custom(format!(
            "{number} is out of range: use a share from {} to 1",
            self.low
        )))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<f64, E> {
        self.visit_f64(number as f64)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<f64, E> {
        self.visit_f64(number as f64)
    }
}

pub(super) fn share<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    d.deserialize_any(Share { low: 0.0 })
}

/// With nothing at all no caller could connect.
pub(super) fn share_of_caller<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    d.deserialize_any(Share { low: 0.01 })
}

pub(super) fn socket_address<'de, D: Deserializer<'de>>(d: D) -> Result<SocketAddr, D::Error> {
    d.deserialize_str(Text("an address such as 127.0.0.1:8080", |text| {
        text.parse().map_err(|_| {
            format!("`{text}` is not an IP address with a port: use, for example, `127.0.0.1:8080` or `0.0.0.0:8080`")
        })
    }))
}

fn checked_name(text: &str) -> Result<String, String> {
    if text.chars().count() > MAX_NAME_CHARS {
        return Err(format!("the name is longer than {MAX_NAME_CHARS} characters"));
    }
    if text.chars().any(char::is_control) {
        return Err("the name contains control characters".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn optional_name<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    d.deserialize_str(Text("a name", checked_name))
}

pub(super) fn name<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    d.deserialize_str(Text("a name", |text| {
        if text.is_empty() {
            Err("the name is empty: set one".to_owned())
        } else {
            checked_name(text)
        }
    }))
}

pub(super) fn endpoint<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    d.deserialize_str(Text("an endpoint such as http://127.0.0.1:4317", |text| {
        let example = "use, for example, `http://127.0.0.1:4317` or `https://collector:4317`";
        let address = emberline_client::Address::parse(text).map_err(|error| format!("{error}; {example}"))?;
        let uri = text.parse::<http::Uri>();
        if uri.is_ok_and(|uri| uri.port_u16().is_none()) {
            return Err(format!("`{address}` has no port: {example}"));
        }
        Ok(text.trim_end_matches('/').to_owned())
    }))
}
