from collections.abc import Iterator

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from cli.installation import Stack
from registry.settings import Settings, get_settings


@pytest.fixture
def flow_environment(
    settings: Settings, stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """The environment of a flow in this process: the stack's Prefect server, and the test's own stores."""
    monkeypatch.chdir(tmp_path_factory.mktemp("mlflow"))
    monkeypatch.setenv("CONTRACT_FEEDBACK_DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("CONTRACT_FEEDBACK_MLFLOW_TRACKING_URI", settings.mlflow_tracking_uri)
    monkeypatch.setenv("CONTRACT_FEEDBACK_ENCODER", settings.encoder)
    monkeypatch.setenv("CONTRACT_FEEDBACK_CACHE_FOLDER", settings.cache_folder)
    get_settings.cache_clear()
    with temporary_settings({PREFECT_API_URL: f"{stack.prefect_url}/api"}):
        yield
    get_settings.cache_clear()
