"""Copies of models on this machine: the API need not download what a run has just stored, nor the next run."""

import hashlib
import logging
import os
import shutil
import tempfile
from pathlib import Path

_KEPT = 10  # the champion, challengers, and what somebody may go back to

_logger = logging.getLogger(__name__)


class KeptModels:
    """A folder with the files of the models used last, each in a folder named by its hash."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, sha256: str) -> Path | None:
        """Return the folder of a model's files; one whose files have another hash by now is dropped."""
        kept = self._folder / sha256
        if not kept.exists():
            return None
        if hash_files(kept) != sha256:
            shutil.rmtree(kept, ignore_errors=True)
            return None
        os.utime(kept)
        return kept

    def keep(self, files: Path, sha256: str) -> None:
        """Copy a model's files, and drop the longest unused; where that fails, say on a full disk, only warn."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._folder) as new:
                copied: Path = shutil.copytree(files, Path(new) / sha256)
                os.utime(copied)
                copied.rename(self._folder / sha256)
            for unused in sorted(self._folder.iterdir(), key=os.path.getmtime)[:-_KEPT]:
                shutil.rmtree(unused, ignore_errors=True)
        except OSError as error:
            _logger.warning("A model cannot be kept on this machine, and is downloaded again: %s", error)


def hash_files(folder: Path) -> str:
    """Return one hash of all files in a folder, their names included."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(folder)} {len(content)} ".encode() + content)
    return digest.hexdigest()
