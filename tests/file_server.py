"""A web server of this machine that serves bytes well, badly, slowly or not at all."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """What is served, and how. ``broken`` answers, counted from the first, end after ``until`` bytes."""

    content: bytes
    ranges: bool = True
    statuses: list[int] = field(default_factory=list)  # of the first answers; those after them are as they should be
    broken: int = 0
    until: int = 0
    delay: float = 0.0
    linked_etag: str | None = None  # announced on a redirect, as the Hugging Face hub does
    length_is_told: bool = True
    requests: list[str | None] = field(default_factory=list)  # the Range of each request for the file
    address: str = ""

    @property
    def url(self) -> str:
        return f"{self.address}/file"


@contextmanager
def serving(served: Served) -> Iterator[Served]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if served.linked_etag and self.path == "/file":
                self.send_response(302)
                self.send_header("X-Linked-Etag", f'"{served.linked_etag}"')
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            answer(self, served)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(handler: BaseHTTPRequestHandler, served: Served) -> None:
    asked = handler.headers.get("Range")
    number = len(served.requests)
    served.requests.append(asked)
    if number < len(served.statuses):
        handler.send_error(served.statuses[number])
        return
    start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and served.ranges else 0
    total = len(served.content)
    if asked and served.ranges and start >= total:
        handler.send_response(416)
        handler.send_header("Content-Range", f"bytes */{total}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    handler.send_response(206 if asked and served.ranges else 200)
    if asked and served.ranges:
        handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
    if served.length_is_told:
        handler.send_header("Content-Length", str(total - start))
    handler.end_headers()
    time.sleep(served.delay)
    end = served.until if number < served.broken else total
    handler.wfile.write(served.content[start:end])
    handler.close_connection = True
