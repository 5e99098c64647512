"""The service: its routes, its parts, one shape for all errors."""

import logging
from asyncio import Semaphore
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from mlflow.exceptions import MlflowException
from prefect.client.orchestration import get_client
from sqlalchemy import exc
from sqlalchemy.orm.exc import StaleDataError

from api.dependencies import RequestLimit, Services
from api.routes import annotations, audit, documents, health, jobs, models
from api.schemas import ERROR_HEADERS, errors
from feedback.launcher import Launcher
from feedback.prefect_runs import PrefectRuns
from registry.cache import build_representation_cache
from registry.database import CONNECTIONS, build_engine, migrate
from registry.document_store import DocumentStore
from registry.errors import ContractFeedbackError
from registry.models import ModelRegistry
from registry.served_model import ServedModel
from registry.settings import Settings, get_settings

_logger = logging.getLogger(__name__)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the service; its database is migrated when it starts."""
    settings = settings or get_settings()
    app = FastAPI(
        title="contract-feedback",
        summary="Extracts entities from contracts and learns from each correction at once",
        version="0.1.0",
        lifespan=lambda app: _lifespan(app, settings),
    )
    app.add_exception_handler(ContractFeedbackError, _answer_error)
    app.add_exception_handler(exc.IntegrityError, _answer_conflict)
    app.add_exception_handler(StaleDataError, _answer_conflict)
    app.add_exception_handler(exc.OperationalError, partial(_answer_away, "The database"))
    app.add_exception_handler(exc.TimeoutError, partial(_answer_away, "The database"))
    app.add_exception_handler(MlflowException, partial(_answer_away, "MLflow"))
    app.add_exception_handler(RequestValidationError, _answer_unfit_request)
    for room in (documents, annotations, jobs, models, audit):
        app.include_router(room.router, responses=errors(401, 403, 422, 429, 503))
    app.include_router(health.router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI, settings: Settings) -> AsyncIterator[None]:
    engine = build_engine(settings)
    migrate(engine)
    registry = ModelRegistry(settings)
    with get_client(sync_client=True) as client:
        prefect = PrefectRuns(client, settings)
        launcher = Launcher(engine, prefect)
        app.state.services = Services(
            settings,
            engine,
            DocumentStore(settings),
            build_representation_cache(settings),
            registry,
            ServedModel(registry),
            prefect,
            launcher,
            RequestLimit(settings),
            Semaphore(CONNECTIONS),
        )
        launcher.start()
        try:
            yield
        finally:
            launcher.stop()
            engine.dispose()


async def _answer_error(_: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, ContractFeedbackError) else 500
    return JSONResponse({"detail": str(error)}, status, ERROR_HEADERS.get(status))


async def _answer_conflict(_: Request, error: Exception) -> JSONResponse:
    detail = "Somebody changed the same at the same moment: read it again, then repeat the request"
    return JSONResponse({"detail": detail}, 409)


async def _answer_away(part: str, _: Request, error: Exception) -> JSONResponse:
    _logger.error("%s does not answer: %s", part, error)
    return JSONResponse({"detail": f"{part} does not answer; try again when GET /system-status shows it alive"}, 503)


async def _answer_unfit_request(_: Request, error: Exception) -> JSONResponse:
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    details = [f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}" for problem in problems]
    return JSONResponse({"detail": "; ".join(details)}, 422)
