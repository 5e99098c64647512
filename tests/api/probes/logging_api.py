"""The API as `contract-feedback api` runs it, and an endpoint with a bug."""

import sys

from registry.logs import configure_logging

configure_logging()

from api.app import create_app  # noqa: E402  (it imports MLflow)
from api.server import Server  # noqa: E402

app = create_app()


@app.get("/bug")
def fail() -> None:
    raise ValueError("a bug\nin two lines")


Server(app, host="127.0.0.1", port=int(sys.argv[1])).run()
