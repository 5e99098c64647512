"""The page's files; what they do in a browser is tested in `tests/page`."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from registry.settings import Settings

FOLDER = Path(__file__).parents[2] / "api" / "page"
SCRIPTS = {file.name: file.read_text() for file in FOLDER.glob("*.js")}
MESSAGE = re.compile(r"^  (\w+): (\{.*?\n?.*?\}),$", re.MULTILINE | re.DOTALL)


class Elements(HTMLParser):
    """Collects the elements of a page, with their attributes, and the text in its scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    return TestClient(create_app(Settings(database_url=f"sqlite:///{tmp_path}/test.db")))


def test_page_is_served_without_a_key_and_with_a_policy_that_allows_only_its_own_files(client: TestClient) -> None:
    for path in ("/", "/page/main.js", "/page/style.css"):
        answer = client.get(path)
        policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
        assert answer.status_code == 200
        assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
        assert policy["frame-ancestors"] == "'none'"
        assert answer.headers["Cache-Control"] == "no-cache"


def test_page_has_nothing_inline_and_loads_only_files_that_exist(client: TestClient) -> None:
    elements = Elements(client.get("/").text).found
    assert not [names for _, names in elements if any(name == "style" or name.startswith("on") for name in names)]
    addresses = [names.get("src") or names.get("href") for tag, names in elements if tag in {"script", "link"}]
    assert len(addresses) == 3
    assert all(client.get(f"/{address}").status_code == 200 for address in addresses)


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_script_imports_what_exists_and_puts_no_text_in_as_html(name: str) -> None:
    for imported, file in re.findall(r"import \{([^}]+)\} from \"./([\w.]+)\"", SCRIPTS[name]):
        exported = set(re.findall(r"export (?:async )?(?:const|function\*?|class) (\w+)", SCRIPTS[file]))
        assert {each.strip() for each in imported.split(",")} - {""} <= exported
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", SCRIPTS[name])


def test_each_message_that_a_script_uses_exists_and_no_other() -> None:
    text = "\n".join(script for name, script in SCRIPTS.items() if name != "messages.js")
    prefixes = tuple(re.findall(r"t\(`(\w+_)\$\{", text))
    named = set(re.findall(r"\"(\w+)\"", text))
    known = {name for name, _ in MESSAGE.findall(SCRIPTS["messages.js"])}
    assert set(re.findall(r"\bt\(\"(\w+)\"", text)) <= known
    assert {name for name in known if name not in named and not name.startswith(prefixes)} == set()


def test_each_message_has_both_languages_with_the_same_values() -> None:
    messages = MESSAGE.findall(SCRIPTS["messages.js"])
    assert len(messages) > 100
    for name, body in messages:
        by_language = json.loads(re.sub(r",\s*}", "}", re.sub(r"\b(en|pt): (?=[\"\[])", r'"\1": ', body)))
        texts = {language: [text] if isinstance(text, str) else text for language, text in by_language.items()}
        values = {language: set(re.findall(r"\{(\w+)\}", texts[language][-1])) for language in ("en", "pt")}
        assert values["en"] == values["pt"], name
        assert len(texts["en"]) == len(texts["pt"]), name
