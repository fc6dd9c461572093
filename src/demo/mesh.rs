//! The sample mesh as processes: load → [proxy frontend proxy] → checkout → cart, [proxy payment], inventory.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

use super::process::{Directory, Process, free_port, sibling};
use crate::cli::PlantRoute;

/// Requests per second of each route. The whole mesh stays well below one core, so that the services are measured and
/// not the queue for the processor.
const LOAD: [(&str, f64); 4] = [
    ("/quote/{id}", 10.0),
    ("/coupon/{code}", 10.0),
    ("/order/{id}", 10.0),
    ("/track/{id}", 25.0),
];

/// The Node.js program, embedded so that the demo needs only the command.
const PAYMENT_PROGRAM: &str = include_str!("../../deploy/demo/payment/server.mjs");

struct Addresses {
    entry: SocketAddr,
    frontend: SocketAddr,
    to_checkout: SocketAddr,
    checkout_v1: SocketAddr,
    checkout_v2: SocketAddr,
    cart: SocketAddr,
    inventory: SocketAddr,
    payment_entry: SocketAddr,
    payment: SocketAddr,
}

/// The running mesh.
pub(crate) struct SampleMesh {
    directory: PathBuf,
    otlp: String,
    addresses: Addresses,
    /// Stopped first, so that nothing more is sent.
    load: Process,
    /// Callers before callees.
    services: Vec<Process>,
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl SampleMesh {
    /// Starts all processes of the first release and the load.
    pub(crate) async fn start(directory: &Directory, otlp: String, seed: u64) -> Result<SampleMesh> {
        let node = find_node()?;
        let port = || free_port().map(local);
        let addresses = Addresses {
            entry: port()?,
            frontend: port()?,
            to_checkout: port()?,
            checkout_v1: port()?,
            checkout_v2: port()?,
            cart: port()?,
            inventory: port()?,
            payment_entry: port()?,
            payment: port()?,
        };
        let a = &addresses;
        let payment_file = directory.path().join("payment.mjs");
        std::fs::write(&payment_file, PAYMENT_PROGRAM)?;
        let frontend_config = write_frontend_config(directory.path(), a, &otlp, false)?;
        let payment_config = write_payment_config(directory.path(), a, &otlp)?;
        let proxy = sibling("emberline-proxy")?;
        let proxy_arguments = |config: &Path| {
            vec![
                "--config".to_owned(),
                config.display().to_string(),
                "--exit-on-stdin-close".to_owned(),
            ]
        };

        let mut services = vec![
            Process::start("frontend-proxy", &proxy, &proxy_arguments(&frontend_config), directory)?,
            Process::start(
                "frontend",
                &sibling("demo-frontend")?,
                &words(&format!(
                    "--listen {} --checkout {} --exit-on-stdin-close",
                    a.frontend, a.to_checkout
                )),
                directory,
            )?,
            start_checkout("v1", a, a.checkout_v1, &otlp, None, directory)?,
            Process::start("payment-proxy", &proxy, &proxy_arguments(&payment_config), directory)?,
            Process::start(
                "payment",
                &node,
                &[
                    payment_file.display().to_string(),
                    a.payment.port().to_string(),
                    "--exit-on-stdin-close".to_owned(),
                ],
                directory,
            )?,
            start_service("cart", a.cart, &otlp, directory)?,
            start_service("inventory", a.inventory, &otlp, directory)?,
        ];
        for address in [
            a.entry,
            a.frontend,
            a.to_checkout,
            a.checkout_v1,
            a.payment_entry,
            a.payment,
            a.cart,
            a.inventory,
        ] {
            wait_for(address, &mut services).await?;
        }
        let mut load = words(&format!(
            "--target {} --seed {seed} --exit-on-stdin-close --ledger {}",
            a.entry,
            directory.path().join("ledger.json").display()
        ));
        for (route, rate) in LOAD {
            load.extend(["--stream".to_owned(), format!("{route}={rate}")]);
        }
        let load = Process::start("load", &sibling("demo-load")?, &load, directory)?;
        Ok(SampleMesh {
            directory: directory.path().to_path_buf(),
            otlp,
            addresses,
            load,
            services,
        })
    }

    /// Starts checkout's second release and gives it half of the traffic.
    pub(crate) async fn release_v2(&mut self, plant: Option<PlantRoute>) -> Result<()> {
        let directory = Directory::new(Some(&self.directory))?;
        let a = &self.addresses;
        let v2 = start_checkout("v2", a, a.checkout_v2, &self.otlp, plant, &directory)?;
        self.services.insert(2, v2);
        wait_for(self.addresses.checkout_v2, &mut self.services).await?;
        // The frontend's proxy detects the changed file.
        write_frontend_config(&self.directory, &self.addresses, &self.otlp, true)?;
        Ok(())
    }

    /// Fails if a process has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.load.check()?;
        self.services.iter_mut().try_for_each(Process::check)
    }

    /// Stops everything: the load first and completely, then callers before callees, each shipping its last window.
    pub(crate) async fn stop(&mut self) {
        self.load.stop(Duration::from_secs(15)).await;
        for service in &mut self.services {
            service.stop(Duration::from_secs(15)).await;
        }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn start_service(name: &str, listen: SocketAddr, otlp: &str, directory: &Directory) -> Result<Process> {
    let arguments = format!("--listen {listen} --collector {otlp} --instance {name}-1 --exit-on-stdin-close");
    Process::start(name, &sibling(&format!("demo-{name}"))?, &words(&arguments), directory)
}

fn start_checkout(
    version: &str,
    a: &Addresses,
    listen: SocketAddr,
    otlp: &str,
    plant: Option<PlantRoute>,
    directory: &Directory,
) -> Result<Process> {
    let mut arguments = words(&format!(
        "--listen {listen} --collector {otlp} --instance checkout-{version}-1 --exit-on-stdin-close \
         --cart {} --payment {} --inventory {}",
        a.cart, a.payment_entry, a.inventory
    ));
    if let Some(plant) = plant {
        arguments.extend(["--plant".to_owned(), plant.name.to_owned()]);
    }
    let name = format!("checkout-{version}");
    Process::start(&name, &sibling(&format!("demo-{name}"))?, &arguments, directory)
}

/// Writes a temporary file and renames it, so that the proxy never reads half a file.
fn write_config(path: &Path, text: &str) -> Result<()> {
    let beside = path.with_extension("tmp");
    std::fs::write(&beside, text)
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn write_frontend_config(directory: &Path, a: &Addresses, otlp: &str, with_v2: bool) -> Result<PathBuf> {
    let path = directory.join("frontend-proxy.yaml");
    let admin = admin_address(&path)?;
    let routes = LOAD.map(|(route, _)| format!("\"{route}\"")).join(", ");
    let v2 = if with_v2 {
        format!("\n      - {{address: \"{}\", weight: 50}}", a.checkout_v2)
    } else {
        String::new()
    };
    let text = format!(
        "workload: {{namespace: shop, service: frontend, version: v1, instance: frontend-1}}\n\
         admin: \"{admin}\"\n\
         collector: {{endpoint: \"{otlp}\"}}\n\
         routes: [{routes}]\n\
         inbound:\n  - {{listen: \"{}\", to: \"{}\"}}\n\
         outbound:\n  - listen: \"{}\"\n    service: checkout\n    routes: [{routes}]\n    destinations:\n      \
         - {{address: \"{}\", weight: 50}}{v2}\n",
        a.entry, a.frontend, a.to_checkout, a.checkout_v1
    );
    write_config(&path, &text)?;
    Ok(path)
}

fn write_payment_config(directory: &Path, a: &Addresses, otlp: &str) -> Result<PathBuf> {
    let path = directory.join("payment-proxy.yaml");
    let admin = admin_address(&path)?;
    let text = format!(
        "workload: {{namespace: shop, service: payment, version: v1, instance: payment-1}}\n\
         admin: \"{admin}\"\n\
         collector: {{endpoint: \"{otlp}\"}}\n\
         routes: [\"/pay/{{id}}\"]\n\
         inbound:\n  - {{listen: \"{}\", to: \"{}\"}}\n",
        a.payment_entry, a.payment
    );
    write_config(&path, &text)?;
    Ok(path)
}

/// The admin address in an existing configuration, or a free one: it must not change while the proxy runs.
fn admin_address(path: &Path) -> Result<SocketAddr> {
    let before = std::fs::read_to_string(path).unwrap_or_default();
    let named = before
        .lines()
        .find_map(|line| line.strip_prefix("admin: \"")?.strip_suffix('"')?.parse().ok());
    Ok(match named {
        Some(address) => address,
        None => local(free_port()?),
    })
}

/// Node.js, from the path or from where `make setup` installs it.
fn find_node() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push(PathBuf::from("third_party/node/bin"));
    match folders
        .into_iter()
        .map(|folder| folder.join("node"))
        .find(|node| node.is_file())
    {
        Some(node) => Ok(node),
        None => bail!(
            "the payment service needs Node.js, but `node` is not on the PATH: run `make setup`, or install Node.js 18 or newer"
        ),
    }
}

async fn wait_for(address: SocketAddr, services: &mut [Process]) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while TcpStream::connect(address).await.is_err() {
        services.iter_mut().try_for_each(Process::check)?;
        if Instant::now() >= deadline {
            bail!("nothing is listening on {address} after a minute");
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
