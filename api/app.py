"""The HTTP service: its routes, and what exists as long as it runs."""

import os
from asyncio import Semaphore
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from prefect.client.orchestration import get_client

from api.documentation import add_documentation
from api.errors import add_error_handlers, document_errors
from api.inquiry import Inquiry
from api.installation_metrics import InstallationMetrics
from api.job_watcher import JobWatcher
from api.loopback import LoopbackGuard
from api.metrics import Metrics, RequestMetrics
from api.page_files import add_page
from api.routes import (
    annotations,
    audit,
    documents,
    entities,
    exchange,
    feedback,
    health,
    jobs,
    key,
    label_studio,
    metrics,
    models,
    pages,
    system_status,
    webhooks,
)
from api.services import RequestLimit, Services, StreamLimit
from api.version_waits import VersionWaits
from feedback.launcher import Launcher
from feedback.prefect_runs import PrefectRuns
from feedback.time_limits import TimeLimits
from feedback.webhook_sender import WebhookSender
from intake.page_images import PageImages
from registry.cache import build_representation_cache
from registry.database import build_engine, check_database, migrate
from registry.document_store import DocumentStore
from registry.encoding_queue import EncodingQueue
from registry.models import ModelRegistry
from registry.served_model import ServedModel
from registry.settings import Settings, get_settings
from registry.uncertainty import Uncertainty

_MOST_STREAMS_OF_KEY, _MOST_STREAMS = 100, 500  # of events, in this process
_DATABASE_SECONDS = 1.0  # for which it is known whether the database answers: nobody needs a key to ask


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the service; it migrates its database when it starts."""
    settings, counted = settings or get_settings(), Metrics()
    app = FastAPI(
        title="contract-feedback",
        summary="Extracts entities from contracts and learns from each correction at once",
        version="0.1.0",
        description="Every answer has an `X-Request-ID`: that of its request, or a new one. The API's log has it, too.",
        lifespan=lambda app: _lifespan(app, settings, counted),
        docs_url=None,
        redoc_url=None,
    )
    add_documentation(app)
    add_page(app)
    add_error_handlers(app)
    app.add_middleware(LoopbackGuard, allowed_hosts=settings.allowed_hosts)
    app.add_middleware(RequestMetrics, metrics=counted)
    for route in (
        key,
        documents,
        entities,
        pages,
        annotations,
        feedback,
        jobs,
        models,
        audit,
        webhooks,
        metrics,
        system_status,
        exchange,
        label_studio,
    ):
        app.include_router(route.router, responses=document_errors(401, 403, 422, 429, 503))
    app.include_router(health.router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI, settings: Settings, counted: Metrics) -> AsyncIterator[None]:
    engine = build_engine(settings)
    migrate(engine)
    registry, limits = ModelRegistry(settings), TimeLimits()
    served, cache = ServedModel(registry), build_representation_cache(settings)
    store = DocumentStore(settings)
    encoding, cores = EncodingQueue(settings, served, cache), os.cpu_count() or 1
    with get_client(sync_client=True) as client:
        prefect = PrefectRuns(client, settings, limits)
        launcher = Launcher(engine, prefect, registry, limits)
        uncertainty = Uncertainty(engine, served, cache)
        sender = WebhookSender(engine, settings.webhook_private_addresses)
        app.state.services = Services(
            settings=settings,
            engine=engine,
            store=store,
            cache=cache,
            models=registry,
            served=served,
            encoding=encoding,
            images=PageImages(settings, store),
            uncertainty=uncertainty,
            prefect=prefect,
            launcher=launcher,
            request_limit=RequestLimit(settings.requests_per_minute, "with this key"),
            refusal_limit=RequestLimit(settings.refusals_per_minute, "without a valid key from this address"),
            stream_limit=StreamLimit(_MOST_STREAMS_OF_KEY, _MOST_STREAMS),
            metrics=counted,
            database=Inquiry("The database", lambda: check_database(engine), _DATABASE_SECONDS),
            request_slots=Semaphore(settings.database_connections),
            reading_slots=Semaphore(cores),
            caller_slots=defaultdict(lambda: Semaphore(settings.database_connections // 5)),
            caller_reading_slots=defaultdict(lambda: Semaphore(max(1, cores - 1))),
            version_waits=VersionWaits(served, registry),
        )
        app.state.job_watcher = JobWatcher(app.state.services)
        app.state.scrapers = {}  # who came with which key to the metrics, by its hash
        app.state.installation_metrics = InstallationMetrics(app.state.services)
        launcher.start()
        encoding.start()
        uncertainty.start()
        sender.start()
        try:
            yield
        finally:
            app.state.job_watcher.close()
            app.state.services.version_waits.close()
            sender.stop()
            encoding.stop()
            uncertainty.stop()
            launcher.stop()
            engine.dispose()
