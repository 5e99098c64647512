"""Measure how long a reviewer waits in the page: for a contract's first page after a click, and while scrolling.

python -m benchmarks.page [--contracts 30] [--pages 300]
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from benchmarks.long_pdf import build_long_pdf
from benchmarks.results_file import print_seconds, summarise, write_results
from cli.installation import ANY_PORTS, Stack, run_stack
from client.reviewer_client import ReviewerClient
from demo.client import ContractReviewer
from demo.contract_generator import generate_contract

_SCREENS_A_SECOND = 2
# Scrolls by a part of the screen with each frame, and returns how long each frame took in seconds.
_SCROLL = """async ([surface, seconds, speed]) => {
  const frames = [];
  const started = performance.now();
  for (let last = started; last - started < seconds * 1000; ) {
    const now = await new Promise(requestAnimationFrame);
    surface.scrollBy(0, surface.clientHeight * speed * (now - last) / 1000);
    frames.push((now - last) / 1000);
    last = now;
  }
  return frames.slice(1);
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contracts", type=int, default=30)
    parser.add_argument("--pages", type=int, default=300)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        run_stack(Path(folder), ANY_PORTS) as stack,
        sync_playwright() as driver,
    ):
        client = ContractReviewer(stack.api_url, stack.api_key)
        contracts = [generate_contract(seed) for seed in range(arguments.contracts)]
        documents = [client.upload(each.filename, each.pdf, each.text, each.spans) for each in contracts]
        client.wait_for_job(client.feed_back(documents[0]))
        long_id = ReviewerClient(stack.api_url, stack.api_key).upload("long.pdf", build_long_pdf(arguments.pages)).id
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        open_page(page, stack)
        seconds = {
            "click to page, first": summarise([click_to_page(page, document.id) for document in documents]),
            "click to page, again": summarise([click_to_page(page, document.id) for document in documents]),
            "click to page of long": summarise([click_to_page(page, long_id) for _ in range(5)]),
            "jump to a far page": summarise([jump_to_page(page, number) for number in range(10, arguments.pages, 20)]),
            "frame while scrolling": summarise(scroll(page)),
        }
        browser.close()
    print_seconds("The page", seconds)
    print(write_results("page", {"pages": arguments.pages, "seconds": seconds}))


def open_page(page: Page, stack: Stack) -> None:
    page.goto(f"{stack.api_url}/#key={stack.api_key}")
    page.locator("tbody tr").first.wait_for()


def click_to_page(page: Page, document_id: str) -> float:
    page.evaluate("location.hash = '#/documents'")
    page.get_by_label("Search by name").wait_for()
    started = time.perf_counter()
    page.evaluate(f"location.hash = '#/documents/{document_id}'")
    wait_until_shown(page, 1)
    return time.perf_counter() - started


def jump_to_page(page: Page, number: int) -> float:
    started = time.perf_counter()
    page.locator(f".page[data-number='{number}']").evaluate("element => element.scrollIntoView()")
    wait_until_shown(page, number)
    return time.perf_counter() - started


def wait_until_shown(page: Page, number: int) -> None:
    page.locator(f".page[data-number='{number}'].loaded").wait_for()


def scroll(page: Page) -> list[float]:
    surface = page.locator(".surface").element_handle()
    surface.evaluate("element => element.scrollTo(0, 0)")
    frames: list[float] = page.evaluate(_SCROLL, [surface, 15, _SCREENS_A_SECOND])
    return frames


if __name__ == "__main__":
    main()
