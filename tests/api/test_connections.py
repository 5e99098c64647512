"""How many connections to PostgreSQL an API opens."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import create_engine, text

from registry.settings import Settings
from tests.postgresql import PostgreSQL, create_database
from tests.running_api import run_api

pytestmark = pytest.mark.slow


@pytest.fixture
def database_url(postgresql: PostgreSQL, migrated_database: str) -> str:
    return create_database(postgresql, migrated_database)


def test_api_opens_no_more_connections_than_the_setting_and_ten_and_answers_all(
    settings: Settings, database_url: str
) -> None:
    settings = settings.model_copy(update={"database_connections": 5})
    with run_api(settings) as api, create_engine(database_url).connect() as other, ThreadPoolExecutor(60) as pool:
        clients = [api.connect(api.add_key()) for _ in range(10)]
        other.execute(text("LOCK TABLE document IN ACCESS EXCLUSIVE MODE"))
        answers = [pool.submit(client.get, "/documents/none") for client in clients for _ in range(6)]
        time.sleep(2)
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid != pg_backend_pid()"
        assert 5 <= other.execute(text(count)).scalar_one() <= 15
        other.rollback()
        assert {answer.result().status_code for answer in answers} == {404}
