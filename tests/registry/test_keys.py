from datetime import UTC, datetime, timedelta

import pytest
from argon2 import PasswordHasher
from sqlmodel import Session

from registry.errors import NotFoundError
from registry.keys import Scope, add_key, find_key, has_keys, list_keys, revoke_key


def test_key_is_found_and_its_secret_is_not_stored(session: Session) -> None:
    key = add_key(session, "ana", [Scope.READ])
    found = find_key(session, key)
    assert found
    assert (found.name, found.scopes) == ("ana", ["read"])
    assert key.split("_", 2)[2] not in str(found.model_dump())


def test_wrong_key_finds_nothing(session: Session) -> None:
    key = add_key(session, "ana", [Scope.READ])
    for other in (key[:-1], f"{key}x", key.upper(), "cf_", "", key.rsplit("_", 1)[0]):
        assert find_key(session, other) is None


def test_key_of_an_earlier_release_is_found_and_its_slow_hash_replaced(session: Session) -> None:
    key = add_key(session, "ana", [Scope.READ])
    found = find_key(session, key)
    assert found
    found.secret_hash = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(key.split("_", 2)[2])
    assert find_key(session, f"{key}x") is None
    assert found.secret_hash.startswith("$argon2id$")
    for _ in range(2):
        assert find_key(session, key) == found
        assert not found.secret_hash.startswith("$argon2id$")


def test_use_is_noted_to_the_minute(session: Session) -> None:
    key = add_key(session, "ana", [Scope.READ])
    found = find_key(session, key)
    assert found
    first = found.last_used_at
    assert first
    assert datetime.now(UTC) - first < timedelta(minutes=1)
    find_key(session, key)
    assert found.last_used_at == first
    found.last_used_at = first - timedelta(hours=1)
    session.commit()
    find_key(session, key)
    assert found.last_used_at >= first


def test_revoked_key_is_not_found_and_stays_in_the_list(session: Session) -> None:
    key = add_key(session, "ana", [Scope.READ])
    assert has_keys(session)
    found = find_key(session, key)
    assert found
    revoke_key(session, found.id)
    session.commit()
    assert find_key(session, key) is None
    assert not has_keys(session)
    assert [listed.revoked_at is not None for listed in list_keys(session)] == [True]
    with pytest.raises(NotFoundError, match="list-keys"):
        revoke_key(session, "none")
