"""What a child of the warm parent becomes: a Prefect run, as if started by `python -m prefect.engine`."""

import contextlib
import gc
import importlib
import os
import runpy
import signal
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from prefect.context import refresh_global_settings_context
from prefect.logging.configuration import setup_logging
from prefect.settings import get_current_settings

import flows.feedback  # noqa: F401
from embeddinggemma_feasibility.encoders import load_encoder
from embeddinggemma_feasibility.span_crf import compile_crf
from registry.settings import get_settings

# What a run imports only on its way; none of it is missed here if it has moved.
_IMPORTED_LATE = (
    "anyio._backends._asyncio",
    "matplotlib.backends.backend_agg",
    "mlflow.tracking.request_header.registry",
    "peft.utils.transformers_weight_conversion",
    "prefect._internal.observers",
    "prefect.concurrency.sync",
    "prefect.flow_engine",
    "prefect.task_engine",
    "prefect.utilities.visualization",
    "rich._emoji_codes",
    "sqlalchemy.dialects.sqlite",
)


@dataclass(frozen=True)
class Loaded:
    """What a child has to know of the parent's state: torch's threads, and the environment that Prefect was set by."""

    threads: int
    prefect: dict[str, str]


def load() -> Loaded:
    """Import what a run imports, load the base encoder and compile the CRF, without starting a thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name in _IMPORTED_LATE:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    load_encoder(get_settings().encoder)
    compile_crf()
    gc.collect()
    gc.freeze()
    # A worker hands its settings on in this form, with the profile's among them.
    worker = get_current_settings().to_environment_variables(exclude_unset=True)
    return Loaded(threads, _prefect_settings(os.environ | worker))


def become(environment: dict[str, str], folder: str, files: list[int], loaded: Loaded) -> None:
    """Turn this process into one that was started with these, and run the flow run that `environment` names."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(loaded.threads)
    torch.seed()
    np.random.seed()
    get_settings.cache_clear()
    if _prefect_settings(environment) != loaded.prefect:
        refresh_global_settings_context()
        setup_logging()
    sys.argv = sys.argv[:1]
    warnings.filterwarnings("ignore", message="'prefect.engine' found in sys.modules")
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


def _prefect_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave out what names the run: it begins with two underscores after PREFECT."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith("PREFECT_") and not name.startswith("PREFECT__")
    }
