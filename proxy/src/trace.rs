//! W3C trace context: a request that carries a `traceparent` keeps it, one that carries none or a broken one gets one.
//!
//! Guarantee: a valid `traceparent` and its `tracestate` pass untouched, because this process reports no spans and a
//! parent nobody reports would tear the caller's trace apart.
//!
//! Source: W3C Trace Context, level 1, sections 3.2 and 4.

use std::{
    cell::Cell,
    hash::{BuildHasher, Hasher},
};

use http::{HeaderName, HeaderValue, request, response};

use crate::{
    config::TraceConfig,
    filter::{Exchange, Filter, Flow},
};

pub(crate) static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Gives a trace to requests that have none.
#[derive(Debug)]
pub(crate) struct Trace {
    /// Share of new traces that are sampled, in 2^-32.
    sampled: u64,
}

impl Trace {
    /// The filter that a configuration asks for, if it asks for one.
    pub(crate) fn filter(config: &TraceConfig) -> Option<Box<dyn Filter>> {
        config
            .create
            .then(|| Box::new(Trace::new(config.sampled)) as Box<dyn Filter>)
    }

    fn new(sampled: f64) -> Trace {
        Trace {
            sampled: (sampled.clamp(0.0, 1.0) * 4_294_967_296.0) as u64,
        }
    }

    fn create(&self) -> HeaderValue {
        let (high, low, span) = (random(), random() | 1, random() | 1);
        let flags = u8::from((random() >> 32) < self.sampled);
        let mut text = [0_u8; 55];
        text[..3].copy_from_slice(b"00-");
        write_hex(&mut text[3..19], high);
        write_hex(&mut text[19..35], low);
        text[35] = b'-';
        write_hex(&mut text[36..52], span);
        text[52..].copy_from_slice(if flags == 1 { b"-01" } else { b"-00" });
        HeaderValue::from_bytes(&text).expect("hexadecimal digits and dashes are a header value")
    }
}

impl Filter for Trace {
    fn on_request(&self, _exchange: &mut Exchange, head: &mut request::Parts) -> Flow {
        let mut given = head.headers.get_all(&TRACEPARENT).iter();
        let first = given.next();
        if given.next().is_none() && first.is_some_and(|value| is_valid(value.as_bytes())) {
            return Flow::Continue;
        }
        head.headers.insert(&TRACEPARENT, self.create());
        head.headers.remove(&TRACESTATE);
        Flow::Continue
    }

    fn on_response(&self, _exchange: &mut Exchange, _head: &mut response::Parts) {}
}

/// `version-trace-parent-flags` in lower-case hexadecimal; ids not all zero; version `ff` is forbidden, and later
/// versions than `00` may go on after the flags.
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

/// 64 random bits: SplitMix64 from a seed of the operating system, one per thread. Ids of traces are no secret.
fn random() -> u64 {
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
    use emberline_model::Side;

    use super::*;

    fn after(filter: &Trace, values: &[&str]) -> Vec<String> {
        let mut request = http::Request::builder().header("tracestate", "a=b");
        for value in values {
            request = request.header("traceparent", *value);
        }
        let mut head = request.body(()).unwrap().into_parts().0;
        assert_eq!(
            filter.on_request(&mut Exchange::new(Side::Server), &mut head),
            Flow::Continue
        );
        head.headers
            .get_all("traceparent")
            .iter()
            .map(|v| v.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_valid_traceparent_passes_and_anything_else_is_replaced_by_a_valid_one() {
        let filter = Trace::new(1.0);
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
    fn the_share_of_sampled_traces_is_the_configured_one() {
        let sampled = |share: f64| {
            let filter = Trace::new(share);
            (0..10_000)
                .filter(|_| filter.create().as_bytes().ends_with(b"01"))
                .count()
        };
        assert_eq!((sampled(0.0), sampled(1.0)), (0, 10_000));
        // 20 standard deviations of a fair draw.
        assert!((1_400..=2_600).contains(&sampled(0.2)));
    }
}
