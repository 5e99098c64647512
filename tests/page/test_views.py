"""Each view in both languages, light and dark: accessible, and without text of the other language."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from benchmarks.long_pdf import build_long_pdf
from cli.installation import Stack
from client.reviewer_client import ReviewerClient
from demo.client import ContractReviewer
from demo.contract_generator import generate_contract
from tests.page.conftest import SignIn

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def document_id(reviewer: ContractReviewer) -> str:
    """A contract that was taught."""
    contract = generate_contract(10)
    document = reviewer.upload(contract.filename, contract.pdf, contract.text, contract.spans)
    reviewer.wait_for_job(reviewer.feed_back(document))
    return document.id


def check_accessible(page: Page) -> None:
    found = Axe().run(page).response["violations"]
    serious = [each for each in found if each["impact"] in {"serious", "critical"}]
    assert not serious, "\n".join(f"{each['id']}: {each['help']}: {each['nodes'][0]['html']}" for each in serious)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "pt"])
def test_axe_finds_nothing_serious_in_any_view(sign_in: SignIn, document_id: str, language: str, scheme: str) -> None:
    page = sign_in(language=language, scheme=scheme)
    page.locator("tbody tr").first.wait_for()
    check_accessible(page)
    page.evaluate(f"location.hash = '#/documents/{document_id}'")
    page.locator(".page.loaded").first.wait_for()
    page.locator(".entities .value").first.click()
    check_accessible(page)
    page.get_by_role("button", name="Text" if language == "en" else "Texto").click()
    page.locator("mark").first.wait_for()
    check_accessible(page)
    page.keyboard.press("?")
    check_accessible(page)
    page.keyboard.press("Escape")
    page.evaluate("location.hash = '#/model'")
    page.locator(".curve").wait_for()
    check_accessible(page)
    page.get_by_role("button", name="Sign out" if language == "en" else "Sair").click()
    page.locator(".sign-in").wait_for()
    check_accessible(page)


def test_far_pages_of_a_long_contract_are_fetched_when_they_come_near(sign_in: SignIn, reviewing: Stack) -> None:
    long = ReviewerClient(reviewing.api_url, reviewing.api_key).upload("long.pdf", build_long_pdf(120))
    page, asked = sign_in(), list[str]()
    page.on("request", lambda request: asked.append(request.url) if "/image" in request.url else None)
    page.evaluate(f"location.hash = '#/documents/{long.id}'")
    page.locator(".page[data-number='2'].loaded").wait_for()
    assert 1 < len(asked) < 10
    page.locator(".page[data-number='90']").evaluate("element => element.scrollIntoView()")
    page.locator(".page[data-number='90'].loaded").wait_for()
    assert len(asked) < 20
    expect(page.locator(".page[data-number='1'].loaded")).to_have_count(0)
