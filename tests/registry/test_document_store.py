"""Files are stored in a folder or in a real S3 server; if that does not work, the error says so in time."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from s3fs import S3FileSystem

from registry.document_store import DocumentStore
from registry.errors import UnavailableError
from registry.settings import Settings
from tests.s3 import BUCKET, S3, run_s3

BOXES = np.arange(10, dtype=np.float32).reshape(2, 5)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with run_s3() as server:
        yield server


def open_store(url: str, server: S3, monkeypatch: pytest.MonkeyPatch) -> DocumentStore:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()  # it does not know the environment
    return DocumentStore(Settings(document_store_url=url))


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DocumentStore:
    if request.param == "folder":
        return DocumentStore(Settings(document_store_url=str(tmp_path / "documents")))
    return open_store(f"s3://{BUCKET}/documents", request.getfixturevalue("s3"), monkeypatch)


def test_saved_document_is_loaded_until_it_is_deleted(store: DocumentStore) -> None:
    store.check_alive()
    store.save("a", b"content", BOXES)
    store.save("b", b"other", None)
    assert store.load_content("a") == b"content"
    assert np.array_equal(store.load_boxes("a"), BOXES)
    store.delete("a")
    store.delete("a")
    with pytest.raises(UnavailableError, match=r"has lost a/content: restore it, or delete the document"):
        store.load_content("a")
    with pytest.raises(UnavailableError, match=r"has lost a/boxes\.npy"):
        store.load_boxes("a")
    assert store.load_content("b") == b"other"


def test_what_cannot_be_written_completely_is_not_left(store: DocumentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    call = store._call

    def call_without_space(method: str, path: str, *arguments: Any, **options: Any) -> Any:
        if path.endswith("boxes.npy"):
            raise OSError(28, "No space left on device")
        return call(method, path, *arguments, **options)

    monkeypatch.setattr(store, "_call", call_without_space)
    with pytest.raises(UnavailableError, match=r"fails \(No space left on device\): try again later"):
        store.save("half", b"content", BOXES)
    with pytest.raises(UnavailableError, match="has lost half/content"):
        store.load_content("half")


def test_missing_bucket_is_named_and_not_created(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store("s3://missing/documents", s3, monkeypatch)
    for _ in range(2):
        with pytest.raises(UnavailableError, match="bucket does not exist: create it"):
            store.check_alive()
    with pytest.raises(UnavailableError, match="bucket does not exist: create it"):
        store.save("a", b"content", None)


def test_refused_key_is_reported_as_the_server_words_it(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = S3(s3.environment | {"AWS_SECRET_ACCESS_KEY": "wrong"}, s3.process)
    with pytest.raises(UnavailableError, match=r"store fails \(.*signature"):
        open_store(f"s3://{BUCKET}", wrong, monkeypatch).check_alive()


def test_server_that_is_away_is_reported_at_once_and_without_its_address(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = S3(s3.environment | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, s3.process)
    store, started = open_store(f"s3://{BUCKET}", away, monkeypatch), time.monotonic()
    with pytest.raises(UnavailableError, match=r"^The document store does not answer; try again when [^:]*$"):
        store.load_content("a")
    assert time.monotonic() - started < 5


@pytest.mark.slow
def test_server_that_hangs_holds_up_one_request_and_is_asked_again_after_a_pause(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"s3://{BUCKET}/hanging", s3, monkeypatch)
    store.save("a", b"content", None)
    s3.pause()
    try:
        started = time.monotonic()
        with pytest.raises(UnavailableError, match="does not answer"):
            store.save("b", b"content", None)
        assert time.monotonic() - started < 25
        started = time.monotonic()
        with pytest.raises(UnavailableError, match="does not answer"):
            store.load_content("a")
        assert time.monotonic() - started < 2
    finally:
        s3.resume()
    until = time.monotonic() + 120
    while time.monotonic() < until:
        with suppress(UnavailableError):
            assert store.load_content("a") == b"content"
            return
        time.sleep(0.2)
    pytest.fail("The store is not asked again")
