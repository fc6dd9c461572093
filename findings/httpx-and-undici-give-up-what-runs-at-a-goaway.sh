#!/usr/bin/env bash
# Whether a request over HTTP/2 that is being answered survives the GOAWAY of a server that retires its connection politely.
#
# A good guess: yes, a GOAWAY names the last stream that the server will finish and NO_ERROR says that nothing is wrong (RFC 9113,
# 6.8); it is what graceful shutdown and a connection's greatest age are made of. Seen: Node's own client waits 0.6 s and has the
# answer. httpx 0.28.1 fails the request the moment the GOAWAY arrives (RemoteProtocolError, error_code 0, and last_stream_id is
# the very request's); undici 7.30.2 closes the socket ("GOAWAY frame received with code 0"). Neither tries again. h2 4.4.1, on
# which httpx stands, takes every frame after a GOAWAY for an error, also the PING that hyper sends behind it and the answer.
#
# So a server keeps such callers' requests whole only if it sends the GOAWAY while the connection has none in flight. Emberline's proxy
# waits for that moment, within bounds (`proxy/src/server.rs`, `no_requests`; `docs/install.md`, "Age of connections").
#
# Needs node 20 and python3 with venv. Ends with 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check httpx==0.28.1 httpcore==1.0.9 h2==4.4.1
echo '{}' >package.json
npm install --silent --ignore-scripts --no-audit --no-fund undici@7.30.2
cat >server.js <<'JS'
// Each connection is retired 300 ms after its first request; the request is answered 600 ms later.
const server = require('http2').createServer();
server.on('sessionError', () => {});
server.on('stream', (stream) => {
  stream.on('error', () => {});
  setTimeout(() => stream.session && stream.session.close(), 300);
  setTimeout(() => {
    if (stream.destroyed) return;
    stream.respond({ ':status': 200 });
    stream.end('whole');
  }, 900);
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
JS
cat >clients.js <<'JS'
const http2 = require('http2');
const { Client } = require('undici');
const address = process.argv[2];
const node = () =>
  new Promise((done) => {
    const session = http2.connect(address);
    session.on('error', () => {});
    const request = session.request({ ':path': '/' });
    let body = '';
    request.setEncoding('utf8');
    request.on('data', (part) => (body += part));
    request.on('error', (error) => done(error.message));
    request.on('end', () => done(body));
  });
const undici = async () => {
  const client = new Client(address, { allowH2: true, useH2c: true });
  try {
    const answer = await client.request({ path: '/', method: 'GET' });
    return await answer.body.text();
  } catch (error) {
    return error.message;
  }
};
(async () => {
  console.log(`node ${process.versions.node}: ${await node()}`);
  console.log(`undici ${require('undici/package.json').version}: ${await undici()}`);
  process.exit();
})();
JS
cat >client.py <<'PY'
import sys

import h2
import httpx

try:
    answer = httpx.Client(http1=False, http2=True).get(sys.argv[1]).text
except httpx.HTTPError as error:
    answer = f"{type(error).__name__}: {error}"
print(f"httpx {httpx.__version__} over h2 {h2.__version__}: {answer}")
PY
cat >after.py <<'PY'
# The two ends of h2 without a network: a GOAWAY that leaves stream 1 to be finished, and then its answer.
import h2.config
import h2.connection
import h2.exceptions

client = h2.connection.H2Connection()
client.initiate_connection()
client.send_headers(1, [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "a")], end_stream=True)
server = h2.connection.H2Connection(config=h2.config.H2Configuration(client_side=False))
server.initiate_connection()
server.receive_data(client.data_to_send())
server.send_headers(1, [(":status", "200")], end_stream=True)
answer = server.data_to_send()
goaway = b"\0\0\x08\x07\0\0\0\0\0" + (1).to_bytes(4, "big") + (0).to_bytes(4, "big")
# The settings come first, so the answer is what is behind them: its frame begins with the length of the rest.
headers = answer[answer.rindex(b"\x01\x05\0\0\0\x01") - 3 :]
client.receive_data(answer[: -len(headers)] + goaway)
try:
    client.receive_data(headers)
    print("h2: the answer behind the GOAWAY is taken")
except h2.exceptions.ProtocolError as error:
    print(f"h2: the answer behind the GOAWAY: {type(error).__name__}: {error}")
PY
node server.js >port &
server=$!
for _ in $(seq 100); do
  [ -s port ] && break
  sleep 0.1
done
address="http://127.0.0.1:$(cat port)"
{
  node clients.js "$address"
  venv/bin/python client.py "$address"
  venv/bin/python after.py
} | tee seen
grep -q '^node .*: whole$' seen
grep -q '^undici .*GOAWAY.* code 0$' seen
grep -q '^httpx .*RemoteProtocolError: <ConnectionTerminated error_code:0, last_stream_id:1,' seen
grep -q '^h2: .*ProtocolError' seen
echo "as expected: only Node's own client has its answer"
