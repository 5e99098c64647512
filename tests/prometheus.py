"""A Prometheus for the tests: Debian's, with the repository's configuration, that scrapes an API of the tests."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml  # type: ignore[import-untyped]

from cli.installation import LOOPBACK, reserve_port
from tests.faults import wait_until

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
MONITORING = Path(__file__).parents[1] / "deploy/monitoring"


class Prometheus:
    """A running server."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=20)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the instant vector of an expression; raise for one that is wrong."""
        answer = self.http.get("/api/v1/query", params={"query": expression})
        assert answer.status_code == 200, f"{expression}: {answer.text}"
        result: list[dict[str, Any]] = answer.json()["data"]["result"]
        return result


@contextmanager
def run_prometheus(folder: Path, api_url: str, key: str) -> Iterator[Prometheus]:
    """Run a server with the repository's files, which scrapes this API each second instead of those of Compose."""
    shutil.copy(MONITORING / "alerts.yml", folder)
    (folder / "metrics.key").write_text(f"{key}\n")
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"] = [{"targets": [urlsplit(api_url).netloc]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with reserve_port(LOOPBACK, 0) as reserved:
        address = f"{LOOPBACK}:{reserved.getsockname()[1]}"
        command = [
            str(PROMETHEUS), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={address}", "--log.level=warn",
        ]  # fmt: skip
        process = subprocess.Popen(command)
        server = Prometheus(f"http://{address}")
        try:
            wait_until(lambda: _is_ready(server))
            yield server
        finally:
            process.terminate()
            process.wait()


def _is_ready(server: Prometheus) -> bool:
    try:
        return server.http.get("/-/ready").is_success
    except httpx.TransportError:
        return False
