import errno
import shutil
import stat
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from embeddinggemma_feasibility.disk_cache import DiskCache


def name(key: object) -> str:
    return sha256(str(key).encode()).hexdigest()


def write_bytes(count: int) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(bytes(count))


def write_folder(files: dict[str, str]) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        path.mkdir()
        for file, content in files.items():
            (path / file).write_text(content)

    return write


def read_folder(path: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in path.iterdir()}


def test_added_entry_is_loaded_by_every_process_and_others_are_missing(tmp_path: Path) -> None:
    DiskCache(tmp_path, 100).add(name("a"), lambda path: path.write_text("content"))
    assert DiskCache(tmp_path, 100).load(name("a"), Path.read_text) == "content"
    assert DiskCache(tmp_path, 100).load(name("b"), Path.read_text) is None


def test_least_recently_used_entry_is_deleted_when_the_folder_is_full(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 10_000)
    for key in ("a", "b", "a", "c"):
        if cache.load(name(key), Path.read_bytes) is None:
            cache.add(name(key), write_bytes(4_000))
    missing = [key for key in ("a", "c", "b") if cache.load(name(key), Path.read_bytes) is None]
    assert missing == ["b"]


def test_entry_above_the_limit_replaces_all_others(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 100)
    for key, size in (("small", 10), ("large", 1_000)):
        cache.add(name(key), write_bytes(size))
    assert [path.name for path in tmp_path.iterdir()] == [name("large")]


def test_many_small_entries_exceed_the_limit_by_one_percent_at_most(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 2_000)
    for key in range(300):
        cache.add(name(key), write_bytes(10))
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2_020
    assert cache.load(name(299), Path.read_bytes)


def test_each_process_counts_the_entries_of_others(tmp_path: Path) -> None:
    for key in range(30):
        DiskCache(tmp_path, 100).add(name(key), write_bytes(10))
    assert {path.name for path in tmp_path.iterdir()} == {name(key) for key in range(20, 30)}


def test_entries_that_start_with_the_hash_of_a_text_are_deleted_and_no_others(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", 10_000)
    cache.delete("a" * 32)
    names = ["a" * 32 + "b" * 32, "a" * 32 + "c" * 32, "b" * 32 + "a" * 32]
    for each in names:
        cache.add(each, write_folder({"file": each}))
    cache.delete("a" * 32)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [names[2]]


def test_damaged_entry_is_missing_and_can_be_added_again(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 100)
    cache.add(name("a"), lambda path: path.write_text("damaged"))

    def read(path: Path) -> str:
        if path.read_text() == "damaged":
            raise OSError("damaged")
        return path.read_text()

    assert cache.load(name("a"), read) is None
    cache.add(name("a"), lambda path: path.write_text("whole"))
    assert cache.load(name("a"), read) == "whole"


def test_half_deleted_folder_is_missing_and_can_be_added_again(tmp_path: Path) -> None:
    cache, files = DiskCache(tmp_path / "cache", 100), {"first": "1", "second": "2"}

    def read(path: Path) -> dict[str, str]:
        found = read_folder(path)
        if found != files:
            raise OSError("a file is missing")
        return found

    cache.add(name("a"), write_folder(files))
    assert cache.load(name("a"), read) == files
    (tmp_path / "cache" / name("a") / "second").unlink()
    assert cache.load(name("a"), read) is None
    cache.add(name("a"), write_folder(files))
    assert cache.load(name("a"), read) == files


def test_bug_in_a_reader_is_raised_and_the_entry_stays(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 100)
    cache.add(name("a"), lambda path: path.write_text("content"))
    with pytest.raises(ZeroDivisionError):
        cache.load(name("a"), lambda _: 1 / 0)
    assert cache.load(name("a"), Path.read_text) == "content"


def test_full_disk_only_warns_and_leaves_nothing_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def write(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    DiskCache(tmp_path, 100).add(name("a"), write)
    assert "No space left on device" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_made_only_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    cache = DiskCache(tmp_path / "file" / "cache", 100)
    cache.add(name("a"), write_bytes(1))
    assert "cannot store" in caplog.text
    assert cache.load(name("a"), Path.read_bytes) is None


def test_folder_and_its_parent_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    DiskCache(tmp_path / "cache" / "entries", 100).add(name("a"), write_bytes(1))
    modes = [stat.S_IMODE((tmp_path / folder).stat().st_mode) for folder in ("cache", "cache/entries")]
    assert modes == [0o700, 0o700]


def test_copied_folder_counts_as_just_used(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", 100)
    write_folder({"file": "0" * 60})(tmp_path / "old")
    cache.add(name("a"), write_bytes(60))
    cache.add(name("b"), lambda path: shutil.copytree(tmp_path / "old", path))
    assert cache.load(name("a"), Path.read_bytes) is None
    assert cache.load(name("b"), read_folder)


@pytest.mark.parametrize("bad", ["", "..", "../../secret", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_name_that_is_no_sha256_is_missing_and_cannot_be_added(tmp_path: Path, bad: str) -> None:
    (tmp_path / "secret").write_text("secret")
    cache = DiskCache(tmp_path / "cache" / "entries", 100)
    cache.add(name("a"), write_bytes(1))
    assert cache.load(bad, Path.read_bytes) is None
    with pytest.raises(ValueError, match="not a SHA-256"):
        cache.add(bad, write_bytes(1))
    assert (tmp_path / "secret").exists()
