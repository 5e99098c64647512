"""What a page of another site can do through a browser on this machine: nothing."""

import asyncio
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from cli.installation import Stack

FOREIGN = "https://example.com"
HOSTS = [
    "example.com", "example.com:{port}", "10.example.com:{port}", "127.0.0.1.example.com:{port}", "localhost.",
    "a@127.0.0.1", "127.0.0.1/a", "[", "",
]  # fmt: skip
ORIGINS = [
    FOREIGN, "null", "http://127.0.0.1:1", "http://192.0.2.1:{port}", "http://localhost.example.com:{port}",
    "http://a@127.0.0.1:{port}", "http://[", "",
]  # fmt: skip


@pytest.fixture(params=["prefect", "mlflow", "api"])
def page(request: pytest.FixtureRequest, stack: Stack) -> str:
    """The address of something readable on each server."""
    return {
        "prefect": f"{stack.prefect_url}/api/admin/settings",
        "mlflow": f"{stack.mlflow_url}/ajax-api/2.0/mlflow/experiments/get?experiment_id=0",
        "api": f"{stack.api_url}/openapi.json",
    }[request.param]


@pytest.mark.parametrize("host", HOSTS)
def test_foreign_host_gets_nothing(page: str, host: str) -> None:
    answer = httpx.get(page, headers={"Host": host.format(port=urlsplit(page).port)})
    assert answer.status_code in {400, 403}


def test_own_page_is_answered_at_both_of_its_addresses(page: str) -> None:
    for name in ("127.0.0.1", "localhost"):
        own = page.replace("127.0.0.1", name)
        headers = {"Origin": f"http://{urlsplit(own).netloc}", "Host": urlsplit(own).netloc}
        assert httpx.get(page, headers=headers).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.2:{port}", "[::1]:{port}", "0.0.0.0:{port}", "LOCALHOST:{port}"])
def test_address_as_host_is_no_foreign_name(stack: Stack, host: str) -> None:
    own = host.format(port=urlsplit(stack.prefect_url).port)
    answer = httpx.get(f"{stack.prefect_url}/api/health", headers={"Host": own, "Origin": f"http://{own.lower()}"})
    assert answer.status_code == 200


@pytest.mark.parametrize("origin", ORIGINS)
def test_foreign_origin_starts_no_run(stack: Stack, origin: str) -> None:
    headers = {"Origin": origin.format(port=urlsplit(stack.prefect_url).port)}
    deployments = f"{stack.prefect_url}/api/deployments"
    found = httpx.get(f"{deployments}/name/learn-from-feedback/feedback").json()
    run = {"state": {"type": "SCHEDULED"}, "job_variables": {"command": "touch /tmp/started-by-a-page"}}
    for method, body in (("OPTIONS", None), ("POST", run)):
        answer = httpx.request(method, f"{deployments}/{found['id']}/create_flow_run", json=body, headers=headers)
        assert answer.status_code == 403
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("path", ["events/in", "events/out", "logs/out"])
def test_foreign_origin_opens_no_websocket(stack: Stack, path: str) -> None:
    async def open_websocket() -> None:
        address = f"{stack.prefect_url}/api/{path}".replace("http", "ws", 1)
        async with connect(address, origin=FOREIGN):  # type: ignore[arg-type]
            pass

    with pytest.raises(InvalidStatus, match="403"):
        asyncio.run(open_websocket())


def test_foreign_origin_reads_and_changes_nothing_in_mlflow(stack: Stack) -> None:
    experiments, headers = f"{stack.mlflow_url}/ajax-api/2.0/mlflow/experiments", {"Origin": FOREIGN}
    for content_type in ("application/json", "text/plain"):
        create = httpx.post(
            f"{experiments}/create", content=b'{"name": "foreign"}', headers=headers | {"Content-Type": content_type}
        )
        assert create.status_code == 403
    read = httpx.get(f"{experiments}/get?experiment_id=0", headers=headers)
    assert "Access-Control-Allow-Origin" not in read.headers


def test_foreign_origin_gets_nothing_from_the_api(stack: Stack) -> None:
    answer = httpx.get(
        f"{stack.api_url}/documents", headers={"Origin": FOREIGN, "Authorization": f"Bearer {stack.api_key}"}
    )
    assert answer.status_code == 403
    assert "Pages of another site have no access" in answer.json()["detail"]
