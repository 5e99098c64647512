import shutil
import stat
from pathlib import Path

import pytest

from embeddinggemma_feasibility.disk_cache import DiskCache
from registry.cache import build_model_cache, build_representation_cache, copy_model, hash_files
from registry.settings import Settings


@pytest.fixture
def files(tmp_path: Path) -> Path:
    files = tmp_path / "files"
    files.mkdir()
    (files / "tagger.json").write_text("{}")
    return files


def add(cache: DiskCache, files: Path) -> str:
    sha256 = hash_files(files)
    cache.add(sha256, lambda new: shutil.copytree(files, new))
    return sha256


def copy(cache: DiskCache, sha256: str, folder: Path) -> Path | None:
    return cache.load(sha256, lambda cached: copy_model(cached, folder, sha256))


def test_least_recently_used_models_are_deleted(tmp_path: Path, files: Path) -> None:
    models, hashes = DiskCache(tmp_path / "models", 10 * 100), []
    for number in range(12):
        (files / "tagger.json").write_text(f"{number:100}")
        hashes.append(add(models, files))
        assert copy(models, hashes[0], tmp_path / f"first-{number}")
    found = [sha256 for sha256 in hashes if copy(models, sha256, tmp_path / sha256)]
    assert found == [hashes[0], *hashes[3:]]


def test_cached_models_are_readable_by_their_owner_only_and_no_name_leads_out_of_the_folder(
    tmp_path: Path, files: Path
) -> None:
    models = build_model_cache(Settings(cache_folder=str(tmp_path / "cache")))
    add(models, files)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("cache", "cache/models")] == [0o700, 0o700]
    for name in ("", "..", "../../files", str(files)):
        assert not copy(models, name, tmp_path / "copy")
    assert (files / "tagger.json").exists()
    assert copy(models, hash_files(files), tmp_path / "copy")


def test_cached_model_with_changed_files_is_deleted(tmp_path: Path, files: Path) -> None:
    models = DiskCache(tmp_path / "models", 1000)
    sha256 = add(models, files)
    (tmp_path / "models" / sha256 / "tagger.json").write_text("[]")
    assert copy(models, sha256, tmp_path / "copy") is None
    assert not (tmp_path / "models" / sha256).exists()


def test_cached_models_and_representations_do_not_displace_each_other(tmp_path: Path, files: Path) -> None:
    settings = Settings(cache_folder=str(tmp_path / "cache"), cache_bytes=1)
    models, representations = build_model_cache(settings), build_representation_cache(settings)
    sha256 = add(models, files)
    representations.add("0" * 64, lambda new: new.write_bytes(b"representation"))
    assert copy(models, sha256, tmp_path / "copy")
    assert representations.load("0" * 64, Path.read_bytes)
