r"""An ASGI program; uvicorn serves on the socket that systemd passes, which is descriptor 3:

    unitgen web --instances 3 --listen 3000 --working-directory /path/to/asgi --now -- \
        /usr/bin/uvicorn --fd 3 --timeout-graceful-shutdown 20 app:app

    uvicorn waits for streams that do not end (server-sent events, WebSockets) for as long as it is let; with that option a
    reload waits 20 seconds at most.

It needs no other option: SIGTERM is its orderly end.
"""

import asyncio
import os
import urllib.parse


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/slow":
        query = urllib.parse.parse_qs(scope["query_string"].decode())
        await asyncio.sleep(int(query.get("ms", ["0"])[0]) / 1000)
    body = "instance={} pid={} version={}\n".format(
        os.environ.get("INSTANCE", "?"), os.getpid(), os.environ.get("APP_VERSION", "1")
    ).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
