"""What the warm parent preloads, and how its child runs a flow as if started by `python -m prefect.engine`."""

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
from flows.warm.heartbeat import set_heartbeat_interval
from registry.database import list_revisions
from registry.lineage import get_code_version
from registry.settings import get_settings

# Modules that a run would import only while it runs. One that a later version no longer has is skipped.
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
class ParentState:
    """What a child must know of its parent: torch's default number of threads, and the Prefect variables it read."""

    threads: int
    prefect: dict[str, str]


def preload() -> ParentState:
    """Import what a run imports, load the base encoder and compile the CRF, without starting a thread."""
    set_heartbeat_interval()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name in _IMPORTED_LATE:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    load_encoder(get_settings().encoder)
    compile_crf()
    get_code_version()
    list_revisions()
    gc.collect()
    gc.freeze()
    # A worker passes its settings on in this form, those of its profile included.
    settings = get_current_settings().to_environment_variables(exclude_unset=True)
    return ParentState(threads, _select_settings(os.environ | settings))


def run_flow(environment: dict[str, str], folder: str, files: list[int], parent: ParentState) -> None:
    """Take over environment, working directory and standard files, then run the flow run that `environment` names."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(parent.threads)
    torch.seed()
    np.random.seed()
    get_settings.cache_clear()
    if _select_settings(environment) != parent.prefect:
        refresh_global_settings_context()
        setup_logging()
    sys.argv = sys.argv[:1]
    warnings.filterwarnings("ignore", message="'prefect.engine' found in sys.modules")
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


def _select_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return Prefect's settings without the variables that identify the run, which start with `PREFECT__`."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith("PREFECT_") and not name.startswith("PREFECT__")
    }
