"""A real browser in front of an installation of its own, with people who review in it."""

import shutil
from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from cli.installation import ANY_PORTS, Stack, run_stack
from demo.client import ContractReviewer
from registry.database import open_session
from registry.keys import Scope, add_key
from registry.settings import Settings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

SignIn = Callable[..., Page]


@pytest.fixture(scope="module")
def browser(reviewing: Stack) -> Iterator[Browser]:
    """Chromium, started after the installation: Prefect's client fails beside the event loop of Playwright."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def reviewing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An installation that nobody has taught anything yet, for the tests of the page alone."""
    with run_stack(tmp_path_factory.mktemp("reviewing"), ANY_PORTS) as stack:
        yield stack


@pytest.fixture(scope="session")
def api(reviewing: Stack) -> httpx.Client:
    return httpx.Client(
        base_url=reviewing.api_url, headers={"Authorization": f"Bearer {reviewing.api_key}"}, timeout=60
    )


@pytest.fixture(scope="session")
def reviewer(reviewing: Stack) -> ContractReviewer:
    return ContractReviewer(reviewing.api_url, reviewing.api_key)


@pytest.fixture
def sign_in(browser: Browser, reviewing: Stack) -> Iterator[SignIn]:
    """Return a function that opens the page with a new key of a person; any error in its scripts fails the test."""
    contexts, errors = [], list[str]()

    def open_page(
        name: str = "Ana", language: str = "en", scheme: str = "light", scopes: tuple[Scope, ...] = ()
    ) -> Page:
        with open_session(Settings(database_url=f"sqlite:///{reviewing.folder}/contract-feedback.db")) as session:
            key = add_key(session, name, scopes or (Scope.READ, Scope.ANNOTATE, Scope.TRAIN))
            session.commit()
        context = browser.new_context(
            locale=language,
            color_scheme="dark" if scheme == "dark" else "light",
            viewport={"width": 1400, "height": 900},
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(f"{error} {error.stack}"))
        page.on("console", lambda message: errors.append(message.text) if "Content Security" in message.text else None)
        page.goto(f"{reviewing.api_url}/#key={key}")
        page.get_by_role("heading", level=1).wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []
