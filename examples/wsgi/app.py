r"""A WSGI program; gunicorn takes the socket that systemd passes by itself:

    unitgen web --instances 3 --listen 3000 --working-directory /path/to/wsgi -p SystemCallFilter=@setuid --now -- \
        /usr/bin/gunicorn --threads=20 app:app

SystemCallFilter=@setuid is for gunicorn 20 and earlier, whose workers call setuid(2) even where there is nothing to change.
SIGTERM is its orderly end. Without --threads it closes every connection after one answer. An
instance has one worker process; make it several by --instances, not by --workers.
"""

import os
import time
import urllib.parse


def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        query = urllib.parse.parse_qs(environ["QUERY_STRING"])
        time.sleep(int(query.get("ms", ["0"])[0]) / 1000)
    body = "instance={} pid={} version={}\n".format(
        os.environ.get("INSTANCE", "?"), os.getpid(), os.environ.get("APP_VERSION", "1")
    ).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
