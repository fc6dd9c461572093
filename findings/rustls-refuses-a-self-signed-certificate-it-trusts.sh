#!/usr/bin/env bash
# Whether a server's self-signed certificate, as `openssl req -x509` makes it, is accepted by a client that is given this very
# certificate as its CA file.
#
# A good guess: yes, since curl and Go do so and guides for Prometheus' `ca_file` recommend it. Seen: OpenSSL marks such a
# certificate as a CA's (basicConstraints CA:TRUE), and rustls-webpki refuses a CA's certificate as a server's, trusted or not
# (`CaUsedAsEndEntity`). With `-addext basicConstraints=CA:FALSE` both accept it.
#
# Ends with 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
mkdir -p client/src
cat > client/Cargo.toml <<'TOML'
[package]
name = "client"
version = "0.0.0"
edition = "2024"
[dependencies]
ureq = "=3.5.1"
TOML
cat > client/src/main.rs <<'RUST'
use ureq::{Agent, tls::{Certificate, RootCerts, TlsConfig}};
fn main() {
    let mut arguments = std::env::args().skip(1);
    let (url, pem) = (arguments.next().unwrap(), std::fs::read(arguments.next().unwrap()).unwrap());
    let roots = RootCerts::new_with_certs(&[Certificate::from_pem(&pem).unwrap()]);
    let tls = TlsConfig::builder().root_certs(roots).build();
    let agent: Agent = Agent::config_builder().tls_config(tls).http_status_as_error(false).build().into();
    match agent.get(&url).call() {
        Ok(answer) => println!("{}", answer.status()),
        Err(error) => println!("{error}"),
    }
}
RUST
(cd client && cargo build --quiet)
ask() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost "$@" -keyout key.pem -out cert.pem 2>/dev/null
  openssl s_server -accept 127.0.0.1:14433 -cert cert.pem -key key.pem -www -quiet >/dev/null 2>&1 &
  server=$!
  sleep 1
  curl --silent --output /dev/null --write-out 'curl: %{http_code}\n' --cacert cert.pem https://localhost:14433/ || true
  echo "rustls: $(client/target/debug/client https://localhost:14433/ cert.pem)"
  kill "$server"
  wait "$server" 2>/dev/null || true
}
openssl version
plain=$(ask); echo "$plain"
leaf=$(ask -addext basicConstraints=critical,CA:FALSE); echo "$leaf"
grep -q 'curl: 200' <<<"$plain" && grep -q 'CaUsedAsEndEntity' <<<"$plain" && grep -q 'rustls: 200' <<<"$leaf"
