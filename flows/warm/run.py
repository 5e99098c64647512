"""What a child of the warm parent becomes: a Prefect run, as if started by `python -m prefect.engine`."""

import gc
import os
import runpy
import signal
import sys
from collections.abc import Mapping

import numpy as np
import prefect.flow_engine  # noqa: F401
import torch
from prefect.context import refresh_global_settings_context
from prefect.logging.configuration import setup_logging

import flows.feedback  # noqa: F401
from embeddinggemma_feasibility.encoders import load_encoder
from registry.settings import get_settings


def load() -> int:
    """Load the base encoder, and return how many threads torch is to use in a child; here it may start none."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    load_encoder(get_settings().encoder)
    gc.collect()
    gc.freeze()
    return threads


def become(environment: dict[str, str], folder: str, files: list[int], threads: int) -> None:
    """Turn this process into one that started with these, and run the flow run that `environment` names."""
    known = _settings(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(threads)
    torch.seed()
    np.random.seed()
    get_settings.cache_clear()
    if _settings(environment) != known:
        refresh_global_settings_context()
        setup_logging()
    sys.argv = sys.argv[:1]
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


def _settings(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith("PREFECT_") and not name.startswith("PREFECT__")
    }
