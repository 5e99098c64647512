"""The HTTP server of the API, which logs its requests."""

import socket
from typing import Any

import uvicorn
from fastapi import FastAPI

from api.request_log import RequestLog


class Server(uvicorn.Server):
    """Ends the open streams of events, and waits, when it shuts down; uvicorn alone would wait for them."""

    def __init__(self, app: FastAPI, **options: Any) -> None:
        super().__init__(uvicorn.Config(RequestLog(app), log_config=None, access_log=False, **options))
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams and waits, and shut down as uvicorn does."""
        self._app.state.job_watcher.close()
        self._app.state.services.version_waits.close()
        await super().shutdown(sockets)
