import pytest
from prefect.client.orchestration import SyncPrefectClient
from sqlalchemy import Engine

from feedback.launcher import Launcher
from feedback.prefect_runs import PrefectRuns
from feedback.time_limits import TimeLimits
from registry.models import ModelRegistry
from registry.settings import Settings


@pytest.fixture
def prefect_away(engine: Engine, settings: Settings) -> Launcher:
    """A launcher whose Prefect does not answer."""
    prefect = PrefectRuns(SyncPrefectClient("http://127.0.0.1:9/api"), settings, TimeLimits())
    return Launcher(engine, prefect, ModelRegistry(settings), TimeLimits())
