"""The API, which kills itself between the commit of a feedback and its response."""

import os
import signal
import sys

import uvicorn

from api.app import create_app
from feedback.launcher import Launcher


def die(self: Launcher, *job_ids: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


Launcher.wake = die  # type: ignore[method-assign]  # it is called right after the commit
uvicorn.run(create_app(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
