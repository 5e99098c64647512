"""An HTTP server that answers as Label Studio's API does, or as a test says: hung, odd, at an unlucky moment."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from threading import Thread
from typing import Any

from tests.label_studio import build_project

Answer = Callable[[str, BufferedIOBase], object]


@contextmanager
def serve(answer: Answer) -> Iterator[str]:
    """Yield the address of a server that has `answer` write what follows the headers, for each path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(OSError):  # the client has hung up
                self.send_response(200)
                self.end_headers()
                answer(self.path, self.wfile)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def answer_tasks(list_tasks: Callable[[], list[dict[str, Any]]]) -> Answer:
    """Answer as a project with these tasks."""

    def answer(path: str, body: BufferedIOBase) -> None:
        if path.startswith("/api/projects/"):
            body.write(json.dumps(build_project()).encode())
        else:
            tasks = list_tasks()
            body.write(json.dumps({"tasks": tasks, "total": len(tasks)}).encode())

    return answer
