"""A web server on this machine for tests: ranges, redirects, and connections that break."""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class WebServer:
    """Serves `files`, by path, and keeps the `requests` as (path, Range or None)."""

    def __init__(self):
        self.files = {}
        self.redirects = {}
        self.etag = '"v1"'
        self.has_ranges = True
        self.heeds_if_range = True
        self.has_length = True
        self.break_after = None  # bytes, of the next answer only
        self.requests = []
        self.url = ""


@contextmanager
def web_server():
    site = WebServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers["Range"]
            site.requests.append((self.path, wanted))
            if self.path in site.redirects:
                self.send_response(302)
                self.send_header("Location", site.redirects[self.path])
                self.end_headers()
            elif self.path not in site.files:
                self.send_error(404)
            else:
                self.answer(site.files[self.path], wanted)

        def answer(self, body, wanted):
            start = 0
            is_same = self.headers["If-Range"] == site.etag or not site.heeds_if_range
            if wanted and site.has_ranges and is_same:
                start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if start >= len(body) > 0:
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            if site.has_length:
                self.send_header("Content-Length", str(len(body) - start))
            if site.etag:
                self.send_header("ETag", site.etag)
            self.end_headers()
            stop, site.break_after = site.break_after, None
            self.wfile.write(body[start:] if stop is None else body[start : start + stop])

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
