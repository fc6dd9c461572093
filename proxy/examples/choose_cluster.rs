//! A proxy with code that chooses clusters: it fails a site over and diverts suspicious clients, without a restart.
//!
//! `cargo run --release -p emberline-proxy --example choose_cluster -- proxy.yaml`, where the services of `outbound` have `clusters`
//! called `other-site` and `quarantine`. Commands are lines on standard input: `failover on`, `failover off`, `divert 10.0.0.7`,
//! `pardon 10.0.0.7`; its end stops the proxy. A client is the first address of `x-forwarded-for`.

use std::{
    borrow::Cow,
    collections::HashSet,
    io::BufRead,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use emberline_proxy::{Asked, Choice, ChooseCluster, Extensions, Proxy, config};

/// What operators have decided; requests read it without a lock.
#[derive(Debug, Default)]
struct Decisions {
    has_failed_over: AtomicBool,
    suspicious: ArcSwap<HashSet<String>>,
}

impl ChooseCluster for Decisions {
    fn choose(&self, asked: &Asked<'_>) -> Choice {
        let forwarded = asked
            .head
            .headers
            .get("x-forwarded-for")
            .and_then(|value| value.to_str().ok());
        let client = forwarded.and_then(|value| value.split(',').next()).map(str::trim);
        if client.is_some_and(|client| self.suspicious.load().contains(client)) {
            return Choice::Cluster(Cow::Borrowed("quarantine"));
        }
        if self.has_failed_over.load(Ordering::Relaxed) {
            return Choice::Cluster(Cow::Borrowed("other-site"));
        }
        Choice::Configured
    }
}

impl Decisions {
    /// Follows a command; `false` where it is none.
    fn follow(&self, command: &str) -> bool {
        let change = |change: &dyn Fn(&mut HashSet<String>)| {
            self.suspicious.rcu(|known| {
                let mut known = HashSet::clone(known);
                change(&mut known);
                known
            });
        };
        match command.split_whitespace().collect::<Vec<_>>()[..] {
            ["failover", "on"] => self.has_failed_over.store(true, Ordering::Relaxed),
            ["failover", "off"] => self.has_failed_over.store(false, Ordering::Relaxed),
            ["divert", client] => change(&|known| {
                known.insert(client.to_owned());
            }),
            ["pardon", client] => change(&|known| {
                known.remove(client);
            }),
            _ => return false,
        }
        true
    }
}

fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "proxy.yaml".to_owned());
    let path = Path::new(&path);
    let decisions = Arc::new(Decisions::default());
    let extensions = Extensions {
        chooser: Some(Arc::clone(&decisions) as Arc<dyn ChooseCluster>),
        ..Extensions::default()
    };
    let proxy = Proxy::start_with(config::load(path)?, Some(path), extensions)?;
    println!("listening on {:?}", proxy.addresses().outbound);
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let result = if decisions.follow(&line) {
            "done"
        } else {
            "unknown command"
        };
        println!("{line}: {result}");
    }
    proxy.stop();
    Ok(())
}
