"""Programs that run side by side until they are stopped; what ends by itself is started again."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

_logger = logging.getLogger(__name__)
_LOOK_SECONDS = 2.0
_STOP_SECONDS = 20


class Supervisor:
    """Starts Python modules in a folder, where their output goes to `logs`, and on demand again if they end.

    A Prefect worker, for one, ends when its server has been away for about a minute.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self._environment = folder, environment
        self._commands: dict[str, tuple[str, ...]] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def __getitem__(self, name: str) -> subprocess.Popen[bytes]:
        """Return a process that runs, or is let end."""
        return self._processes[name]

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Run a module with its arguments; without any, as it was started before."""
        with self._lock:
            self._commands[name] = command or self._commands[name]
            self._processes[name] = self._run(name)
            return self._processes[name]

    def wait(self, name: str, is_up: Callable[[], bool], timeout_seconds: float) -> None:
        """Return when a process is up; raises RuntimeError if it has ended, or is not in time."""
        until = time.monotonic() + timeout_seconds
        while self[name].poll() is None and time.monotonic() < until:
            if is_up():
                return
            time.sleep(0.2)
        log = self._log(name)
        raise RuntimeError(f"{name} does not come up; the last of {log}:\n{log.read_text()[-2000:]}")

    def keep_alive(self) -> None:
        """From now on start again what ends."""
        self._thread.start()

    def let_end(self, name: str) -> subprocess.Popen[bytes]:
        """Start a process no more if it ends, until it is told to; return it."""
        with self._lock:
            return self._processes.pop(name)

    def stop(self) -> None:
        """Stop all of them, the last first."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        for process in reversed(self._processes.values()):
            _stop(process)

    def _watch(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            with self._lock:
                for name, process in self._processes.items():
                    if process.poll() is not None:
                        code, log = process.returncode, self._log(name)
                        _logger.warning("%s ended with %s and is started again: see %s", name, code, log)
                        self._processes[name] = self._run(name)

    def _run(self, name: str) -> subprocess.Popen[bytes]:
        with self._log(name).open("ab") as log:
            return subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", *self._commands[name]],
                cwd=self._folder,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _log(self, name: str) -> Path:
        return self._folder / "logs" / f"{name}.log"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end; kill it and its children if it takes too long."""
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
