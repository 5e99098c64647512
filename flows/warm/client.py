"""The command a worker starts for each run: it passes the run to the warm parent and exits as the run does.

It imports only the standard library, so that it starts quickly, unless it has something to log.
"""

import contextlib
import json
import logging
import os
import signal
import socket
import sys
from types import FrameType

SOCKET_VARIABLE = "CONTRACT_FEEDBACK_WARM_SOCKET"
STATUS_VARIABLE = "CONTRACT_FEEDBACK_WORKER_STATUS"


def main() -> int:
    """Return the run's exit code, or die of the signal that killed it; without a parent, exec the cold run."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as parent:
        if not _pass_to(parent):
            _warn("No warm parent answers: the run starts cold")
            os.execv(sys.executable, [sys.executable, "-m", "prefect.engine"])  # noqa: S606
        return _wait_for_exit(parent)


def _pass_to(parent: socket.socket) -> bool:
    """Send this process's environment, working directory and standard files; return whether the parent took them.

    Until the parent acknowledges, nothing runs, so the run can still start cold.
    """

    def forward(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            parent.send(bytes([number]))

    request = {"environment": dict(os.environ), "folder": os.getcwd()}  # noqa: PTH109
    try:
        parent.connect(os.environ.get(SOCKET_VARIABLE, ""))
        socket.send_fds(parent, [json.dumps(request).encode()], [0, 1, 2])
        signal.signal(signal.SIGTERM, forward)
        signal.signal(signal.SIGINT, forward)
        return bool(parent.recv(1))
    except OSError:
        return False


def _wait_for_exit(parent: socket.socket) -> int:
    try:
        code = parent.recv(16)
    except OSError:
        code = b""
    if not code:
        _warn("The warm parent has died, and the run with it")
        return 1
    if (status := int(code)) < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def _warn(message: str) -> None:
    from registry.logs import build_handler  # noqa: PLC0415  (the module's docstring)

    logger = logging.getLogger("flows.warm.client")
    logger.addHandler(build_handler())
    logger.warning(message)


if __name__ == "__main__":
    sys.exit(main())
