from pathlib import Path

import pytest

from registry.database import open_session
from registry.keys import Scope, add_key
from registry.settings import Settings
from tests.api.conftest import Start
from tests.api.test_authentication import with_key


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


@pytest.mark.parametrize(
    ("scopes", "permitted"),
    [([Scope.READ, Scope.TRAIN], ["read", "train"]), ([Scope.ADMIN], [each.value for each in Scope])],
)
def test_key_is_told_whose_it_is_and_what_it_may_do(
    start: Start, settings: Settings, scopes: list[Scope], permitted: list[str]
) -> None:
    client = start()
    with open_session(settings) as session:
        key = add_key(session, "bruno", scopes)
    assert with_key(client, key).get("/key").json() == {"name": "bruno", "scopes": permitted}
