//! What is wrong with filters: headers that are none or not theirs, origins that nobody has, filters that do nothing.

use http::{HeaderName, HeaderValue, Method, Uri};

use super::super::{
    CorsConfig, ExtAuthzConfig, ExtAuthzProtocol, FaultConfig, FilterConfig, HeaderEdits, Inbound, Outbound, Protocol,
    RateLimitConfig, RateLimitKey, RateLimitServiceConfig, may_edit,
};

const KINDS: &str =
    "`rate_limit`, `concurrency_limit`, `rate_limit_service`, `ext_authz`, `fault`, `headers`, `cors` or `buffer`";

/// Looks through all filters; `say` takes a path.
pub(super) fn find(inbound: &[Inbound], outbound: &[Outbound], mut say: impl FnMut(&str, String)) {
    for (at, entry) in inbound.iter().enumerate() {
        of_list(
            &entry.filters,
            entry.protocol,
            &format!("inbound[{at}].filters"),
            &mut say,
        );
    }
    for (at, entry) in outbound.iter().enumerate() {
        let place = format!("outbound[{at}].filters");
        of_list(&entry.filters, entry.protocol, &place, &mut say);
        of_only_caller(&entry.filters, &place, &mut say);
        for (index, rule) in entry.rules.iter().enumerate() {
            let list = rule.filters.as_deref().unwrap_or_default();
            let place = format!("outbound[{at}].rules[{index}].filters");
            // That rules have no effect is told of them.
            of_list(list, Protocol::Auto, &place, &mut say);
            of_only_caller(list, &place, &mut say);
        }
    }
}

fn of_list(list: &[FilterConfig], protocol: Protocol, place: &str, say: &mut impl FnMut(&str, String)) {
    if protocol == Protocol::Tcp && !list.is_empty() {
        let message = "`filters` has no effect with `protocol: tcp`, which has no requests: remove one of them";
        say(place, message.to_owned());
    }
    for (at, filter) in list.iter().enumerate() {
        let mut say = |key: &str, message: String| say(&format!("{place}[{at}]{key}"), message);
        match filter.kinds() {
            1 => {}
            0 => say("", format!("an empty filter: set {KINDS}")),
            _ => say(
                "",
                format!("several filters in one entry have no order: set one of {KINDS} in each"),
            ),
        }
        if let Some(config) = &filter.rate_limit {
            of_rate(config, &mut say);
        }
        if let Some(config) = &filter.rate_limit_service {
            of_rate_limit_service(config, &mut say);
        }
        if let Some(config) = &filter.ext_authz {
            of_ext_authz(config, &mut say);
        }
        if let Some(config) = &filter.fault {
            of_fault(config, &mut say);
        }
        if let Some(config) = &filter.headers {
            of_edits(&config.request, ".headers.request", &mut say);
            of_edits(&config.response, ".headers.response", &mut say);
            if config.request == HeaderEdits::default() && config.response == HeaderEdits::default() {
                let message = "`headers` edits nothing: add, for example, `request: {set: {x-team: shop}}`";
                say(".headers", message.to_owned());
            }
        }
        if let Some(config) = &filter.cors {
            of_cors(config, &mut say);
        }
    }
}

/// Filters of an outbound listener, whose only caller is the workload.
fn of_only_caller(list: &[FilterConfig], place: &str, say: &mut impl FnMut(&str, String)) {
    for (at, filter) in list.iter().enumerate() {
        let rate = filter.rate_limit.as_ref();
        if rate.is_some_and(|rate| rate.each == RateLimitKey::Caller) {
            let message =
                "`each: caller` has no effect here: an outbound listener's only caller is this workload; remove it";
            say(&format!("{place}[{at}].rate_limit.each"), message.to_owned());
        }
    }
}

fn of_rate(config: &RateLimitConfig, say: &mut impl FnMut(&str, String)) {
    if config.per_seconds > 86_400 {
        let message = format!(
            "`per_seconds: {}` is longer than a day: use fewer seconds and fewer `requests`",
            config.per_seconds
        );
        say(".rate_limit.per_seconds", message);
    }
}

fn of_rate_limit_service(config: &RateLimitServiceConfig, say: &mut impl FnMut(&str, String)) {
    if config.domain.is_empty() {
        let message = "`domain` is empty: set it to the domain that the rate limit service is configured with";
        say(".rate_limit_service.domain", message.to_owned());
    }
    if config.descriptors.is_empty() {
        let message = "`rate_limit_service` asks about nothing: add, for example, `descriptors: [[{key: caller, of: remote_address}]]`";
        say(".rate_limit_service.descriptors", message.to_owned());
    }
    for (at, descriptor) in config.descriptors.iter().enumerate() {
        let place = format!(".rate_limit_service.descriptors[{at}]");
        if descriptor.is_empty() {
            say(&place, "an empty descriptor: remove it, or add an entry".to_owned());
        }
        for (index, entry) in descriptor.iter().enumerate() {
            let kinds = [entry.value.is_some(), entry.header.is_some(), entry.of.is_some()];
            if entry.key.is_empty() || kinds.into_iter().filter(|is_set| *is_set).count() != 1 {
                let message = "an entry needs a `key` and one of `value`, `header` and `of`";
                say(&format!("{place}[{index}]"), message.to_owned());
            }
            if let Some(name) = &entry.header
                && let Err(message) = name_of(name)
            {
                say(&format!("{place}[{index}].header"), message);
            }
        }
    }
}

fn of_ext_authz(config: &ExtAuthzConfig, say: &mut impl FnMut(&str, String)) {
    let of_http = [
        ("path_prefix", !config.path_prefix.is_empty()),
        ("request_headers", !config.request_headers.is_empty()),
        ("upstream_headers", !config.upstream_headers.is_empty()),
    ];
    for (key, is_set) in of_http {
        if is_set && config.protocol == ExtAuthzProtocol::Grpc {
            let message = format!("`{key}` has no effect with `protocol: grpc`: remove it, or use `protocol: http`");
            say(&format!(".ext_authz.{key}"), message);
        }
    }
    if !config.context.is_empty() && config.protocol == ExtAuthzProtocol::Http {
        let message = "`context` has no effect with `protocol: http`: remove it, or use `protocol: grpc`";
        say(".ext_authz.context", message.to_owned());
    }
    if !config.path_prefix.is_empty() && !config.path_prefix.starts_with('/') {
        let message = format!("`path_prefix: {}` must begin with `/`", config.path_prefix);
        say(".ext_authz.path_prefix", message);
    }
    for (key, list) in [
        ("request_headers", &config.request_headers),
        ("upstream_headers", &config.upstream_headers),
    ] {
        for (at, name) in list.iter().enumerate() {
            match name_of(name) {
                Err(message) => say(&format!(".ext_authz.{key}[{at}]"), message),
                Ok(parsed) if !may_edit(&parsed) => {
                    let message =
                        format!("`{parsed}` cannot be passed on: it belongs to the connection or to the proxy");
                    say(&format!(".ext_authz.{key}[{at}]"), message);
                }
                Ok(_) => {}
            }
        }
    }
}

fn of_fault(config: &FaultConfig, say: &mut impl FnMut(&str, String)) {
    if config.delay_ms.is_none() && config.status.is_none() {
        let message = "`fault` does nothing: add `delay_ms`, `status` or both";
        say(".fault", message.to_owned());
    }
    if let Some(wanted) = &config.header
        && let Err(message) = name_of(&wanted.name)
    {
        say(".fault.header.name", message);
    }
}

fn name_of(name: &str) -> Result<HeaderName, String> {
    let parsed = name.parse::<HeaderName>();
    parsed.map_err(|_| format!("`{name}` is not a header's name: use letters, digits and `-`"))
}

fn of_edits(edits: &HeaderEdits, place: &str, say: &mut impl FnMut(&str, String)) {
    let mut of_name = |key: String, name: &str| match name_of(name) {
        Err(message) => say(&format!("{place}.{key}"), message),
        Ok(parsed) if !may_edit(&parsed) => {
            let message = format!("`{parsed}` cannot be edited: it belongs to the connection or to the proxy");
            say(&format!("{place}.{key}"), message);
        }
        Ok(_) => {}
    };
    for (at, name) in edits.remove.iter().enumerate() {
        of_name(format!("remove[{at}]"), name);
    }
    for (key, map) in [("set", &edits.set), ("append", &edits.append)] {
        for name in map.keys() {
            of_name(format!("{key}.{name}"), name);
        }
    }
    for (key, map) in [("set", &edits.set), ("append", &edits.append)] {
        for (name, value) in map {
            if HeaderValue::from_str(value).is_err() {
                let message = format!("the value of `{name}` is not one a header can have: use visible ASCII");
                say(&format!("{place}.{key}.{name}"), message);
            }
        }
    }
}

fn of_cors(config: &CorsConfig, say: &mut impl FnMut(&str, String)) {
    if config.origins.is_empty() {
        let message = "`cors` lets nobody call: list `origins`, such as `https://shop.example`";
        say(".cors.origins", message.to_owned());
    }
    for (at, origin) in config.origins.iter().enumerate() {
        if origin == "*" {
            if config.credentials {
                let message = "`credentials` cannot be sent by every origin: list origins instead of `*`";
                say(&format!(".cors.origins[{at}]"), message.to_owned());
            }
            continue;
        }
        let uri = origin.parse::<Uri>().ok();
        let is_origin = uri.is_some_and(|uri| uri.scheme().is_some() && uri.authority().is_some() && uri.path() == "/")
            && !origin.ends_with('/')
            && origin.to_ascii_lowercase() == *origin;
        if !is_origin {
            let message = format!(
                "`{origin}` is not an origin as browsers send it: use `https://host` or `https://host:port` in lower case, without a path"
            );
            say(&format!(".cors.origins[{at}]"), message);
        }
    }
    for (at, method) in config.methods.iter().enumerate() {
        if method.parse::<Method>().is_err() {
            say(&format!(".cors.methods[{at}]"), format!("`{method}` is not a method"));
        }
    }
    for (key, list) in [
        ("headers", &config.headers),
        ("exposed_headers", &config.exposed_headers),
    ] {
        for (at, name) in list.iter().enumerate() {
            if let Err(message) = name_of(name) {
                say(&format!(".cors.{key}[{at}]"), message);
            }
        }
    }
}
