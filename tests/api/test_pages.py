"""The pages of a PDF: sizes, images, words, and what is marked on them."""

import io
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from demo.contract_generator import generate_contract
from registry.document_store import DocumentStore
from registry.settings import Settings
from tests.api.conftest import Start
from tests.api.test_limits import upload
from tests.intake.pdfs import build_pdf, write


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


def upload_pdf(client: TestClient, content: bytes) -> str:
    answer = client.post("/documents", files={"file": ("a.pdf", content)})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def test_pages_have_their_sizes_and_their_texts_make_the_whole(start: Start) -> None:
    client = start()
    address = f"/documents/{upload_pdf(client, build_pdf(write('Acme Ltd'), b' ', write('pays Bell.')))}"
    pages, text = client.get(f"{address}/pages").json()["pages"], client.get(f"{address}/text").text
    assert [text[page["start"] : page["end"]] for page in pages] == ["Acme Ltd\n", "\n", "pays Bell.\n"]
    assert {(page["width"], page["height"]) for page in pages} == {(612, 792)}


def test_pages_of_a_document_of_an_earlier_release_are_read_and_stored(start: Start, settings: Settings) -> None:
    client = start()
    document = upload_pdf(client, generate_contract(1).pdf)
    before = client.get(f"/documents/{document}/pages").json()
    stored = Path(settings.document_store_url) / document / "pages.npy"
    stored.unlink()
    assert client.get(f"/documents/{document}/pages").json() == before
    assert stored.exists()


def test_pages_of_an_earlier_release_are_read_in_turn_with_uploads_and_hold_up_no_others(
    start: Start, settings: Settings
) -> None:
    client = start()
    app: Any = client.app
    old, new = upload_pdf(client, build_pdf(write("Old"))), upload_pdf(client, build_pdf(write("New")))
    (Path(settings.document_store_url) / old / "pages.npy").unlink()
    slots, portal = app.state.services.reading_slots, client.portal
    assert portal
    with ThreadPoolExecutor(2) as pool:
        taken = 0
        while not slots.locked():
            portal.call(slots.acquire)
            taken += 1
        waiting = [pool.submit(client.get, f"/documents/{old}/pages{part}") for part in ("", "/1/words")]
        try:
            assert client.get(f"/documents/{new}/pages").json()["pages"]
            assert not wait(waiting, 0.5).done
        finally:
            for _ in range(taken):
                portal.call(slots.release)
        assert [each.result(20).status_code for each in waiting] == [200, 200]


def test_image_words_and_highlight_of_a_rotated_page_are_in_its_displayed_size(start: Start) -> None:
    client = start()
    upwards = b"BT /F 24 Tf 0 1 -1 0 100 72 Tm (Acme Ltd pays Bell.) Tj ET"
    address = f"/documents/{upload_pdf(client, build_pdf(upwards, attributes=b'/Rotate 90'))}"
    (page,) = client.get(f"{address}/pages").json()["pages"]
    assert (page["width"], page["height"]) == (792, 612)
    answer = client.get(f"{address}/pages/1/image", params={"width": 792})
    image = Image.open(io.BytesIO(answer.content))
    assert (answer.headers["Content-Type"], image.size) == ("image/jpeg", (792, 612))
    assert "private" in answer.headers["Cache-Control"]
    words = client.get(f"{address}/pages/1/words").json()["words"]
    assert [(word["start"], word["end"]) for word in words] == [(0, 4), (5, 8), (9, 13), (14, 18), (18, 19)]
    for word in words[:-1]:
        left, top, right, bottom = map(round, word["box"])
        assert np.asarray(image.convert("L"))[top:bottom, left:right].min() < 100


def test_annotation_has_the_place_of_its_words_in_every_answer(start: Start) -> None:
    client = start()
    document = upload_pdf(client, build_pdf(write("Acme Ltd pays Bell."), write("Bell pays.")))
    word = client.get(f"/documents/{document}/pages/2/words").json()["words"][0]
    expected = [{"page": 2, "boxes": [word["box"]]}]
    mark: dict[str, Any] = {"type": "party", "value": "Bell", "start": word["start"], "end": word["end"]}
    created = client.post(f"/documents/{document}/annotations", json=mark).json()
    changed = client.put(f"/annotations/{created['id']}", json=mark | {"type": "payer"}).json()
    (listed,) = client.get(f"/documents/{document}/annotations").json()
    assert created["location"] == changed["location"] == listed["location"] == expected


def test_plain_text_has_no_pages(start: Start) -> None:
    client = start()
    address = f"/documents/{upload(client)}/pages"
    assert client.get(address).json() == {"pages": []}
    for part in ("image", "words"):
        refused = client.get(f"{address}/1/{part}")
        assert (refused.status_code, "plain text, which has no pages" in refused.json()["detail"]) == (404, True)


def test_page_after_the_last_is_not_found(start: Start) -> None:
    client = start()
    address = f"/documents/{upload_pdf(client, build_pdf(write('Bell')))}/pages/2"
    for part in ("image", "words"):
        assert "is 1: there is no 2" in client.get(f"{address}/{part}").json()["detail"]


def test_drawn_page_is_answered_without_the_file_until_the_document_is_deleted(
    start: Start, settings: Settings
) -> None:
    client = start()
    document = upload_pdf(client, build_pdf(write("Bell")))
    address = f"/documents/{document}/pages/1/image"
    first = client.get(address)
    DocumentStore(settings).delete(document)
    assert client.get(address).content == first.content
    assert client.get(address, params={"width": 300}).status_code == 503
    client.delete(f"/documents/{document}")
    assert client.get(address).status_code == 410
    app: Any = client.app
    assert (document, 1, 1200) not in app.state.services.images
