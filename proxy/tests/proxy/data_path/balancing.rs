//! Several endpoints: who gets a request, who is passed over, and what is tried again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use emberline_proxy::Proxy;

use super::support::*;

/// A proxy in front of these, with more keys of its outbound listener.
fn outbound(addresses: &[SocketAddr], more: &str) -> (Proxy, SocketAddr) {
    let destinations: Vec<String> = addresses.iter().map(|at| format!("{{address: {at}}}")).collect();
    let proxy = proxy(&yaml(
        "frontend",
        &format!(
            "outbound: [{{listen: 127.0.0.1:0, service: shop, destinations: [{}]{more}}}]",
            destinations.join(", ")
        ),
    ));
    let listen = proxy.addresses().outbound[0];
    (proxy, listen)
}

/// Bodies of so many responses, by how often they came.
async fn bodies(listen: SocketAddr, n: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..n {
        *counts.entry(get(listen, "/").await.1).or_default() += 1;
    }
    counts
}

#[test]
fn a_value_of_a_header_always_has_the_same_endpoint() {
    block_on(async {
        let apps = [App::named("a").await, App::named("b").await, App::named("c").await];
        let addresses = apps.each_ref().map(|app| app.address);
        for balancer in ["maglev", "ring_hash"] {
            let more = format!(", balancer: {balancer}, hash_on: {{header: x-user}}");
            let (proxy, listen) = outbound(&addresses, &more);
            let (again, listen_again) = outbound(&addresses, &more);
            let mut seen = BTreeSet::new();
            for user in 0..30 {
                let header = format!("X-User: {user}\r\n");
                let first = get_with(listen, "/", &header).await.1;
                assert_eq!(get_with(listen, "/", &header).await.1, first);
                assert_eq!(get_with(listen_again, "/", &header).await.1, first, "proxies agree");
                seen.insert(first);
            }
            assert_eq!(seen.len(), 3, "{balancer}");
            stop(proxy).await;
            stop(again).await;
        }
    });
}

#[test]
fn an_endpoint_that_is_busy_gets_no_more() {
    block_on(async {
        let stuck = App::start(|_| std::future::pending()).await;
        let free = App::named("free").await;
        let (proxy, listen) = outbound(&[stuck.address, free.address], ", balancer: least_request");
        let mut waiting = Vec::new();
        while stuck.requests() == 0 {
            let asked = tokio::spawn(get(listen, "/"));
            let both = async {
                while !asked.is_finished() && stuck.requests() == 0 {
                    tokio::task::yield_now().await
                }
            };
            both.await;
            waiting.push(asked);
        }
        assert_eq!(bodies(listen, 20).await, BTreeMap::from([("free".to_owned(), 20)]));
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
        stop(proxy).await;
    });
}

#[test]
fn a_destination_that_accepts_no_connection_costs_no_request() {
    block_on(async {
        let app = App::named("app").await;
        let addresses = [nobody().await, app.address];
        let (proxy, listen) = outbound(&addresses, "");
        assert_eq!(bodies(listen, 20).await, BTreeMap::from([("app".to_owned(), 20)]));
        let failures = metric(&proxy.metrics(), "emberline_proxy_upstream_connection_failures_total");
        assert!((1..=3).contains(&failures), "{failures}");
        stop(proxy).await;
    });
}
