"""An HTTP server that receives webhooks, and answers as a test says."""

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook as Verifier

from tests.faults import wait_until


@dataclass
class Receiver:
    """What was received, and the statuses of the next answers; 204 follows them.

    One that drips sends headers without end.
    """

    url: str
    statuses: list[int] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    drips: bool = False

    def verify(self, secret: str) -> list[dict[str, Any]]:
        """Return the events received; raises WebhookVerificationError for a wrong signature."""
        return [Verifier(secret).verify(body, sent) for body, sent in zip(self.bodies, self.headers, strict=True)]

    def wait_for(self, count: int) -> None:
        wait_until(lambda: len(self.bodies) >= count, 20)


@contextmanager
def receive(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            receiver.headers.append(dict(self.headers))
            if receiver.drips:
                self.drip()
            else:
                self.answer(receiver.statuses.pop(0) if receiver.statuses else 204)

        def do_GET(self) -> None:
            self.do_POST()

        def answer(self, status: int) -> None:
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", f"{receiver.url}/elsewhere")
            self.end_headers()

        def drip(self) -> None:
            with suppress(OSError):  # the sender has hung up
                self.wfile.write(b"HTTP/1.0 200 OK\r\n")
                while receiver.drips:
                    self.wfile.write(b"X: 1\r\n")
                    time.sleep(0.1)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        receiver = Receiver(f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield receiver
        finally:
            receiver.drips = False
            server.shutdown()
            thread.join()
