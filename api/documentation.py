"""The interactive documentation, which needs no other host."""

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles


def add_documentation(app: FastAPI) -> None:
    """Serve Swagger UI at `/docs`, with the files that `fastapi-offline` ships.

    Create `app` with `docs_url=None` and `redoc_url=None`: FastAPI's own pages load their scripts from a CDN.
    All URLs are relative, so the page also works behind a proxy that adds a prefix.
    """
    app.mount("/docs-files", StaticFiles(packages=[("fastapi_offline", "static")]))
    page = get_swagger_ui_html(
        title=app.title,
        openapi_url="openapi.json",
        swagger_js_url="docs-files/swagger-ui-bundle.js",
        swagger_css_url="docs-files/swagger-ui.css",
        swagger_favicon_url="docs-files/favicon.png",
    )

    @app.get("/docs", include_in_schema=False)
    async def get_documentation() -> HTMLResponse:
        return page
