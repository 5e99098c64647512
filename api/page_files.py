"""The page for reviewers: static files, with a policy by which the browser runs and loads nothing else."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.responses import FileResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_FOLDER = Path(__file__).parent / "page"
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' blob:",  # a page of a contract is fetched with the key
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asked for again each time, and answered 304 until the next release
}


class _WithPolicy:
    """ASGI application: another one, whose answers carry the page's headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def add_page(app: FastAPI) -> None:
    """Serve the page at `/`. All its addresses are relative, so it also works behind a proxy that adds a prefix."""
    app.mount("/page", _WithPolicy(StaticFiles(directory=_FOLDER)))

    @app.get("/", include_in_schema=False)
    async def get_page() -> FileResponse:
        return FileResponse(_FOLDER / "index.html", headers=_HEADERS)
