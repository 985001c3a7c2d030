"""A server on descriptor 3 that can be asked to misbehave; a thread per connection, which is kept.

GET /             instance=<INSTANCE> pid=<pid>
GET /slow?ms=N    the same, N milliseconds later
GET /grow?mb=N    holds N MiB more from now on
GET /exit?code=N  ends at once
GET /hush         tells systemd no longer that it is alive (WatchdogSec=)
"""

import os
import socket
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

held = []
hushed = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        number = int(url.query.partition("=")[2] or 0)
        if url.path == "/slow":
            time.sleep(number / 1000)
        elif url.path == "/grow":
            held.append(b"x" * (number << 20))
        elif url.path == "/exit":
            os._exit(number)
        elif url.path == "/hush":
            hushed.set()
        body = b"instance=%s pid=%d\n" % (os.environ["INSTANCE"].encode(), os.getpid())
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def notify():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
        s.send(b"READY=1")
        pause = int(os.environ.get("WATCHDOG_USEC", 0)) / 4e6
        while pause and not hushed.wait(pause):
            s.send(b"WATCHDOG=1")


class Server(ThreadingHTTPServer):
    daemon_threads = True


if "NOTIFY_SOCKET" in os.environ:
    threading.Thread(target=notify, daemon=True).start()
server = Server(("", 0), Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
server.serve_forever()
