//! A configuration that changes while requests pass.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use emberline_proxy::{Proxy, Reloaded, config};

use super::support::*;

fn shares(listen: SocketAddr, destinations: &[(SocketAddr, u32)]) -> String {
    let list: Vec<String> = destinations
        .iter()
        .map(|(a, w)| format!("{{address: {a}, weight: {w}}}"))
        .collect();
    yaml(
        "frontend",
        &format!(
            "outbound:\n  - listen: {listen}\n    service: checkout\n    destinations: [{}]",
            list.join(", ")
        ),
    )
}

/// A proxy from a file, whose listener has a port that the file can name again.
async fn from_file(path: &std::path::Path, text: impl Fn(SocketAddr) -> String) -> (Proxy, SocketAddr) {
    let listen = nobody().await;
    std::fs::write(path, text(listen)).unwrap();
    (Proxy::start(config::load(path).unwrap(), Some(path)).unwrap(), listen)
}

#[test]
fn weights_change_without_losing_a_request() {
    block_on(async {
        let (one, two) = (App::named("one").await, App::named("two").await);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.yaml");
        let (proxy, listen) = from_file(&path, |listen| shares(listen, &[(one.address, 1), (two.address, 0)])).await;

        let (ends, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let (ends, asked) = (ends.clone(), asked.clone());
                tokio::spawn(async move {
                    while !ends.load(Ordering::SeqCst) {
                        assert_eq!(status(&get(listen, "/").await.0), 200);
                        asked.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        eventually("requests pass", || asked.load(Ordering::SeqCst) > 50).await;
        assert_eq!(two.requests(), 0);
        // The file is watched.
        std::fs::write(&path, shares(listen, &[(one.address, 0), (two.address, 1)])).unwrap();
        eventually("the other destination is used", || two.requests() > 0).await;
        let before = one.requests();
        let until = asked.load(Ordering::SeqCst) + 50;
        eventually("more requests pass", || asked.load(Ordering::SeqCst) > until).await;
        // A request that was on its way may have come after the count.
        assert!(one.requests() <= before + 4, "{} then {}", before, one.requests());
        ends.store(true, Ordering::SeqCst);
        for caller in callers {
            caller.await.unwrap();
        }
        let n = asked.load(Ordering::SeqCst) as u64;
        assert_eq!((one.requests() + two.requests()) as u64, n);
        assert!(recorded(proxy.telemetry(), n).await.iter().all(|s| !s.error));
        stop(proxy).await;
    });
}

#[test]
fn a_reload_keeps_the_connections_of_destinations_that_stay() {
    block_on(async {
        let (one, two) = (App::named("one").await, App::named("two").await);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.yaml");
        let (proxy, listen) = from_file(&path, |listen| shares(listen, &[(one.address, 1)])).await;
        get(listen, "/").await;
        std::fs::write(&path, shares(listen, &[(one.address, 1), (two.address, 1)])).unwrap();
        assert_eq!(proxy.reload(), Reloaded::InForce { needs_restart: vec![] });
        for _ in 0..4 {
            get(listen, "/").await;
        }
        assert_eq!((one.connections(), two.connections()), (1, 1));
        assert_eq!((one.requests(), two.requests()), (3, 2));
        stop(proxy).await;
    });
}

#[test]
fn a_broken_file_changes_nothing_and_is_said() {
    block_on(async {
        let app = App::named("one").await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.yaml");
        let (proxy, listen) = from_file(&path, |listen| shares(listen, &[(app.address, 1)])).await;
        std::fs::write(&path, "workload: {service: frontend\noutbound: [").unwrap();
        let Reloaded::Refused { message } = proxy.reload() else {
            panic!("a broken file is in force")
        };
        assert!(message.starts_with(&format!("{}:", path.display())), "{message}");
        assert_eq!(get(listen, "/").await.1, "one");
        let admin = proxy.addresses().admin;
        assert_eq!(get(admin, "/ready").await.1, "ready\n");
        let (_, config) = get(admin, "/config").await;
        assert!(
            config.contains("\"last_error\": \"") && config.contains("frontend"),
            "{config}"
        );
        // The watcher may have met the broken file as well.
        assert!(metric(&proxy.metrics(), "emberline_proxy_config_reloads_refused_total") >= 1);
        stop(proxy).await;
    });
}

#[test]
fn what_needs_a_restart_is_named_and_the_rest_is_in_force() {
    block_on(async {
        let (one, two) = (App::named("one").await, App::named("two").await);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.yaml");
        let (proxy, listen) = from_file(&path, |listen| shares(listen, &[(one.address, 1)])).await;
        let text = shares(listen, &[(two.address, 1)])
            .replace("version: v1", "version: v2")
            .replace("admin:", "workers: 2\nadmin:");
        std::fs::write(&path, text).unwrap();
        assert_eq!(
            proxy.reload(),
            Reloaded::InForce {
                needs_restart: vec!["workload", "workers"]
            }
        );
        assert_eq!(get(listen, "/").await.1, "two");
        stop(proxy).await;
    });
}
