"""How commands reach an API: its address, a key, and what they report if it refuses or does not answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import httpx
import typer

from cli.usage import UsageError
from client.errors import ApiError
from client.reviewer_client import ReviewerClient

DEFAULT_URL = "http://127.0.0.1:8000"
_LOCAL_KEY = Path(".local/api-key")  # `serve` writes it

UrlOption = Annotated[str, typer.Option(envvar="CONTRACT_FEEDBACK_API_URL", help="Address of the API")]
KeyOption = Annotated[
    str | None, typer.Option(envvar="CONTRACT_FEEDBACK_API_KEY", help=f"API key. Default: that in {_LOCAL_KEY}")
]


@contextmanager
def connect(api_url: str, key: str | None) -> Iterator[ReviewerClient]:
    """Open a client; report what the API refuses as usage errors."""
    if key is None:
        if not _LOCAL_KEY.exists():
            raise UsageError("Give an API key: --key, CONTRACT_FEEDBACK_API_KEY, or start where .local/api-key is")
        key = _LOCAL_KEY.read_text().strip()
    try:
        with ReviewerClient(api_url, key) as client:
            yield client
    except ApiError as error:
        raise UsageError(error.detail) from error
    except (httpx.TransportError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise UsageError(f"The API at {api_url} does not answer: {error}") from error
