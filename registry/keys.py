"""API keys: made, looked up; kept as hashes only."""

import hashlib
import secrets
from collections.abc import Sequence
from enum import StrEnum

from sqlmodel import Session, func, select

from registry.tables import ApiKey


class Scope(StrEnum):
    """What a key permits: each scope for itself, `admin` all."""

    READ = "read"
    ANNOTATE = "annotate"
    TRAIN = "train"
    ADMIN = "admin"


def add_key(session: Session, name: str, scopes: Sequence[Scope]) -> str:
    """Store a new key and return it; it cannot be read back later."""
    key = f"cf_{secrets.token_urlsafe(32)}"
    session.add(ApiKey(name=name, sha256=_hash(key), scopes=[scope.value for scope in scopes]))
    return key


def find_key(session: Session, key: str) -> ApiKey | None:
    """Return who holds this key."""
    return session.exec(select(ApiKey).where(ApiKey.sha256 == _hash(key))).first()


def has_keys(session: Session) -> bool:
    """Tell whether any key was made."""
    return session.exec(select(func.count()).select_from(ApiKey)).one() > 0


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
