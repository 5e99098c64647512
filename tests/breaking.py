"""What the tests break an installation with, and mend it with."""

import os
import signal
import time
from collections.abc import Callable

from cli.installation import Stack, answers


def wait_until(happened: Callable[[], bool], timeout_seconds: float = 120) -> None:
    until = time.monotonic() + timeout_seconds
    while not happened():
        assert time.monotonic() < until, "It does not happen"
        time.sleep(0.1)


def kill(stack: Stack, name: str) -> None:
    process = stack.processes.release(name)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def start_again(stack: Stack, name: str) -> None:
    """Start a process as it was started first, and wait until it answers if it is a server."""
    stack.processes.start(name)
    health = {
        "api": f"{stack.api_url}/health",
        "prefect": f"{stack.prefect_url}/api/health",
        "mlflow": f"{stack.mlflow_url}/health",
    }
    if name in health:
        wait_until(answers(health[name]))
