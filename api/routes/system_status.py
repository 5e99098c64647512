"""The state of the parts of an installation."""

import logging
from collections.abc import Callable

from fastapi import APIRouter
from sqlalchemy import text
from sqlmodel import Session

from api.authentication import GuardedRoute
from api.dependencies import ReaderDep, ServicesDep
from api.schemas import ComponentStatus, SystemStatus
from api.services import Services
from feedback.lost_versions import describe_loss
from registry.database import translate_database_errors
from registry.errors import UnavailableError

_logger = logging.getLogger(__name__)
router = APIRouter(tags=["health"], route_class=GuardedRoute)


@router.get("/system-status")
def read_system_status(services: ServicesDep, _: ReaderDep) -> SystemStatus:
    """Report the state of every part: database, document store, Prefect, MLflow, worker, served version."""
    parts = {
        "database": _check(lambda: _check_database(services)),
        "prefect": _check(services.prefect.check_alive),
        "document_store": _check(services.store.check_alive),
        "mlflow": _check(lambda: _check_mlflow(services)),
        "worker": _check(lambda: _check_worker(services)),
        "model": _check(lambda: _check_model(services)),
    }
    loaded = services.served.loaded
    return SystemStatus(
        ok=all(part.ok for part in parts.values()), **parts, served_version=loaded.version if loaded else None
    )


def _check(check: Callable[[], object]) -> ComponentStatus:
    try:
        detail = check()
    except UnavailableError as error:
        return ComponentStatus(ok=False, detail=str(error))
    except Exception as error:  # whatever is wrong with one part, the others are reported
        _logger.exception("Checking a part of the installation failed")
        return ComponentStatus(ok=False, detail=f"{type(error).__name__}: the log of the API has the trace")
    return ComponentStatus(ok=True, detail=str(detail or "alive"))


def _check_database(services: Services) -> None:
    with translate_database_errors(), Session(services.engine) as session:
        session.connection().execute(text("SELECT 1"))


def _check_mlflow(services: Services) -> None:
    with translate_database_errors(), Session(services.engine) as session:
        if loss := describe_loss(session, services.models):
            raise UnavailableError(loss)
    services.models.find_alias()


def _check_model(services: Services) -> str:
    model = services.served.get()
    if model and model.warning:
        raise UnavailableError(model.warning)
    return f"version {model.version}" if model else "no feedback yet"


def _check_worker(services: Services) -> str:
    workers = services.prefect.list_workers()
    if not workers:
        raise UnavailableError(f"No worker is online in the work pool {services.settings.work_pool}: start one")
    return ", ".join(workers)
