"""Take the pictures of the page in docs/pictures, after a demo on generated contracts.

python -m benchmarks.pictures
"""

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from cli.installation import ANY_PORTS, Stack, run_stack
from client.reviewer_client import ReviewerClient
from demo.play import play_demo
from registry.jobs import Review
from registry.listed_documents import Order

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
_LOOKS = [("en", "light"), ("pt", "dark"), ("en", "dark"), ("pt", "light")]


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, run_stack(Path(folder), ANY_PORTS) as stack:
        play_demo(stack.api_url, stack.api_key)
        client = ReviewerClient(stack.api_url, stack.api_key)
        unseen = client.list_documents(Order.UNCERTAIN, Review.NEW).items
        with sync_playwright() as driver:
            browser = driver.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            for (language, scheme), document in zip(_LOOKS, unseen, strict=False):
                take_pictures(browser, stack, document.id, language, scheme)
            browser.close()


def take_pictures(browser: Browser, stack: Stack, document_id: str, language: str, scheme: str) -> None:
    """Take a picture of each view: the list, a contract with suggestions, the same once it is taught, the model."""
    is_dark = "dark" if scheme == "dark" else "light"
    page = browser.new_page(locale=language, color_scheme=is_dark, viewport={"width": 1280, "height": 800})  # type: ignore[arg-type]
    page.goto(f"{stack.api_url}/#key={stack.api_key}")
    page.locator("tbody tr").first.wait_for()
    save(page, "contracts", language, scheme)
    page.evaluate(f"location.hash = '#/documents/{document_id}'")
    page.locator(".page.loaded").first.wait_for()
    page.locator("li.suggested .value").first.click()
    save(page, "contract", language, scheme)
    page.keyboard.press("Shift+A")
    page.locator("li.suggested").first.wait_for(state="detached")
    page.keyboard.press("g")
    page.locator(".teaching h3.live").wait_for(timeout=120_000)
    save(page, "taught", language, scheme)
    page.evaluate("location.hash = '#/model'")
    page.locator(".curve").wait_for()
    save(page, "model", language, scheme)
    page.close()


def save(page: Page, view: str, language: str, scheme: str) -> None:
    page.wait_for_timeout(800)  # fonts, images, the list's focus
    page.screenshot(path=FOLDER / f"{view}-{language}-{scheme}.png")


if __name__ == "__main__":
    main()
