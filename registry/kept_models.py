"""Copies of models on this machine: the API need not download what a run has just stored, nor the next run."""

import contextlib
import hashlib
import logging
import os
import re
import shutil
import tempfile
from pathlib import Path

_KEPT = 10  # the champion, challengers, and what somebody may go back to
_SHA256 = re.compile("[0-9a-f]{64}")

_logger = logging.getLogger(__name__)


class KeptModels:
    """A folder, its owner's only, with the files of the models used last, each in a folder named by its hash."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def copy(self, sha256: str, path: Path) -> bool:
        """Copy a model's files to a new folder; False if they are not kept, or not as they were."""
        if not _SHA256.fullmatch(sha256):
            return False
        kept = self._folder / sha256
        with contextlib.suppress(OSError):
            os.utime(kept)
            shutil.copytree(kept, path)
            if hash_files(path) == sha256:
                return True
        shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(kept, ignore_errors=True)
        return False

    def keep(self, files: Path, sha256: str) -> None:
        """Keep a copy of a model's files, and drop the longest unused; where that fails (a full disk), only warn."""
        kept = self._folder / sha256
        try:
            if kept.exists():
                return
            for folder in (self._folder.parent, self._folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._folder) as new:
                copied: Path = shutil.copytree(files, Path(new) / "model")
                os.utime(copied)
                copied.rename(kept)
            for unused in sorted(self._folder.iterdir(), key=os.path.getmtime)[:-_KEPT]:
                shutil.rmtree(unused, ignore_errors=True)
        except OSError as error:
            _logger.warning("A model could not be kept on this machine: %s", error)


def hash_files(folder: Path) -> str:
    """Return one hash of all files in a folder, their names included."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(folder)} {len(content)} ".encode() + content)
    return digest.hexdigest()
