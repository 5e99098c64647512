"""API keys: made, looked up, revoked; of the secret in them only an argon2 hash is kept."""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from sqlmodel import Session, col, func, select

from registry.errors import InvalidInputError, NotFoundError
from registry.tables import MAX_NAME, ApiKey

_hasher = PasswordHasher()
_USE_IS_NOTED_EVERY = timedelta(minutes=1)


class Scope(StrEnum):
    """What a key permits: each scope for itself, `admin` all."""

    READ = "read"
    ANNOTATE = "annotate"
    TRAIN = "train"
    ADMIN = "admin"


def add_key(session: Session, name: str, scopes: Sequence[Scope]) -> str:
    """Store a new key and return it, `cf_`, its id, `_` and its secret; it cannot be read back later.

    Raises InvalidInputError for a name that is empty, too long to stand for a reviewer's, or not printable.
    """
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise InvalidInputError(f"A key's name has 1 to {MAX_NAME} printable characters")
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    scope_names = [scope.value for scope in scopes]
    session.add(ApiKey(id=key_id, name=name, secret_hash=_hasher.hash(secret), scopes=scope_names))
    return f"cf_{key_id}_{secret}"


def find_key(session: Session, key: str) -> ApiKey | None:
    """Return who holds this key, if it is not revoked, and note that it is used."""
    _, key_id, secret = [*key.split("_", 2), "", ""][:3]
    found = session.get(ApiKey, key_id)
    if found is None or found.revoked_at or not _is_secret(secret, found.secret_hash):
        return None
    now = datetime.now(UTC)
    if found.last_used_at is None or abs(now - found.last_used_at) > _USE_IS_NOTED_EVERY:
        found.last_used_at = now
        session.add(found)
    return found


def list_keys(session: Session) -> Sequence[ApiKey]:
    """Return all keys, revoked ones, too, in the order in which they were made."""
    return session.exec(select(ApiKey).order_by(col(ApiKey.created_at))).all()


def revoke_key(session: Session, key_id: str) -> ApiKey:
    """Make a key worthless from now on; raises NotFoundError."""
    found = session.get(ApiKey, key_id)
    if found is None:
        raise NotFoundError(f"There is no key {key_id}: `contract-feedback list-keys` shows all")
    found.revoked_at = found.revoked_at or datetime.now(UTC)
    session.add(found)
    return found


def has_keys(session: Session) -> bool:
    """Tell whether there is any key that is not revoked."""
    query = select(func.count()).select_from(ApiKey).where(col(ApiKey.revoked_at).is_(None))
    return session.exec(query).one() > 0


@lru_cache(maxsize=1024)  # argon2 is slow on purpose: each process asks it once for a key
def _is_secret(secret: str, secret_hash: str) -> bool:
    try:
        return _hasher.verify(secret_hash, secret)
    except VerifyMismatchError:
        return False
