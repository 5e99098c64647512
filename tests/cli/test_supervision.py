import os
import signal
import subprocess
import sys
from pathlib import Path

from cli.supervision import Supervisor
from tests.faults import wait_until

SUPERVISE = """
import os, time
from pathlib import Path
from cli.supervision import Supervisor
print(Supervisor(Path.cwd(), dict(os.environ)).start("server", "http.server", "0").pid, flush=True)
time.sleep(60)
"""


def test_process_that_exits_is_restarted_unless_it_was_released(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    processes = Supervisor(tmp_path, dict(os.environ), tmp_path / "logs")
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


def test_supervised_process_does_not_outlive_its_supervisor(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SUPERVISE]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout
        pid = int(supervisor.stdout.readline())
        wait_until(lambda: "cli.supervised" in Path(f"/proc/{pid}/cmdline").read_text(), 10)
        supervisor.kill()
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split(), 10)
