"""The logs of a process: their format, and the request, job and flow run that each line belongs to."""

import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from contextvars import ContextVar
from copy import copy
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from registry.settings import get_settings

_IDS = ("request_id", "job_id", "flow_run_id", "task_run_name")
_FIELDS = (
    *("time", "level", "logger", "message", *_IDS),
    *("method", "path", "status", "milliseconds", "bytes", "key_id", "key_name", "client"),  # of a request
    *("traceback", "stack"),
)
_RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"  # Prefect sets it in the process of a run
_MOST_IDS = 3  # of jobs in a line
_VARIABLES = {
    "PREFECT_LOGGING_CONFIG_PATH": str(Path(__file__).with_name("logging.yml")),
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_ids: ContextVar[Mapping[str, str]] = ContextVar("ids", default=MappingProxyType({}))
_logger = logging.getLogger(__name__)


def configure_logging() -> None:
    """Log to stderr as the settings say, in this process, its forks, and the runs that Prefect starts from it.

    Call it before MLflow is imported. Prefect's `setup_logging` applies `logging.yml`, here and in each run.
    """
    from prefect.context import refresh_global_settings_context  # noqa: PLC0415  (Prefect's import reads logging.yml,
    from prefect.logging.configuration import setup_logging  # noqa: PLC0415      which imports this module)

    get_settings()  # raises what Prefect would ignore
    os.environ |= _VARIABLES
    refresh_global_settings_context()
    setup_logging(incremental=False)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda raised: _log_uncaught(raised.exc_type, raised.exc_value, raised.exc_traceback)


def set_log_ids(*, request_id: str | None = None, job_ids: list[str] | None = None) -> None:
    """Put a request's id, or the ids of the first three of these jobs, into the further lines of this context."""
    new = {"request_id": request_id, "job_id": ",".join((job_ids or [])[:_MOST_IDS])}
    _ids.set({**_ids.get(), **{name: value for name, value in new.items() if value}})


def get_request_id() -> str | None:
    """Return the id of the request that is answered in this context."""
    return _ids.get().get("request_id")


def build_handler() -> logging.Handler:
    """Return the handler of all lines: to stderr, in the format and from the level on that the settings say."""
    settings, handler = get_settings(), logging.StreamHandler()
    handler.setLevel(settings.log_level)
    handler.addFilter(_add_ids)
    handler.setFormatter(Json() if settings.log_format == "json" else Text())
    return handler


class Utc(logging.Formatter):
    """Writes times as `2026-11-29T21:28:17.042Z`."""

    converter = time.gmtime  # type: ignore[assignment]  # mypy takes it for a method
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"


class Json(Utc, JsonFormatter):
    """Writes a record as one line of JSON, without what its logger added beside the fields named here."""

    def __init__(self) -> None:
        names = {"asctime": "time", "levelname": "level", "name": "logger", "exc_info": "traceback"}
        JsonFormatter.__init__(
            self, ["asctime", "levelname", "name", "message"], rename_fields={**names, "stack_info": "stack"}
        )

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Return the fields that have a value, in order."""
        return {name: log_data[name] for name in _FIELDS if log_data.get(name) is not None}


class Text(Utc):
    """Writes a record as one line, and its trace as indented ones: no value in them can look like another line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the trace if there is one."""
        record = copy(record)
        record.exc_text = None  # as another handler has written it
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (the name in the standard library)
        """Return the line."""
        ids = " ".join(f"{name}={value}" for name in _IDS if (value := getattr(record, name, None)))
        where = f"{record.name} [{ids}]" if ids else record.name
        return _escape(f"{record.asctime} {record.levelname:<7} {where} {record.message}")

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Return the lines of a trace."""
        return _indent(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        """Return the lines of a stack."""
        return _indent(stack_info)


class HasNews(logging.Filter):
    """Drops what Prefect says when a task has ended well: the flow says what came of it, in numbers."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is kept."""
        return record.getMessage() != "Finished in state Completed()"


def _add_ids(record: logging.LogRecord) -> bool:
    for name, value in {"flow_run_id": os.environ.get(_RUN_VARIABLE), **_ids.get()}.items():
        if getattr(record, name, None) is None:
            setattr(record, name, value)
    return True


def _indent(lines: str) -> str:
    return "\n".join(f"    {_escape(line)}" for line in lines.split("\n"))


def _escape(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _log_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is not None and issubclass(kind, Exception):  # neither an interrupt nor the end of a thread
        _logger.critical("The process or one of its threads ends: %s", error, exc_info=(kind, error, trace))
