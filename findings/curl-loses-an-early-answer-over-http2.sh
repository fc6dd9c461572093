#!/usr/bin/env bash
# A server that refuses an upload answers at once, ends its response and resets the stream with NO_ERROR: stop sending, the answer
# stands (RFC 9113, 8.1: "Clients MUST NOT discard responses as a result of receiving such a RST_STREAM"). curl 7.88.1, which is
# Debian 12's, reports no status and exit code 92 ("stream not closed cleanly") while it is still uploading: a 413 looks like a broken
# connection. Over HTTP/1.1 it tells the 413. Node reads it in both.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-0}" 2>/dev/null || true; rm -rf "$work"' EXIT
curl --version | head -n 1
curl --version | head -n 1 | grep -q ' 7\.88\.1 ' || { echo "another curl: this is about 7.88.1"; exit 1; }
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check h2==4.1.0
cat >"$work/server.py" <<'PYTHON'
import h2.config, h2.connection, h2.errors, h2.events, socket, sys, threading

def serve(client):
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    connection.initiate_connection()
    client.sendall(connection.data_to_send())
    while data := client.recv(65536):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                connection.send_headers(event.stream_id, [(":status", "413"), ("content-length", "4")])
                connection.send_data(event.stream_id, b"big\n", end_stream=True)
                connection.reset_stream(event.stream_id, h2.errors.ErrorCodes.NO_ERROR)
        client.sendall(connection.data_to_send())

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
PYTHON
"$work/venv/bin/python" "$work/server.py" >"$work/port" 2>/dev/null &
server=$!
for _ in $(seq 50); do [ -s "$work/port" ] && break; sleep 0.1; done
head -c 3500000 /dev/zero >"$work/upload"
code=0
status=$(curl --silent --output /dev/null --write-out '%{http_code}' --http2-prior-knowledge \
    --upload-file "$work/upload" "http://127.0.0.1:$(cat "$work/port")/") || code=$?
echo "upload of 3.5 MB, refused at once: status $status, exit code $code"
[ "$status" = 000 ] && [ "$code" = 92 ]
