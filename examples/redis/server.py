#!/usr/bin/python3
"""A web server whose instances, on one host or several, share a counter and messages by Redis.

    unitgen shared -n 2 --listen 3000 --env=REDIS=10.0.0.5:6379 --now -- python3 /path/to/server.py

GET /            visits=N of all instances of all hosts
GET /tell?TEXT   a message to all instances
GET /told        the latest message
"""

import os
import socket
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOST, PORT = os.environ.get("REDIS", "127.0.0.1:6379").rsplit(":", 1)
told = ""


class Redis:
    """One connection. Redis reads and writes lines and counted strings (https://redis.io/docs/reference/protocol-spec)."""

    def __init__(self):
        self.socket = socket.create_connection((HOST, int(PORT)), timeout=5)
        self.file = self.socket.makefile("rwb")

    def ask(self, *words):
        self.file.write(b"*%d\r\n" % len(words))
        for word in words:
            word = str(word).encode()
            self.file.write(b"$%d\r\n%s\r\n" % (len(word), word))
        self.file.flush()
        return self.answer()

    def answer(self):
        line = self.file.readline()
        if not line:
            raise ConnectionError("Redis has closed the connection")
        kind, rest = line[:1], line[1:-2].decode()
        if kind == b"*":
            return [self.answer() for _ in range(int(rest))]
        if kind == b"$":
            return self.file.read(int(rest) + 2)[:-2].decode()
        if kind == b"-":
            raise RuntimeError(rest)
        return rest


def listen():
    """Follow the messages, for as long as the process lives. Redis keeps none for a subscriber that is away."""
    global told
    while True:
        try:
            redis = Redis()
            redis.socket.settimeout(None)  # there may be no message for days
            redis.ask("SUBSCRIBE", "news")
            while True:
                told = redis.answer()[2]
        except OSError:
            time.sleep(1)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/tell":
            body = "told %s\n" % Redis().ask("PUBLISH", "news", urllib.parse.unquote(url.query))
        elif url.path == "/told":
            body = told + "\n"
        else:
            body = "visits=%s\n" % Redis().ask("INCR", "visits")
        self.send_response(200)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args):
        pass


threading.Thread(target=listen, daemon=True).start()
ThreadingHTTPServer(("", 3000), Handler).serve_forever()
