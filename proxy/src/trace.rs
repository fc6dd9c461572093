//! W3C trace context: a request with a valid `traceparent` keeps it, one without or with a broken one gets a new one.
//!
//! Guarantee: a valid `traceparent` and its `tracestate` pass unchanged, because this process reports no spans, and a
//! parent that is never reported would break the caller's trace. From a caller whose word does not count, only the
//! trace's id and parent are kept: whether it is sampled is drawn as for a new trace, and `tracestate` is removed.
//!
//! Source: W3C Trace Context, level 1, sections 3.2 and 4.

use std::{
    cell::Cell,
    hash::{BuildHasher, Hasher},
};

use emberline_model::Side;
use http::{HeaderName, HeaderValue, request, response};

use crate::{
    config::{TraceConfig, TraceTrust},
    filter::{Exchange, HeadFilter, Refused},
};

pub(crate) static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Identifies the request, as in Envoy and others.
pub(crate) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives a trace to requests that have none.
#[derive(Debug)]
pub(crate) struct Trace {
    create: bool,
    trust: TraceTrust,
    gives_ids: bool,
    /// Share of new traces that are sampled, in 2^-32.
    sampled: u64,
}

impl Trace {
    /// The filter for a configuration.
    pub(crate) fn filter(config: &TraceConfig) -> Box<dyn HeadFilter> {
        Box::new(Trace::new(config))
    }

    fn new(config: &TraceConfig) -> Trace {
        Trace {
            create: config.create,
            trust: config.trust,
            gives_ids: config.request_id,
            sampled: (config.sampled.clamp(0.0, 1.0) * 4_294_967_296.0) as u64,
        }
    }

    fn draw(&self) -> bool {
        (random() >> 32) < self.sampled
    }

    /// Whether the caller's sampling flag is ignored.
    fn is_stranger(&self, exchange: &Exchange) -> bool {
        match self.trust {
            TraceTrust::Identity => !exchange.is_trusted,
            TraceTrust::Everybody => false,
            TraceTrust::Nobody => exchange.side == Side::Server,
        }
    }

    fn create(&self) -> HeaderValue {
        let (high, low, span) = (random(), random() | 1, random() | 1);
        let mut text = [0_u8; 55];
        text[..3].copy_from_slice(b"00-");
        write_hex(&mut text[3..19], high);
        write_hex(&mut text[19..35], low);
        text[35] = b'-';
        write_hex(&mut text[36..52], span);
        text[52..].copy_from_slice(if self.draw() { b"-01" } else { b"-00" });
        HeaderValue::from_bytes(&text).expect("hexadecimal digits and dashes are a header value")
    }
}

impl HeadFilter for Trace {
    fn on_request(&self, exchange: &mut Exchange, head: &mut request::Parts) -> Result<(), Refused> {
        if self.gives_ids && (!head.headers.contains_key(&REQUEST_ID) || self.is_stranger(exchange)) {
            head.headers.insert(&REQUEST_ID, new_request_id());
        }
        let mut given = head.headers.get_all(&TRACEPARENT).iter();
        let first = given.next();
        if given.next().is_none()
            && let Some(value) = first
            && is_valid(value.as_bytes())
        {
            if self.is_stranger(exchange) {
                let mut text = value.as_bytes().to_vec();
                // Later versions may give other bits, and what follows the flags, a meaning.
                text.truncate(53);
                text[..2].copy_from_slice(b"00");
                text.extend(if self.draw() { b"01" } else { b"00" });
                let value = HeaderValue::from_bytes(&text).expect("hexadecimal digits and dashes are a header value");
                head.headers.insert(&TRACEPARENT, value);
                head.headers.remove(&TRACESTATE);
            }
            return Ok(());
        }
        if !self.create {
            if self.is_stranger(exchange) {
                head.headers.remove(&TRACEPARENT);
                head.headers.remove(&TRACESTATE);
            }
            return Ok(());
        }
        head.headers.insert(&TRACEPARENT, self.create());
        head.headers.remove(&TRACESTATE);
        Ok(())
    }

    fn on_response(&self, _exchange: &mut Exchange, _head: &mut response::Parts) {}
}

/// A random UUID (RFC 9562, version 4).
fn new_request_id() -> HeaderValue {
    let (high, low) = (random(), random());
    let (mut digits, mut text) = ([0_u8; 32], [b'-'; 36]);
    write_hex(&mut digits[..16], (high & !0xf000) | 0x4000);
    write_hex(&mut digits[16..], (low & !(0b11 << 62)) | (0b10 << 62));
    let mut from = 0;
    for (at, length) in [(0, 8), (9, 4), (14, 4), (19, 4), (24, 12)] {
        text[at..at + length].copy_from_slice(&digits[from..from + length]);
        from += length;
    }
    HeaderValue::from_bytes(&text).expect("hexadecimal digits and dashes are a header value")
}

/// `version-trace-parent-flags` in lower-case hexadecimal; ids not all zero; version `ff` is forbidden, and versions
/// after `00` may have more after the flags.
fn is_valid(value: &[u8]) -> bool {
    let hex = |part: &[u8]| part.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
    let zero = |part: &[u8]| part.iter().all(|&b| b == b'0');
    if value.len() < 55 || value[2] != b'-' || value[35] != b'-' || value[52] != b'-' {
        return false;
    }
    let (version, trace, parent, flags) = (&value[..2], &value[3..35], &value[36..52], &value[53..55]);
    let length_fits = if version == b"00" {
        value.len() == 55
    } else {
        value.len() == 55 || value[55] == b'-'
    };
    length_fits
        && [version, trace, parent, flags].into_iter().all(hex)
        && version != b"ff"
        && !zero(trace)
        && !zero(parent)
}

fn write_hex(to: &mut [u8], number: u64) {
    for (place, digit) in to.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[((number >> (60 - 4 * place)) & 15) as usize];
    }
}

/// 64 random bits: SplitMix64 with a seed from the operating system, one per thread. Trace ids are not secret.
pub(crate) fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(std::hash::RandomState::new().build_hasher().finish());
    }
    STATE.with(|state| {
        state.set(state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut mixed = state.get();
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(sampled: f64) -> Trace {
        Trace::new(&TraceConfig {
            sampled,
            ..TraceConfig::default()
        })
    }

    fn after(filter: &Trace, values: &[&str]) -> Vec<String> {
        after_of(filter, true, values)
    }

    fn after_of(filter: &Trace, is_trusted: bool, values: &[&str]) -> Vec<String> {
        let mut request = http::Request::builder().header("tracestate", "a=b");
        for value in values {
            request = request.header("traceparent", *value);
        }
        let mut head = request.body(()).unwrap().into_parts().0;
        let mut exchange = Exchange::new(Side::Server);
        exchange.is_trusted = is_trusted;
        assert_eq!(filter.on_request(&mut exchange, &mut head), Ok(()));
        head.headers
            .get_all("traceparent")
            .iter()
            .map(|v| v.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn requests_get_an_id_and_that_of_a_stranger_is_another() {
        let id_after = |gives_ids: bool, is_trusted: bool, given: Option<&str>| {
            let filter = Trace::new(&TraceConfig {
                request_id: gives_ids,
                ..TraceConfig::default()
            });
            let mut head = http::Request::new(()).into_parts().0;
            if let Some(given) = given {
                head.headers.insert(&REQUEST_ID, given.parse().unwrap());
            }
            let mut exchange = Exchange::new(Side::Server);
            exchange.is_trusted = is_trusted;
            filter.on_request(&mut exchange, &mut head).unwrap();
            head.headers.get(&REQUEST_ID).map(|id| id.to_str().unwrap().to_owned())
        };
        assert_eq!(id_after(false, true, None), None);
        assert_eq!(id_after(false, false, Some("a")).as_deref(), Some("a"));
        assert_eq!(id_after(true, true, Some("a")).as_deref(), Some("a"));
        let ids = [id_after(true, true, None), id_after(true, false, Some("a"))].map(Option::unwrap);
        assert_ne!(ids[0], ids[1]);
        for id in ids {
            let groups: Vec<&str> = id.split('-').collect();
            assert_eq!(
                groups.iter().map(|group| group.len()).collect::<Vec<_>>(),
                [8, 4, 4, 4, 12],
                "{id}"
            );
            assert!(
                groups[2].starts_with('4') && groups[3].starts_with(['8', '9', 'a', 'b']),
                "{id}"
            );
            assert!(
                id.bytes()
                    .all(|b| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
                "{id}"
            );
        }
    }

    #[test]
    fn a_valid_traceparent_passes_and_anything_else_is_replaced_by_a_valid_one() {
        let filter = trace(1.0);
        let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes";
        for kept in [valid, later] {
            assert_eq!(after(&filter, &[kept]), [kept]);
        }
        for broken in [
            &[][..],
            &[valid, valid],
            &["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x"],
            &["ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
            &["00-00000000000000000000000000000000-b7ad6b7169203331-01"],
            &["00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"],
            &["00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
            &["x"],
        ] {
            let given = after(&filter, broken);
            assert_eq!(given.len(), 1);
            assert!(
                is_valid(given[0].as_bytes()) && given[0].ends_with("-01") && given[0] != valid,
                "{given:?}"
            );
        }
    }

    #[test]
    fn a_strangers_flag_decides_nothing_and_its_trace_goes_on() {
        let (first, id) = (
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-",
            "0af7651916cd43dd8448eb211c80319c",
        );
        for (sampled, flag) in [(0.0, "00"), (1.0, "01")] {
            for theirs in ["00", "01"] {
                let given = after_of(&trace(sampled), false, &[&format!("{first}{theirs}")]);
                assert_eq!(given, [format!("{first}{flag}")]);
            }
            let later = after_of(
                &trace(sampled),
                false,
                &[&format!("01-{id}-b7ad6b7169203331-ff-what-comes")],
            );
            assert_eq!(later, [format!("{first}{flag}")]);
        }
        let passive = Trace::new(&TraceConfig {
            create: false,
            ..TraceConfig::default()
        });
        assert_eq!(after_of(&passive, false, &["x"]), Vec::<String>::new());
        assert_eq!(after_of(&passive, true, &["x"]), ["x"]);
        let open = Trace::new(&TraceConfig {
            trust: TraceTrust::Everybody,
            sampled: 0.0,
            ..TraceConfig::default()
        });
        assert_eq!(after_of(&open, false, &[&format!("{first}01")]), [format!("{first}01")]);
    }

    #[test]
    fn the_share_of_sampled_traces_is_the_configured_one() {
        let sampled = |share: f64| {
            let filter = trace(share);
            (0..10_000)
                .filter(|_| filter.create().as_bytes().ends_with(b"01"))
                .count()
        };
        assert_eq!((sampled(0.0), sampled(1.0)), (0, 10_000));
        // 20 standard deviations of a fair draw.
        assert!((1_400..=2_600).contains(&sampled(0.2)));
    }
}
