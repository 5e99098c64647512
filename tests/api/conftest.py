"""An application in this process with a real database; Prefect and MLflow are unreachable."""

from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient
from prefect.settings import PREFECT_API_URL, temporary_settings

from api.app import create_app
from registry.database import migrate_database, open_session
from registry.keys import Scope, add_key
from registry.settings import Settings

Start = Callable[..., TestClient]


@pytest.fixture
def start(settings: Settings) -> Iterator[Start]:
    opened: list[TestClient] = []

    def start_application(**changes: object) -> TestClient:
        changed = settings.model_copy(update=changes)
        migrate_database(changed)
        with open_session(changed) as session:
            key = add_key(session, "ana", list(Scope))
        client = TestClient(create_app(changed), headers={"Authorization": f"Bearer {key}"})
        opened.append(client.__enter__())
        return client

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        yield start_application
        for client in opened:
            client.__exit__(None, None, None)
