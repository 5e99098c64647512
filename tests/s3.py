"""An S3 server for the tests, SeaweedFS, in a temporary folder."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import fsspec

from cli.installation import LOOPBACK, reserve_port

BUCKET = "contracts"
_PORTS = ("s3", "master", "volume", "filer", "admin")
_OFF = ("webdav", "admin.ui", "master.telemetry", "s3.autoCreateBucket", "s3.iam")


@dataclass(frozen=True)
class S3:
    """A server that has one empty bucket; `environment` is what its clients need."""

    environment: dict[str, str]
    process: subprocess.Popen[bytes]

    def pause(self) -> None:
        """Let it hang: it accepts connections, and does not answer."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)  # until its last thread has stopped

    def resume(self) -> None:
        """Let it answer again."""
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def run_s3() -> Iterator[S3]:
    """Run a server on any port until the block ends."""
    with ExitStack() as opened:
        folder = opened.enter_context(TemporaryDirectory(prefix="s3-"))
        ports: dict[str, int] = {}
        for name in _PORTS:
            for kind in ("port", "port.grpc"):
                reserved = opened.enter_context(reserve_port(LOOPBACK, 0))
                ports[f"{name}.{kind}"] = reserved.getsockname()[1]
                reserved.close()  # Go's servers do not listen on a reserved port
        environment = {
            "AWS_ENDPOINT_URL": f"http://{LOOPBACK}:{ports['s3.port']}",
            "AWS_ACCESS_KEY_ID": "contract-feedback",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        options = {f"-{name}": str(port) for name, port in ports.items()} | {f"-{name}": "false" for name in _OFF}
        options |= {"-dir": folder, "-ip": LOOPBACK, "-ip.bind": LOOPBACK, "-bucket": BUCKET}
        options |= {"-s3.port.iceberg": "0", "-s3.port.lance": "0"}
        process = subprocess.Popen(
            [Path(sys.executable).with_name("weed"), "mini", *(f"{name}={value}" for name, value in options.items())],
            env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        server = S3(environment, process)
        try:
            _wait(server)
            yield server
        finally:
            process.kill()
            process.wait()


def _wait(server: S3) -> None:
    """Return when the bucket exists, which is created last."""
    address, key, secret, _ = server.environment.values()
    files = fsspec.filesystem("s3", endpoint_url=address, key=key, secret=secret, skip_instance_cache=True)
    until = time.monotonic() + 60
    while not files.exists(BUCKET):
        assert server.process.poll() is None, "SeaweedFS did not start"
        assert time.monotonic() < until, "SeaweedFS did not create its bucket"
        time.sleep(0.1)
