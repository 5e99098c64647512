import os
import signal
from pathlib import Path

from cli.supervision import Supervisor
from tests.faults import wait_until


def test_process_that_exits_is_restarted_unless_it_was_released(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    processes = Supervisor(tmp_path, dict(os.environ))
    first = {name: processes.start(name, "http.server", "0") for name in ("supervised", "released")}
    processes.restart_exited()
    try:
        assert processes.release("released") is first["released"]
        for process in first.values():
            os.killpg(process.pid, signal.SIGKILL)
        wait_until(lambda: processes["supervised"].pid != first["supervised"].pid, 10)
        assert list(processes._processes) == ["supervised"]
    finally:
        processes.stop()
