"""The caches in the settings' folder, shared by the API and the runs of one machine."""

import hashlib
import shutil
from pathlib import Path

from embeddinggemma_feasibility.disk_cache import DiskCache
from registry.settings import Settings

_MODEL_CACHE_BYTES = 650_000_000  # ten versions with 41 types, as CUAD has, are 45 MB each at most; with 8 types 9 MB


def build_representation_cache(settings: Settings) -> DiskCache:
    """Return the cache of what encoders have computed for documents."""
    return DiskCache(Path(settings.cache_folder) / "representations", settings.cache_bytes)


def build_model_cache(settings: Settings) -> DiskCache:
    """Return the cache of models, by the hash of their files: a model that is in it need not be downloaded."""
    return DiskCache(Path(settings.cache_folder) / "models", _MODEL_CACHE_BYTES)


def copy_model(cached: Path, folder: Path, sha256: str) -> Path:
    """Copy a cached model to a new folder and return that; raises OSError if the copied files have another hash."""
    shutil.copytree(cached, folder)
    if hash_files(folder) != sha256:
        raise OSError(f"The cached model {sha256} is damaged")
    return folder


def hash_files(folder: Path) -> str:
    """Return one hash of all files in a folder, including their names."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(folder)} {len(content)} ".encode() + content)
    return digest.hexdigest()
