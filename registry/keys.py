"""API keys; only the SHA-256 of the secret in a key is stored.

The secret is 256 random bits, so a fast hash cannot be searched, and a wrong key costs nothing to refuse.
"""

import hashlib
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hmac import compare_digest

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from sqlmodel import Session, col, func, select

from registry.errors import InvalidInputError, NotFoundError
from registry.tables import MAX_NAME, ApiKey

_LAST_USE_ACCURACY = timedelta(minutes=1)


class Scope(StrEnum):
    """What a key permits; `admin` permits everything."""

    READ = "read"
    ANNOTATE = "annotate"
    TRAIN = "train"
    METRICS = "metrics"
    ADMIN = "admin"


def add_key(session: Session, name: str, scopes: Sequence[Scope]) -> str:
    """Add a key and return it as `cf_ID_SECRET`; the secret cannot be read later.

    Raises InvalidInputError for a name that is empty, longer than a reviewer's name, or not printable.
    """
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise InvalidInputError(f"A key's name has 1 to {MAX_NAME} printable characters")
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    scope_names = [scope.value for scope in scopes]
    session.add(ApiKey(id=key_id, name=name, secret_hash=_hash(secret), scopes=scope_names))
    return f"cf_{key_id}_{secret}"


def find_key(session: Session, key: str) -> ApiKey | None:
    """Return the key unless it is unknown or revoked, and record its use."""
    _, key_id, secret = [*key.split("_", 2), "", ""][:3]
    found = session.get(ApiKey, key_id)
    if found is None or found.revoked_at or not _is_secret(secret, found):
        return None
    now = datetime.now(UTC)
    if found.last_used_at is None or abs(now - found.last_used_at) > _LAST_USE_ACCURACY:
        found.last_used_at = now
        session.add(found)
    return found


def list_keys(session: Session) -> Sequence[ApiKey]:
    """Return all keys in the order of their creation, including revoked ones."""
    return session.exec(select(ApiKey).order_by(col(ApiKey.created_at))).all()


def revoke_key(session: Session, key_id: str) -> ApiKey:
    """Revoke a key; raises NotFoundError."""
    found = session.get(ApiKey, key_id)
    if found is None:
        raise NotFoundError(f"There is no key {key_id}: `contract-feedback list-keys` shows all")
    found.revoked_at = found.revoked_at or datetime.now(UTC)
    session.add(found)
    return found


def has_keys(session: Session) -> bool:
    """Tell whether there is a key that is not revoked."""
    query = select(func.count()).select_from(ApiKey).where(col(ApiKey.revoked_at).is_(None))
    return session.exec(query).one() > 0


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _is_secret(secret: str, key: ApiKey) -> bool:
    """Check the secret; a key of an earlier release has an argon2 hash, which its first use replaces."""
    if not key.secret_hash.startswith("$argon2"):
        return compare_digest(_hash(secret), key.secret_hash)
    try:
        PasswordHasher().verify(key.secret_hash, secret)
    except VerifyMismatchError:
        return False
    key.secret_hash = _hash(secret)
    return True
