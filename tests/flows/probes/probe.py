"""The flow that the tests of the warm parent run; its folder is copied for each run."""

import json
import os
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from prefect import flow

from registry.settings import get_settings


@flow
def probe(report: str, hold: bool = False) -> None:
    """Report the process and what it sees, leave state behind, and wait for the release if `hold`."""
    found = {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "threads": torch.get_num_threads(),
        "model_name": get_settings().model_name,
        "left_behind": [os.environ.get("LEFT_BEHIND"), getattr(tempfile, "left_behind", None)],
        "random": [random.random(), float(np.random.rand()), float(torch.rand(1))],  # noqa: S311
    }
    os.environ["LEFT_BEHIND"] = tempfile.left_behind = "left"  # type: ignore[attr-defined]
    file = Path(report)
    file.write_text(json.dumps(found))
    try:
        while hold and not file.with_suffix(".release").exists():
            time.sleep(0.05)
    finally:
        file.with_suffix(".ended").touch()
