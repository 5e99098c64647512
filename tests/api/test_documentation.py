import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvicorn

from api.app import create_app
from registry.settings import Settings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def documentation_url(tmp_path: Path) -> Iterator[str]:
    """The address of the documentation of an API that has not started anything else."""
    app = create_app(Settings(database_url=f"sqlite:///{tmp_path}/test.db"))
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")
def test_documentation_shows_the_operations_in_a_browser_without_network(
    documentation_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "requests.json"
    page = subprocess.run(
        [
            str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            f"--user-data-dir={tmp_path}/profile", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--virtual-time-budget=30000", f"--log-net-log={log}", "--dump-dom", f"{documentation_url}docs",
        ],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    assert 'data-path="/documents/{document_id}/feedback"' in page
    assert {urlsplit(url).hostname for url in _requests_of_pages(log)} == {"127.0.0.1"}


def _requests_of_pages(log: Path) -> Iterator[str]:
    """Yield the URLs that pages requested, from Chromium's network log; Chromium's own requests have no initiator."""
    for event in json.loads(log.read_text())["events"]:
        parameters = event.get("params", {})
        if parameters.get("initiator", "not an origin") != "not an origin" and "url" in parameters:
            yield parameters["url"]
