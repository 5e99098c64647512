"""Processes that run side by side, restarted when they exit, until all are stopped."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from feedback.time_limits import TimeLimits

_logger = logging.getLogger(__name__)
_POLL_SECONDS = 2.0
_AFTER_DRAIN_SECONDS = 10


class Supervisor:
    """Runs Python modules with `folder` as working directory.

    Their output goes to files in `logs` or, without it, where that of this process goes. They are terminated when this
    process dies. From `restart_exited` on it restarts any process that exits. One that has not exited ten seconds after
    the time that a worker has for its runs to end is killed.
    """

    def __init__(self, folder: Path, environment: dict[str, str], logs: Path | None = None) -> None:
        self._folder, self._environment, self._logs = folder, environment, logs
        self._stop_seconds = TimeLimits().drain_seconds + _AFTER_DRAIN_SECONDS
        self._commands: dict[str, tuple[str, ...]] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def __getitem__(self, name: str) -> subprocess.Popen[bytes]:
        """Return a supervised process."""
        return self._processes[name]

    def runs(self, name: str) -> bool:
        """Tell whether a process was started and has not exited."""
        process = self._processes.get(name)
        return process is not None and process.poll() is None

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Run a module with its arguments; without any, with those of its last start."""
        with self._lock:
            self._commands[name] = command or self._commands[name]
            self._processes[name] = self._run(name)
            return self._processes[name]

    def wait(self, name: str, is_up: Callable[[], bool], timeout_seconds: float) -> None:
        """Return when a process is up; raise RuntimeError if it exits first or exceeds the timeout."""
        until = time.monotonic() + timeout_seconds
        while self[name].poll() is None and time.monotonic() < until:
            if is_up():
                return
            time.sleep(0.2)
        log = self._log(name)
        end = f"the end of {log}:\n{log.read_text()[-2000:]}" if log else "its last lines, above, say why"
        raise RuntimeError(f"{name} did not start; {end}")

    def restart_exited(self) -> None:
        """Restart any process that exits, from now on."""
        self._thread.start()

    def release(self, name: str) -> subprocess.Popen[bytes]:
        """Stop supervising a process, so that it is not restarted when it exits, and return it."""
        with self._lock:
            return self._processes.pop(name)

    def stop(self) -> None:
        """Stop all processes, the last one of the first starts first: clients before their servers."""
        with self._lock:
            self._stopped.set()
        for name in reversed(self._commands):
            if name in self._processes:
                self._stop(self._processes[name])
        if self._thread.is_alive():
            self._thread.join()  # last: the processes that it has started end with it

    def _watch(self) -> None:
        while not self._stopped.wait(_POLL_SECONDS):
            with self._lock:
                for name, process in self._processes.items():
                    if process.poll() is not None and not self._stopped.is_set():
                        code, log = process.returncode, self._log(name) or "its lines above"
                        _logger.warning("%s exited with %s and is restarted: see %s", name, code, log)
                        self._processes[name] = self._run(name)

    def _run(self, name: str) -> subprocess.Popen[bytes]:
        log = self._log(name)
        with log.open("ab") if log else nullcontext() as output:
            return subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "cli.supervised", str(os.getpid()), *self._commands[name]],
                cwd=self._folder,
                env=self._environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _log(self, name: str) -> Path | None:
        return self._logs / f"{name}.log" if self._logs else None

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        """Terminate a process; kill it and its children if it has not exited in time."""
        process.terminate()
        try:
            process.wait(self._stop_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
