"""Schemathesis checks the answers of an API, on the stack's Prefect and MLflow, against its OpenAPI document."""

import contextvars
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import schemathesis
import uvicorn
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_URL, temporary_settings
from schemathesis import Case
from schemathesis.config import SchemathesisConfig
from schemathesis.schemas import BaseSchema
from sqlalchemy import Engine
from sqlmodel import Session, col, delete, update

from api.app import create_app
from cli.installation import Stack
from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.contract_data_trainer import fine_tune_model
from embeddinggemma_feasibility.encoders import Encoder
from registry.database import build_engine, migrate
from registry.document_store import DocumentStore
from registry.keys import Scope, add_key
from registry.models import ModelRegistry
from registry.outcome import Decision, Outcome
from registry.settings import Settings
from registry.tables import Annotation, Document, EventType, Job, JobDocument, JobType, Webhook
from tests.intake.pdfs import build_pdf, write
from tests.registry.test_models import register

DOCUMENT_ID, ANNOTATION_ID, JOB_ID, WEBHOOK_ID = "a-document", "an-annotation", "a-job", "a-webhook"
WEBHOOK_URL = "http://127.0.0.1:9/"  # nothing is there
TEXT = "0" * 100
PDF = build_pdf(write(TEXT))
FITTING = {
    "document_id": DOCUMENT_ID, "annotation_id": ANNOTATION_ID, "job_id": JOB_ID, "version": "1", "If-Match": "1",
    "value": "0", "start": 0, "end": 1, "number": 1, "webhook_id": WEBHOOK_ID, "url": WEBHOOK_URL,
}  # fmt: skip
READ_BY_POST = {"/label-studio/setup", "/label-studio/predict"}
NOT_CHECKED = (
    "allow_header_conformance",  # Starlette's Allow names the methods of one route, not of all on the path
    "ignored_auth",  # the second test's
    "negative_data_rejection",  # "1" is taken for 1, unknown query parameters are overlooked
    "positive_data_acceptance",  # a schema cannot say that a value must stand at its offsets
)


def prefer_fitting(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [{"enum": [FITTING[name]]}, schema]} if name in FITTING else schema


def load_schema(max_examples: int, modes: str, coverage: bool) -> BaseSchema:
    """Return the schema, changed so that half of the requests name existing entities and annotate existing text."""
    document = create_app(Settings()).openapi()
    for path in document["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                parameter["schema"] = prefer_fitting(parameter["name"], parameter["schema"])
    models = document["components"]["schemas"]
    for model in models.values():
        model["additionalProperties"] = False  # answers have none, and to invent some for requests takes long
    for model in (models["AnnotationCreate"], models["LabelStudioValue"], models["WebhookCreate"]):
        model["properties"] = {name: prefer_fitting(name, field) for name, field in model["properties"].items()}
    generation = {"deterministic": True, "max-examples": max_examples, "with-security-parameters": False, "mode": modes}
    checks = {name: {"enabled": False} for name in NOT_CHECKED}
    phases = {"coverage": {"enabled": coverage}}
    config = {"seed": 1, "suppress-health-check": ["all"], "generation": generation, "checks": checks, "phases": phases}
    return schemathesis.openapi.from_dict(document, config=SchemathesisConfig.from_dict(config))


any_requests = load_schema(max_examples=20, modes="all", coverage=True)
LONG = "/label-studio/webhook"  # its body has many fields, and takes 45 s
few_valid_requests = load_schema(max_examples=2, modes="positive", coverage=False)


@dataclass(frozen=True)
class Api:
    url: str
    engine: Engine
    store: DocumentStore
    key: str
    reader_key: str

    def restore(self) -> None:
        """Restore the entities that the requests name."""
        boxes = np.array([[1, index, 0, index + 1, 1] for index in range(len(TEXT))], dtype=np.float32)
        self.store.save(DOCUMENT_ID, PDF, boxes, np.array([[612.0, 792.0, 0, len(TEXT)]]))
        with Session(self.engine) as session:
            session.exec(update(Job).values(idempotency_key=None))
            session.exec(delete(Document).where(col(Document.id) == DOCUMENT_ID))
            session.add(Document(
                id=DOCUMENT_ID, filename="a.pdf", media_type="application/pdf", sha256="0", size_bytes=1,
                page_count=1, character_count=len(TEXT), text=TEXT,
            ))  # fmt: skip
            session.flush()
            session.add(Annotation(id=ANNOTATION_ID, document_id=DOCUMENT_ID, type="x", value="00", start=1, end=3))
            session.add(JobDocument(job_id=JOB_ID, document_id=DOCUMENT_ID))
            session.exec(delete(Webhook))
            session.add(Webhook(id=WEBHOOK_ID, url=WEBHOOK_URL, event_types=list(EventType), secret="whsec_c2VjcmV0"))
            session.commit()


@pytest.fixture(scope="module")
def api(
    stack: Stack, tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Encoder, contracts: list[AnnotationData]
) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("schema")
    with SyncPrefectClient(f"{stack.prefect_url}/api") as client:
        client.create_deployment(client.create_flow_from_name("learn-from-feedback"), "unattended")
    settings = Settings(
        database_url=f"sqlite:///{folder}/test.db",
        document_store_url=str(folder / "documents"),
        mlflow_tracking_uri=stack.mlflow_url,
        model_name="schema",
        deployment="learn-from-feedback/unattended",
        encoder=tiny_encoder.name,
        cache_folder=str(folder / "cache"),
        requests_per_minute=1_000_000,
        refusals_per_minute=1_000_000,
        webhook_private_addresses=True,
    )
    registry = ModelRegistry(settings)
    registry.promote(register(registry, fine_tune_model(contracts, encoder=tiny_encoder), contracts, "run-1"))
    engine = build_engine(settings)
    migrate(engine)
    with Session(engine) as session:
        keys = add_key(session, "all", list(Scope)), add_key(session, "reader", [Scope.READ])
        answer = Outcome(decision=Decision.FAILED, reason="a test", flow_run_id="run")  # so that its events end
        session.add(Job(id=JOB_ID, type=JobType.FEEDBACK, triggered_by="ana", outcome=answer))
        session.commit()
    with temporary_settings({PREFECT_API_URL: f"{stack.prefect_url}/api"}):
        server = uvicorn.Server(uvicorn.Config(create_app(settings), port=0, log_level="warning"))
        thread = threading.Thread(target=contextvars.copy_context().run, args=(server.run,))
        thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Api(f"http://127.0.0.1:{port}", engine, DocumentStore(settings), *keys)
    server.should_exit = True
    thread.join()
    engine.dispose()


def call(case: Case[Any], api: Api, key: str) -> int:
    api.restore()
    with suppress(KeyError, TypeError, ValueError):
        case.query["wait_seconds"] = min(float(case.query["wait_seconds"]), 0.1)  # for a version that never comes
    answer = case.call_and_validate(base_url=api.url, headers={"Authorization": f"Bearer {key}"})
    return answer.status_code


@any_requests.exclude(path=LONG).parametrize()
def test_every_answer_is_as_documented(case: Case[Any], api: Api) -> None:
    call(case, api, api.key)


@pytest.mark.slow
@any_requests.include(path=LONG).parametrize()
def test_every_answer_to_a_long_request_is_as_documented(case: Case[Any], api: Api) -> None:
    call(case, api, api.key)


@few_valid_requests.parametrize()
def test_no_key_and_a_key_without_the_scope_are_refused_as_documented(case: Case[Any], api: Api) -> None:
    assert (call(case, api, "cf_none_none") == 401) == (case.path not in {"/health", "/ready"})
    is_reading = case.method == "GET" or case.path in READ_BY_POST
    needs_another = not is_reading or case.path.startswith(("/audit", "/webhooks", "/metrics"))
    assert (call(case, api, api.reader_key) == 403) == needs_another
