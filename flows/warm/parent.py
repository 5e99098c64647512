"""The warm parent: a process that has imported everything a run needs, and forks a child for each run.

Start it beside a worker with `python -m flows.warm.parent`, in the worker's environment plus the path of a socket,
`CONTRACT_FEEDBACK_WARM_SOCKET`. Anyone who can open the socket can run any code as this user.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flows.warm.client import SOCKET_VARIABLE
from flows.warm.lifetime import die_with
from registry.logs import configure_logging

# A fork copies only the thread that forks; a lock that another thread held stays locked. So no library may start one.
_NO_THREADS = {
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
_NICENESS = 5  # a third of the weight of a process of niceness 0


@dataclass(frozen=True)
class Request:
    """A client's environment, working directory, and its stdin, stdout and stderr."""

    environment: dict[str, str]
    folder: str
    files: list[int]


class Parent:
    """Forks a child for each request, forwards the client's signals to it, and reports its exit."""

    def __init__(self, listener: socket.socket) -> None:
        self._events = selectors.DefaultSelector()
        self._on(listener, partial(self._accept, listener))

    def serve(self) -> Request:
        """Serve forever; return only in a child, with the request that it is to run."""
        while True:
            key, _ = self._events.select()[0]  # only the first: its handler may unregister the others
            request: Request | None = key.data()
            if request:
                return request

    def _on(self, source: socket.socket | int, handle: Callable[[], Request | None]) -> None:
        self._events.register(source, selectors.EVENT_READ, handle)

    def _accept(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        self._on(client, partial(self._start, client))

    def _start(self, client: socket.socket) -> Request | None:
        self._events.unregister(client)
        message, files, parent, pid = b"", list[int](), os.getpid(), None
        with contextlib.suppress(OSError):
            message, files, _, _ = socket.recv_fds(client, 1 << 22, 3)
            # Before the fork: a client without this may start a cold run; if it has exited, the send fails.
            client.send(b"\0")
            pid = os.fork()
        if pid == 0:
            die_with(parent, signal.SIGKILL)
            self._close()
            client.detach()  # left open: the client must not read end-of-file before the child exits
            return Request(**json.loads(message), files=files)
        for file in files:
            os.close(file)
        if pid is None:
            client.close()
            return None
        os.setpgid(pid, pid)
        exited = os.pidfd_open(pid)
        self._on(exited, partial(self._report, client, pid, exited))
        self._on(client, partial(self._forward, client, pid))
        return None

    def _forward(self, client: socket.socket, pid: int) -> None:
        signals = b""
        with contextlib.suppress(OSError):
            signals = client.recv(16)
        for number in signals:
            os.kill(pid, number)
        if not signals:  # the client has died, so nothing can cancel the run any more
            self._events.unregister(client)
            os.killpg(pid, signal.SIGKILL)

    def _report(self, client: socket.socket, pid: int, exited: int) -> None:
        self._events.unregister(exited)
        os.close(exited)
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(KeyError):
            self._events.unregister(client)
        with contextlib.suppress(OSError):
            client.send(str(os.waitstatus_to_exitcode(status)).encode())
        client.close()

    def _close(self) -> None:
        for key in self._events.get_map().values():
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
            else:
                os.close(key.fd)
        self._events.close()


def main() -> None:
    """Preload and serve until killed; in a child, run the flow run of its request."""
    os.environ |= _NO_THREADS
    configure_logging()
    from flows.warm import run  # noqa: PLC0415  (its imports read _NO_THREADS)

    state = run.preload()
    lower_priority(_NICENESS)
    with _listen(Path(os.environ[SOCKET_VARIABLE])) as listener:
        request = Parent(listener).serve()
    run.run_flow(request.environment, request.folder, request.files, state)


def lower_priority(niceness: int) -> None:
    """Give other processes most of the processor while both compete; Linux may weigh whole sessions (autogroup)."""
    os.nice(niceness)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(niceness))


def _listen(path: Path) -> socket.socket:
    """Listen on a socket that no other user can connect to."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mask = os.umask(0o077)
    listener.bind(str(path))
    os.umask(mask)
    listener.listen()
    return listener


if __name__ == "__main__":
    main()
