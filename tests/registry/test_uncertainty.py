"""What the background thread that reads documents leaves behind."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, select

from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.contract_data_trainer import FineTuningResult
from embeddinggemma_feasibility.disk_cache import DiskCache
from embeddinggemma_feasibility.representations import hash_text
from registry.documents import get_document
from registry.models import ModelRegistry
from registry.served_model import ServedModel
from registry.tables import ListedDocument
from registry.uncertainty import Uncertainty
from tests.registry.test_annotations import TEXT, add_document
from tests.registry.test_models import register


class InterruptedCache(DiskCache):
    """A cache in which something happens between the question for an entry and its use."""

    def __init__(self, folder: Path, interrupt: Callable[[], None]) -> None:
        super().__init__(folder, 10_000_000)
        self.interrupt = interrupt

    def __contains__(self, sha256: str) -> bool:
        found = super().__contains__(sha256)
        self.interrupt()
        return found


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


def test_text_deleted_while_it_is_read_does_not_remain_in_the_cache(
    engine: Engine, registry: ModelRegistry, tuned: FineTuningResult, contracts: list[AnnotationData], tmp_path: Path
) -> None:
    registry.promote(register(registry, tuned, contracts, "run-1"))
    served, interrupted = ServedModel(registry), threading.Event()
    model = served.get()
    assert model
    with Session(engine) as session:
        document_id = add_document(session).id
        session.commit()

    def delete_document() -> None:
        with Session(engine) as session:
            session.delete(get_document(session, document_id))
            session.commit()
        cache.delete(hash_text(TEXT))
        interrupted.set()

    cache = InterruptedCache(tmp_path / "representations", delete_document)
    model.tagger.represent(TEXT, cache)
    uncertainty = Uncertainty(engine, served, cache)
    uncertainty.add_upload(document_id)
    uncertainty.start()
    assert interrupted.wait(30)
    uncertainty.stop()
    assert not list((tmp_path / "representations").iterdir())
    with Session(engine) as session:
        assert session.exec(select(ListedDocument)).all() == []
