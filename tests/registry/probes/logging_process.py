"""A process that logs, warns, and dies of an error."""

import logging
import warnings

from registry.logs import configure_logging, set_log_ids

configure_logging()

import mlflow.utils.logging_utils  # noqa: E402, F401  (it brings MLflow's own handlers, unless told not to)

FORGED = "\n2026-01-01T00:00:00.000Z INFO    api forged"
set_log_ids(request_id="request-1", job_ids=["job-1", "job-2"])
logging.getLogger("api.routes").info("key of %s", "ana" + FORGED)
logging.getLogger("api.routes").debug("detail")
logging.getLogger("mlflow.store").warning("from MLflow")
logging.getLogger("alembic.runtime").warning("from Alembic")
logging.getLogger("uvicorn.error").info("from uvicorn")
logging.getLogger("prefect.flow_runs").info("from a flow", extra={"flow_run_id": "run-1", "secret": "cf_secret"})
logging.getLogger("prefect.task_runs").info("Finished in state Completed()")
logging.getLogger("httpx").info("GET https://example.com/?token=cf_secret")
warnings.warn("from a warning", stacklevel=1)
raise ValueError(f"from Python{FORGED}")
