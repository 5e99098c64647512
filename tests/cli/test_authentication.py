from pathlib import Path

import httpx
import pytest

from cli.installation import Stack
from demo.client import ContractReviewer
from demo.contract_generator import generate_contract

pytestmark = pytest.mark.slow


def test_prefect_and_mlflow_ask_for_the_password(elsewhere: Stack) -> None:
    password = (elsewhere.folder / "password").read_text()
    runs = f"{elsewhere.prefect_url}/api/flow_runs/count"
    experiments = f"{elsewhere.mlflow_url}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
    artifacts = f"{elsewhere.mlflow_url}/api/2.0/mlflow-artifacts/artifacts"
    for auth, status in ((None, 401), (("admin", "password1234"), 401), (("admin", password), 200)):
        assert httpx.post(runs, json={}, auth=auth).status_code == status
        assert httpx.get(experiments, auth=auth).status_code == status
        assert httpx.get(artifacts, auth=auth).status_code == status


def test_feedback_behind_the_password_becomes_a_version(elsewhere: Stack) -> None:
    client = ContractReviewer(elsewhere.api_url, elsewhere.api_key)
    contract = generate_contract(1)
    job = client.wait_for_job(
        client.feed_back(client.upload("1.txt", contract.text.encode(), contract.text, contract.spans))
    )
    assert job["status"] == "completed", job["message"]


@pytest.mark.parametrize("name", ["password", "mlflow-secret", "api-key"])
def test_secrets_are_readable_by_their_owner_only(elsewhere: Stack, name: str) -> None:
    assert (elsewhere.folder / name).stat().st_mode & 0o077 == 0


def test_password_is_in_no_log(elsewhere: Stack) -> None:
    password = (elsewhere.folder / "password").read_text()
    logs = list(Path(elsewhere.folder / "logs").iterdir())
    assert logs
    assert all(password not in log.read_text() for log in logs)
