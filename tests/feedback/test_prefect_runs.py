"""What the API does while Prefect hangs."""

import socket
import time

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from feedback.prefect_runs import PrefectRuns
from feedback.time_limits import TimeLimits
from registry.errors import UnavailableError
from registry.settings import Settings


def test_prefect_that_hangs_holds_up_the_first_request_alone() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        temporary_settings({PREFECT_API_REQUEST_TIMEOUT: 1.2, PREFECT_CLIENT_MAX_RETRIES: 0}),
        SyncPrefectClient(f"http://127.0.0.1:{silent.getsockname()[1]}/api") as client,
    ):
        prefect, waited = PrefectRuns(client, Settings(), TimeLimits()), []
        for ask in (prefect.list_workers, prefect.list_workers, prefect.check_alive):
            started = time.monotonic()
            with pytest.raises(UnavailableError, match="Prefect does not answer"):
                ask()
            waited.append(time.monotonic() - started)
    assert waited[0] > 1
    assert max(waited[1:]) < 0.5
