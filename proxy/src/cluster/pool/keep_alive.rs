//! How long an endpoint says it keeps an idle connection: `Keep-Alive: timeout=N` (RFC 2068, 19.7.1.1; what Node,
//! Apache, nginx and gunicorn send today).
//!
//! Guarantee: no request is sent in the last second of the announced time (or the last half of a single second), when
//! it might cross with the endpoint's close on the wire. A POST that crosses it cannot be sent again.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// How long a connection may be idle and still be used, if the endpoint said how long it keeps it.
pub(super) fn usable_for(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(KEEP_ALIVE).into_iter().filter_map(|v| v.to_str().ok());
    let seconds = values.flat_map(|value| value.split(',')).filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let is_timeout = name.trim().eq_ignore_ascii_case("timeout");
        is_timeout.then(|| value.trim().trim_matches('"').parse::<u64>().ok())?
    });
    seconds.min().map(|seconds| match seconds {
        0 | 1 => Duration::from_millis(500 * seconds),
        _ => Duration::from_secs(seconds - 1),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usable(lines: &[&str]) -> Option<u128> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(KEEP_ALIVE, line.parse().unwrap());
        }
        usable_for(&headers).map(|time| time.as_millis())
    }

    #[test]
    fn a_second_before_the_announced_end_a_connection_is_no_longer_used() {
        for (lines, expected) in [
            (&["timeout=5"][..], Some(4_000)),
            (&["timeout=2"], Some(1_000)),
            (&["timeout=1"], Some(500)),
            (&["timeout=0"], Some(0)),
            (&["timeout=5, max=100"], Some(4_000)),
            (&["max=100,Timeout = \"7\""], Some(6_000)),
            (&["timeout=9", "timeout=3"], Some(2_000)),
            (&[], None),
            (&["max=100"], None),
            (&["timeout"], None),
            (&["timeout=soon"], None),
            (&["timeout=-1"], None),
            (&["timeout=99999999999999999999"], None),
        ] {
            assert_eq!(usable(lines), expected, "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_announced_the_time_is_shorter(text in "[ -~]{0,40}", seconds in 1_u64..) {
            usable(&[&text]);
            let usable = usable(&[&format!("timeout={seconds}, max=5")]).unwrap();
            prop_assert!(usable < u128::from(seconds) * 1_000);
            prop_assert!(usable + 1_000 >= u128::from(seconds) * 1_000);
        }
    }
}
