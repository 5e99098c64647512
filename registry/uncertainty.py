"""How many values the served model is uncertain of in each document, stored by a background thread."""

import logging
import os
import threading
import time
from collections import deque
from contextlib import suppress
from typing import NamedTuple

from sqlalchemy import Engine
from sqlmodel import Session, select

from embeddinggemma_feasibility.disk_cache import DiskCache
from embeddinggemma_feasibility.representations import hash_text
from registry.database import translate_database_errors
from registry.documents import is_stored
from registry.encoding_queue import LONG_TEXT
from registry.errors import UnavailableError
from registry.listed_documents import list_documents_to_read, store_uncertain_values
from registry.served_model import LoadedModel, ServedModel
from registry.tables import Document

_NICENESS = 10  # lower than the encoding of uploads
_ROUND_SECONDS, _READING_SECONDS = 2.0, 0.2  # so that a tenth of a core is used at most
_READ_OF_EACH_KIND = 100  # after a promotion: the most uncertain documents, and unknown ones
_MOST_UPLOADS, _UPLOAD_SECONDS = 1_000, 600.0  # that wait to be encoded, and for how long
_STOP_SECONDS = 5

_logger = logging.getLogger(__name__)


class _Waiting(NamedTuple):
    document_id: str
    until: float  # monotonic seconds; until then, it may still be encoded


class Uncertainty:
    """Stores what extractions count, and reads uploads and, after a promotion, new documents.

    It reads only what is encoded already, and no long texts.
    """

    def __init__(self, engine: Engine, served: ServedModel, cache: DiskCache) -> None:
        self._engine, self._served, self._cache = engine, served, cache
        self._counted = dict[str, tuple[str, float]]()
        self._uploads = deque[_Waiting](maxlen=_MOST_UPLOADS)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uncertainty", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the document that is being read."""
        self._stopped.set()
        self._thread.join(_STOP_SECONDS)

    def add_upload(self, document_id: str) -> None:
        """Have a document read once it is encoded."""
        self._uploads.append(_Waiting(document_id, time.monotonic() + _UPLOAD_SECONDS))

    def add_count(self, document_id: str, version: str, uncertain_values: float) -> None:
        """Have the number stored that a version counted in a document."""
        self._counted[document_id] = version, uncertain_values

    def _run(self) -> None:
        os.nice(_NICENESS)
        version, to_read = "", deque[_Waiting]()
        while not self._stopped.wait(_ROUND_SECONDS):
            try:
                with suppress(UnavailableError):
                    self._served.get()  # loads a new champion, though nobody extracts
                model = self._served.loaded
                if model and model.version != version:
                    version, to_read = model.version, self._list_to_read(model.version)
                if model:
                    until = time.monotonic() + _READING_SECONDS
                    self._read(model, self._uploads, until)
                    self._read(model, to_read, until)
                self._store_counted()
            except UnavailableError as error:
                _logger.warning("What is uncertain is not updated: %s", error)
            except Exception:
                _logger.exception("Updating what is uncertain failed")

    def _list_to_read(self, version: str) -> deque[_Waiting]:
        with translate_database_errors(), Session(self._engine) as session:
            found = list_documents_to_read(session, version, _READ_OF_EACH_KIND)
        return deque(_Waiting(document_id, 0) for document_id in found)

    def _read(self, model: LoadedModel, waiting: deque[_Waiting], until: float) -> None:
        """Read documents until a time; each is tried once, and kept if it may still be encoded."""
        for _ in range(len(waiting)):
            if time.monotonic() > until or self._stopped.is_set():
                return
            document = waiting.popleft()
            text = self._find_text(document.document_id)
            if text is None or len(text) > LONG_TEXT:
                continue
            if model.tagger.cache_key(text) in self._cache:
                uncertain_values = model.tagger.read(text, self._cache)[1]
                self._keep_count(document.document_id, text, model.version, uncertain_values)
            elif time.monotonic() < document.until:
                waiting.append(document)

    def _keep_count(self, document_id: str, text: str, version: str, uncertain_values: float) -> None:
        """Add a count, or delete the text from the cache: its document was deleted, and reading it cached it again."""
        with translate_database_errors(), Session(self._engine) as session:
            if is_stored(session, document_id):
                self.add_count(document_id, version, uncertain_values)
            else:
                self._cache.delete(hash_text(text))

    def _find_text(self, document_id: str) -> str | None:
        with translate_database_errors(), Session(self._engine) as session:
            return session.exec(select(Document.text).where(Document.id == document_id)).first()

    def _store_counted(self) -> None:
        counted, self._counted = self._counted, {}
        if not counted:
            return
        with translate_database_errors(), Session(self._engine) as session:
            for version in {version for version, _ in counted.values()}:
                of_version = {each: count for each, (other, count) in counted.items() if other == version}
                store_uncertain_values(session, version, of_version)
            session.commit()
