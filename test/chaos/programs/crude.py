#!/usr/bin/python3
"""A web server that ends at SIGTERM in the middle of what it does: it knows no signal, as most scripts do."""

import os
import socket
import sys
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY = "instance={} pid={}\n".format(os.environ["INSTANCE"], os.getpid()).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        # Longer than a tick of the kernel's clock: the balancer sees then that the last byte was an answer.
        time.sleep(int(query.get("ms", ["20"])[0]) / 1000)
        # In one write: an answer in two would wait for the client's acknowledgement in between (Nagle's algorithm).
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY))

    def handle(self):
        try:
            super().handle()
        except ConnectionError:
            pass

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(("", 0), Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
server.serve_forever()
