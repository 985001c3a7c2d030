#!/usr/bin/python3
"""A web server of the standard library on the socket that systemd passes: descriptor 3 (sd_listen_fds(3)).

    unitgen web --instances 3 --listen 3000 --now -- /usr/bin/python3 /path/to/server.py

GET /            instance=N pid=P version=V
GET /slow?ms=N   the same after N milliseconds
"""

import os
import signal
import socket
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY = "instance={} pid={} version={}\n".format(
    os.environ.get("INSTANCE", "?"), os.getpid(), os.environ.get("APP_VERSION", "1")
).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/slow":
            time.sleep(int(urllib.parse.parse_qs(url.query).get("ms", ["0"])[0]) / 1000)
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *args):
        pass


def main():
    server = ThreadingHTTPServer(("", 0), Handler, bind_and_activate=False)
    server.socket = socket.socket(fileno=3)
    server.daemon_threads = False  # requests in flight are finished before the process ends
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()


if __name__ == "__main__":
    main()
