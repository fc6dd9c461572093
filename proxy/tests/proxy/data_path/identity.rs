//! Workloads introduce themselves, to each other only.

use http_body_util::Full;

use super::support::*;
use emberline_model::Side;

/// An application that says what identity header it saw, and lies about its own.
async fn nosy() -> App {
    App::start(|request| async move {
        let seen = request
            .headers()
            .get("x-emberline-peer")
            .map_or("none", |_| "some")
            .to_owned();
        http::Response::builder()
            .header("x-emberline-peer", "v1;;liar;v9;x")
            .body(Full::from(seen))
            .unwrap()
    })
    .await
}

#[test]
fn both_ends_of_an_edge_know_each_other_and_count_alike() {
    block_on(async {
        let app = nosy().await;
        let callee = inbound("checkout", "\"/quote/{id}\"", app.address, "");
        let caller = proxy(&yaml(
            "frontend",
            &format!(
                "outbound:\n  - {{listen: 127.0.0.1:0, service: checkout, routes: [\"/quote/{{id}}\"], destinations: [{{address: {}}}]}}",
                callee.addresses().inbound[0]
            ),
        ));
        const N: u64 = 100;
        let asking: Vec<_> = (0..4)
            .map(|_| {
                let address = caller.addresses().outbound[0];
                tokio::spawn(async move {
                    for n in 0..N / 4 {
                        let (head, body) = get(address, &format!("/quote/{n}")).await;
                        assert_eq!((status(&head), body.as_str()), (200, "none"));
                        assert_eq!(
                            header(&head, "x-emberline-peer"),
                            None,
                            "identity left the mesh: {head}"
                        );
                    }
                })
            })
            .collect();
        for asked in asking {
            asked.await.unwrap();
        }
        let client = recorded(caller.telemetry(), N).await;
        let server = recorded(callee.telemetry(), N).await;
        assert_eq!((client.len(), server.len()), (1, 1), "{client:#?} {server:#?}");
        for (series, side, peer) in [
            (&client[0], Side::Client, "checkout"),
            (&server[0], Side::Server, "frontend"),
        ] {
            let release = series.peer.as_ref().unwrap();
            assert_eq!((series.side, series.route.as_str()), (side, "/quote/{id}"));
            assert_eq!(
                (
                    release.namespace.as_str(),
                    release.service.as_str(),
                    release.version.as_str()
                ),
                ("shop", peer, "v1")
            );
            assert_eq!(
                (series.method.as_str(), series.protocol.as_str(), series.status),
                ("GET", "http/1.1", 200)
            );
        }
        assert_eq!(client[0].response_bytes, server[0].response_bytes);
        stop(caller).await;
        stop(callee).await;
    });
}

#[test]
fn a_caller_from_outside_learns_nothing_and_is_nobody() {
    block_on(async {
        let app = nosy().await;
        let proxy = inbound("cart", "\"/\"", app.address, "");
        let (head, body) = get(proxy.addresses().inbound[0], "/").await;
        assert_eq!((header(&head, "x-emberline-peer"), body.as_str()), (None, "none"));
        assert_eq!(recorded(proxy.telemetry(), 1).await[0].peer, None);
        stop(proxy).await;
    });
}

#[test]
fn a_caller_that_introduces_itself_is_answered_also_by_errors() {
    block_on(async {
        let proxy = inbound("cart", "\"/\"", nobody().await, "");
        let headers = "x-emberline-peer: v1;shop;front%20end;v%3B2;f-1\r\n";
        let (head, _) = get_with(proxy.addresses().inbound[0], "/", headers).await;
        assert_eq!(
            (status(&head), header(&head, "x-emberline-peer")),
            (503, Some("v1;shop;cart;v1;cart-1"))
        );
        let peer = recorded(proxy.telemetry(), 1).await[0].peer.clone().unwrap();
        assert_eq!((peer.service.as_str(), peer.version.as_str()), ("front end", "v;2"));
        stop(proxy).await;
    });
}

#[test]
fn identities_that_do_not_parse_are_nobody_and_go_no_further() {
    block_on(async {
        let app = nosy().await;
        let proxy = inbound("cart", "\"/\"", app.address, "");
        for bad in ["", "v2;a;b;c;d", "v1;a", "v1;%zz;b;c;d", "v1;;;;"] {
            let headers = format!("x-emberline-peer: {bad}\r\nx-emberline-peer: v1;a;b;c;d\r\n");
            assert_eq!(
                get_with(proxy.addresses().inbound[0], "/", &headers).await.1,
                "none",
                "{bad}"
            );
        }
        assert!(recorded(proxy.telemetry(), 5).await.iter().all(|s| s.peer.is_none()));
        stop(proxy).await;
    });
}

#[test]
fn two_releases_behind_one_listener_are_two_peers() {
    block_on(async {
        let app = App::named("app").await;
        let release = |version: &str| {
            let text = yaml(
                "checkout",
                &format!("inbound: [{{listen: 127.0.0.1:0, to: {}}}]", app.address),
            );
            proxy(&text.replace("version: v1", &format!("version: {version}")))
        };
        let (v1, v2) = (release("v1"), release("v2"));
        let caller = proxy(&yaml(
            "frontend",
            &format!(
                "outbound:\n  - {{listen: 127.0.0.1:0, service: checkout, destinations: [{{address: {}}}, {{address: {}}}]}}",
                v1.addresses().inbound[0],
                v2.addresses().inbound[0]
            ),
        ));
        for _ in 0..20 {
            get(caller.addresses().outbound[0], "/").await;
        }
        let mut counts: Vec<(String, u64)> = recorded(caller.telemetry(), 20)
            .await
            .into_iter()
            .map(|s| (s.peer.unwrap().version, s.duration.count()))
            .collect();
        counts.sort();
        assert_eq!(counts, [("v1".to_owned(), 10), ("v2".to_owned(), 10)]);
        for proxy in [caller, v1, v2] {
            stop(proxy).await;
        }
    });
}
