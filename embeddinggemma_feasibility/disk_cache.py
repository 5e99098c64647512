"""A cache on disk that has a size limit and is shared by this machine's processes."""

import contextlib
import logging
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

_SHA256 = re.compile("[0-9a-f]{64}")
_SCANS_PER_LIMIT = 100

_logger = logging.getLogger(__name__)
_Entry = TypeVar("_Entry")


class DiskCache:
    """Files and folders, each named by 64 hexadecimal digits of hashes, in a folder that only its owner can read.

    Above `max_bytes`, the entries that were not used for longest are deleted. Each process may exceed the limit by 1 %:
    it lists the folder, which takes long with many entries, only after it has added that much.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._bytes_until_scan = 0
        self._locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._finding_lock = threading.Lock()

    def load(self, sha256: str, read: Callable[[Path], _Entry]) -> _Entry | None:
        """Return what `read` returns for an entry's path, None if there is no such entry.

        `read` raises OSError if the entry is damaged or half deleted: it is then deleted, and None returned.
        """
        if not _SHA256.fullmatch(sha256):
            return None
        entry = self._folder / sha256
        with contextlib.suppress(OSError):
            os.utime(entry)
            return read(entry)
        _delete(entry)
        return None

    def __contains__(self, sha256: str) -> bool:
        """Tell whether there is an entry of this name now."""
        return (self._folder / sha256).exists()

    @contextlib.contextmanager
    def lock(self, sha256: str) -> Iterator[None]:
        """Let one thread of this process at a time load or add this entry, so that the others find what it added."""
        with self._finding_lock:
            lock = self._locks.setdefault(sha256, threading.Lock())
        with lock:
            yield

    def add(self, sha256: str, write: Callable[[Path], object]) -> None:
        """Add the entry that `write` creates at the path it is given, unless the cache has it.

        Only logs a warning if that raises OSError, as on a full disk. Raises ValueError if the name is not a SHA-256.
        """
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is not a SHA-256, as the name of an entry must be")
        entry = self._folder / sha256
        try:
            for folder in (self._folder.parent, self._folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not entry.exists():
                self._write(entry, write)
        except OSError as error:
            _logger.warning("The cache %s cannot store an entry: %s", self._folder, error)

    def delete(self, start: str) -> None:
        """Delete the entries whose names start so; raises OSError if one of them cannot be deleted."""
        with contextlib.suppress(FileNotFoundError):  # there is no folder yet
            for entry in _list_starting(self._folder, start):
                _delete(entry)
            if left := _list_starting(self._folder, start):
                raise OSError(f"{left[0]} cannot be deleted: check the permissions of the cache's folder")

    def _write(self, entry: Path, write: Callable[[Path], object]) -> None:
        """Create the entry in a temporary folder first, so that no process sees half of it."""
        with tempfile.TemporaryDirectory(dir=self._folder) as temporary:
            new = Path(temporary) / entry.name
            write(new)
            os.utime(new)  # a copied folder has the time of the original
            self._bytes_until_scan -= _measure(new)
            new.rename(entry)
        if self._bytes_until_scan < 0:
            self._bytes_until_scan = self._max_bytes // _SCANS_PER_LIMIT
            self._delete_least_recently_used()

    def _delete_least_recently_used(self) -> None:
        """Delete entries until the rest is within the limit, but never the newest."""
        entries = _list_entries(self._folder)
        total = sum(size for _, size, _ in entries)
        for _, size, entry in entries[:-1]:
            if total <= self._max_bytes:
                break
            _delete(entry)
            total -= size


def _list_entries(folder: Path) -> list[tuple[int, int, Path]]:
    """Return when each entry was last used, its size in bytes and its path, least recently used first."""
    entries = []
    with os.scandir(folder) as found:
        for entry in found:
            with contextlib.suppress(FileNotFoundError):  # another process has deleted it
                status = entry.stat()
                size = _measure(Path(entry)) if entry.is_dir() else status.st_size
                entries.append((status.st_mtime_ns, size, Path(entry)))
    return sorted(entries)


def _list_starting(folder: Path, start: str) -> list[Path]:
    with os.scandir(folder) as found:
        return [Path(entry) for entry in found if entry.name.startswith(start)]


def _measure(entry: Path) -> int:
    files = entry.rglob("*") if entry.is_dir() else [entry]
    return sum(file.stat().st_size for file in files)


def _delete(entry: Path) -> None:
    if entry.is_dir():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            entry.unlink(missing_ok=True)
