"""The process that has imported all that a run needs, and forks a child for each run.

Start it beside a worker, with the worker's environment and in it `CONTRACT_FEEDBACK_WARM_SOCKET`, a path:
`python -m flows.warm.parent`. Whoever may open that socket may run what they like as this user.
"""

import contextlib
import ctypes
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

# A fork has but the one thread that forked, and locks that others held stay locked: no library may start any.
_NO_THREADS = {
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
_PR_SET_PDEATHSIG = 1
_NICENESS = 5  # a third of the weight


@dataclass(frozen=True)
class Request:
    """What a process is born with; `files` are stdin, stdout and stderr."""

    environment: dict[str, str]
    folder: str
    files: list[int]


class Parent:
    """Forks a child for each request, forwards signals to it, reports its end."""

    def __init__(self, listener: socket.socket) -> None:
        self._events = selectors.DefaultSelector()
        self._on(listener, partial(self._accept, listener))

    def serve(self) -> Request:
        """Serve for ever; return in a child only, with what it is to become."""
        while True:
            key, _ = self._events.select()[0]  # one at a time: it may make void what happened beside it
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
            client.send(b"\0")  # before the fork: a client that has not heard of it may run cold, one that is gone not
            pid = os.fork()
        if pid == 0:
            _die_with(parent)
            self._close()
            client.detach()  # stays open, so that the client sees no end before the child's
            return Request(**json.loads(message), files=files)
        for file in files:
            os.close(file)
        if pid is None:
            client.close()
            return None
        os.setpgid(pid, pid)
        ended = os.pidfd_open(pid)
        self._on(ended, partial(self._report, client, pid, ended))
        self._on(client, partial(self._forward, client, pid))
        return None

    def _forward(self, client: socket.socket, pid: int) -> None:
        signals = b""
        with contextlib.suppress(OSError):
            signals = client.recv(16)
        for number in signals:
            os.kill(pid, number)
        if not signals:  # the client is gone, and with it whoever could still stop the run
            self._events.unregister(client)
            os.killpg(pid, signal.SIGKILL)

    def _report(self, client: socket.socket, pid: int, ended: int) -> None:
        self._events.unregister(ended)
        os.close(ended)
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
    """Load, then serve until killed; a child goes on as the run it was forked for."""
    os.environ |= _NO_THREADS
    from flows.warm import run  # noqa: PLC0415  (it starts the threads)

    loaded = run.load()
    _give_way()
    with _listen(Path(os.environ[SOCKET_VARIABLE])) as listener:
        request = Parent(listener).serve()
    run.become(request.environment, request.folder, request.files, loaded)


def _give_way() -> None:
    """Let extraction have most of the processor while both want it; Linux may weigh whole sessions (autogroup)."""
    os.nice(_NICENESS)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(_NICENESS))


def _listen(path: Path) -> socket.socket:
    """Listen where no other user can connect."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mask = os.umask(0o077)
    listener.bind(str(path))
    os.umask(mask)
    listener.listen()
    return listener


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    main()
