"""A reviewer's whole way in a real browser: upload, mark, correct, teach, see what it did, go back."""

import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from demo.client import ContractReviewer, ReviewedDocument
from demo.contract_generator import generate_contract
from embeddinggemma_feasibility.annotation_data import Span
from registry.keys import Scope
from tests.page.conftest import SignIn

pytestmark = pytest.mark.slow
SECONDS = 1000  # milliseconds, in which Playwright counts
LEARNING = 120 * SECONDS


def upload(reviewer: ContractReviewer, seed: int) -> ReviewedDocument:
    contract = generate_contract(seed)
    return reviewer.upload(contract.filename, contract.pdf, contract.text, contract.spans)


def open_contract(page: Page, document: ReviewedDocument) -> None:
    page.evaluate(f"location.hash = '#/documents/{document.id}'")
    page.locator(".page.loaded").first.wait_for()


def find_point(page: Page, api: httpx.Client, document_id: str, offset: int) -> tuple[float, float]:
    """Return where a character of a PDF is on the screen, after it was brought into sight."""
    pages = api.get(f"/documents/{document_id}/pages").json()["pages"]
    number = next(index for index, each in enumerate(pages, 1) if offset < each["end"])
    words = api.get(f"/documents/{document_id}/pages/{number}/words").json()["words"]
    left, top, right, bottom = next(each["box"] for each in words if each["start"] <= offset < each["end"])
    shown = page.locator(f".page[data-number='{number}'].selectable")
    width, height = pages[number - 1]["width"], pages[number - 1]["height"]
    share = [(left + right) / 2 / width, (top + bottom) / 2 / height]
    x, y = shown.evaluate(
        """(element, [x, y]) => {
          const surface = element.parentElement;
          const find = () => element.getBoundingClientRect();
          if (Math.abs(find().top + y * find().height - innerHeight / 2) > innerHeight / 4)
            surface.scrollBy(0, find().top + y * find().height - innerHeight / 2);
          return [find().left + x * find().width, find().top + y * find().height];
        }""",
        share,
    )
    return x, y


def select(page: Page, api: httpx.Client, document: ReviewedDocument, span: Span) -> None:
    """Select a span of a PDF with the mouse: a word by a double click, several by dragging."""
    first = find_point(page, api, document.id, span.start)
    last = find_point(page, api, document.id, span.end - 1)
    if first == last:
        page.mouse.dblclick(*first)
        return
    page.mouse.move(*first)
    page.mouse.down()
    page.mouse.move(*last, steps=8)
    page.mouse.up()


def mark(page: Page, api: httpx.Client, document: ReviewedDocument, span: Span) -> None:
    """Mark a span of a PDF with the mouse, and name its type."""
    select(page, api, document, span)
    page.get_by_label("Type, or a new one").fill(span.type)
    page.get_by_role("button", name="Mark", exact=True).click()
    value = " ".join(document.text[span.start : span.end].split())
    expect(page.locator("li.approved .words", has_text=value).first).to_be_visible()


def read_stored(api: httpx.Client, document_id: str) -> set[tuple[str, str, str]]:
    annotations = api.get(f"/documents/{document_id}/annotations").json()
    return {(each["type"], each["value"], each["status"]) for each in annotations}


def test_reviewer_teaches_a_pdf_and_the_next_one_is_read(
    sign_in: SignIn, api: httpx.Client, reviewer: ContractReviewer, tmp_path: Path
) -> None:
    page = sign_in()
    assert "#" not in page.url
    contract, broken = generate_contract(10), tmp_path / "broken.pdf"
    broken.write_bytes(b"%PDF-1.7 and nothing more")
    (file := tmp_path / contract.filename).write_bytes(contract.pdf)
    page.locator("input[type=file]").set_input_files([file, broken])
    expect(page.locator(".uploads .refused")).to_contain_text("The PDF is broken")
    page.locator(".uploads .done a").click()
    expect(page.locator(".hint:visible")).to_contain_text("There is no model yet")
    document = upload(reviewer, 10)
    for span in document.spans:
        mark(page, api, document, span)
    expected = {(span.type, document.text[span.start : span.end], "approved") for span in document.spans}
    assert read_stored(api, document.id) == expected
    page.reload()
    expect(page.locator("li.approved")).to_have_count(len(document.spans))
    page.get_by_role("button", name="Teach").click()
    expect(page.locator(".teaching h3")).to_contain_text(re.compile(r"Live as version 1 after \d"), timeout=LEARNING)

    upload(reviewer, 18)
    page.get_by_role("button", name="Next contract").click()
    expect(page.locator("li.suggested").first).to_be_visible()
    count = page.locator("li.suggested").count()
    page.locator("body").press("j")
    page.keyboard.press("a")
    expect(page.locator("li.approved")).to_have_count(1)
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.locator("li.rejected")).to_have_count(1)
    page.keyboard.press("u")
    page.keyboard.press("u")
    expect(page.locator("li.suggested")).to_have_count(count)
    page.get_by_role("button", name="Teach").click()
    page.get_by_role("button", name="Accept them and teach").click()
    expect(page.locator(".teaching h3")).to_contain_text("Live as version 2", timeout=LEARNING)
    expect(page.locator(".teaching")).to_contain_text("No value needed a correction")


def test_reviewer_changes_type_and_extent_by_keyboard_and_undoes_it(
    sign_in: SignIn, api: httpx.Client, reviewer: ContractReviewer
) -> None:
    document = upload(reviewer, 12)
    span = next(each for each in document.spans if each.type == "party")
    value = document.text[span.start : span.end]
    api.post(
        f"/documents/{document.id}/annotations",
        json={"type": "party", "value": value, "start": span.start, "end": span.end},
    )
    page = sign_in()
    open_contract(page, document)
    page.locator("li.approved .value").click()
    page.keyboard.press("t")
    page.get_by_label("Type, or a new one").fill("buyer")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="buyer")).to_be_visible()
    assert ("buyer", value, "approved") in read_stored(api, document.id)
    page.get_by_role("button", name="End one word earlier").click()
    expect(page.locator("li.current .words")).not_to_have_text(value)
    shorter = next(each[1] for each in read_stored(api, document.id) if each[0] == "buyer")
    assert value.startswith(shorter)
    assert shorter != value
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("li.approved .words", has_text=value)).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("heading", name="buyer")).to_have_count(0)
    assert ("party", value, "approved") in read_stored(api, document.id)


def test_portuguese_reviewer_marks_a_text_by_keyboard_alone(sign_in: SignIn, api: httpx.Client, tmp_path: Path) -> None:
    page = sign_in("João", "pt-PT")
    (file := tmp_path / "cessão.txt").write_text(
        "CONTRATO DE CESSÃO 𝄞\n\nEntre Álvaro Lda e Brás S.A., em 3 de maio de 2026.\n"
    )
    (image := tmp_path / "foto.png").write_bytes(b"\x89PNG\r\n\x1a\n\0")
    page.locator("input[type=file]").set_input_files([file, image])
    expect(page.locator(".uploads .refused")).to_contain_text("não é um PDF nem texto simples")
    page.get_by_label("Pesquisar pelo nome").fill("CESSÃO")
    page.keyboard.press("Enter")
    expect(page.locator("tbody a")).to_have_count(1)
    page.locator("tbody a").focus()
    page.keyboard.press("Enter")
    surface = page.get_by_role("textbox", name="O contrato")
    surface.focus()
    for _ in range(6):  # CONTRATO, DE, CESSÃO, the clef, Entre, Álvaro
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    expect(surface.locator("mark.selection").first).to_be_visible()
    page.keyboard.press("Enter")
    page.keyboard.type("cedente")
    page.keyboard.press("Enter")
    expect(page.locator("li.approved .words")).to_have_text("Álvaro Lda")
    (document,) = api.get("/documents", params={"search": "cessão"}).json()["items"]
    (stored,) = api.get(f"/documents/{document['id']}/annotations").json()
    assert (stored["type"], stored["value"], stored["start"], stored["reviewer"]) == (
        "cedente",
        "Álvaro Lda",
        28,
        "João",
    )
    surface.locator("mark", has_text="Álvaro").click()
    expect(page.locator("li.current")).to_contain_text("confirmado")


def test_two_reviewers_at_once_overwrite_nothing(
    sign_in: SignIn, api: httpx.Client, reviewer: ContractReviewer
) -> None:
    document = upload(reviewer, 13)
    ana, bruno = sign_in("Ana"), sign_in("Bruno")
    open_contract(ana, document)
    span = document.spans[0]
    mark(ana, api, document, span)
    open_contract(bruno, document)
    for person in (ana, bruno):
        person.locator("li.approved .value").first.click()
        person.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    ana.keyboard.press("t")
    ana.get_by_label("Type, or a new one").fill("by_ana")
    ana.keyboard.press("Enter")
    bruno.keyboard.press("t")  # at once: before the page looks after others' changes
    bruno.get_by_label("Type, or a new one").fill("by_bruno")
    bruno.keyboard.press("Enter")
    dialog = bruno.get_by_role("dialog")
    expect(dialog).to_contain_text("Ana changed this")
    dialog.get_by_role("button", name="Keep theirs").click()
    expect(bruno.locator("h3", has_text="by_ana")).to_be_visible()
    assert {each[0] for each in read_stored(api, document.id)} == {"by_ana"}


def test_rollback_sets_a_contract_aside_and_it_can_be_taught_again(
    sign_in: SignIn, api: httpx.Client, reviewer: ContractReviewer
) -> None:
    document = upload(reviewer, 14)
    before = reviewer.extract(document.id)[0]
    taught = reviewer.wait_for_job(reviewer.feed_back(document))
    assert before
    assert taught["outcome"]["decision"] == "promoted"
    page = sign_in()
    page.evaluate("location.hash = '#/model'")
    row = page.locator(f"#version-{before}")
    row.get_by_role("button", name="Roll back to this").click()
    page.get_by_label("Reason").fill("only a test")
    page.get_by_role("dialog").get_by_role("button", name="Roll back to this").click()
    expect(page.locator(".hint")).to_contain_text(f"Version {before} serves. 1 piece of feedback is set aside.")
    page.get_by_role("link", name="Contracts").click()
    page.get_by_label("Show").select_option("set_aside")
    page.locator("tbody a", has_text=generate_contract(14).filename).click()
    expect(page.locator(".teaching h3")).to_contain_text("Set aside by a rollback")
    page.get_by_role("button", name="Teach again").click()
    expect(page.locator(".teaching h3")).to_contain_text("Live as version", timeout=LEARNING)


def test_key_that_may_only_read_shows_no_buttons_that_change_anything(
    sign_in: SignIn, reviewer: ContractReviewer
) -> None:
    document = upload(reviewer, 10)
    page = sign_in("Rui", scopes=(Scope.READ,))
    expect(page.locator("input[type=file]")).to_have_count(0)
    open_contract(page, document)
    expect(page.locator(".hint", has_text="may read only")).to_be_visible()
    expect(page.locator(".decide, .bar .primary")).to_have_count(0)


def test_revoked_key_leads_back_to_the_sign_in(sign_in: SignIn, api: httpx.Client) -> None:
    page = sign_in("Eva")
    page.evaluate("sessionStorage.setItem('contract-feedback-key', 'cf_wrong_wrong')")
    page.get_by_role("link", name="Model").click()
    expect(page.get_by_role("alert").filter(has_text="not valid")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0
