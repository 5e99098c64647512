"""The API as a reviewer's program uses it: upload, extract, annotate, teach, watch, import, export."""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter

from api.import_schemas import LEFT_OUT, ImportedDocument, ImportReport, ImportState
from api.schemas import (
    AnnotationCreate,
    AnnotationPublic,
    DocumentPublic,
    EndOfEvents,
    EndReason,
    EntitiesResponse,
    JobDetail,
    JobResponse,
    Page,
)
from client.errors import ApiError
from client.events import read_events
from feedback.job_state import JobStatus
from intake.formats.names import FORMATS, FormatName
from registry.jobs import Review
from registry.listed_documents import Order
from registry.model_version import ModelVersion
from registry.tables import AnnotationStatus

_FINISHED = {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED}
_ANNOTATIONS = TypeAdapter(list[AnnotationPublic])
_BATCH_CHARACTERS, _BATCH_DOCUMENTS = 1_000_000, 50  # of an import: progress is seen, and a failure costs little
_SECONDS = 300  # that an answer may take
_RECONNECT_SECONDS = 60  # that the API may take to restart
_SHOWN_CHARACTERS = 500  # of an answer that is not of the API
_logger = logging.getLogger(__name__)

Model = TypeVar("Model", bound=BaseModel)


class ReviewerClient:
    """A connection to the API; close it, or use it in a `with` block. It may be used by several threads.

    Each method raises ApiError if the API refuses the request, and httpx.TransportError if it does not answer.
    """

    def __init__(self, api_url: str, api_key: str) -> None:
        headers = {"Authorization": f"Bearer {api_key}"}
        hooks = {"response": [_check]}
        self._http = httpx.Client(base_url=api_url, headers=headers, timeout=_SECONDS, event_hooks=hooks)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def upload(self, filename: str, content: bytes) -> DocumentPublic:
        """Upload a PDF or a text in UTF-8; the same bytes again return the existing document."""
        return self._send(DocumentPublic, "POST", "/documents", files={"file": (filename, content)})

    def list_documents(
        self, order: Order = Order.NEWEST, review: Review | None = None, offset: int = 0, limit: int = 50
    ) -> Page[DocumentPublic]:
        """Return one page of the documents; `Order.UNCERTAIN` with `Review.NEW` begins with what teaches most."""
        params = {"order": order.value, "offset": offset, "limit": limit} | ({"review": review.value} if review else {})
        return self._send(Page[DocumentPublic], "GET", "/documents", params=params)

    def read_document(self, document_id: str) -> DocumentPublic:
        """Return the description of a document."""
        return self._send(DocumentPublic, "GET", f"/documents/{document_id}")

    def read_text(self, document_id: str) -> str:
        """Return the text of a document, whose characters all offsets count."""
        return self._http.get(f"/documents/{document_id}/text").content.decode()

    def extract(self, document_id: str, min_version: str | int | None = None) -> EntitiesResponse:
        """Return what the served version finds; status 503 means that a long document is still being read.

        With `min_version`, as a job's `live_version`, that version or a newer one finds it; status 409 says why not.
        """
        params = {"min_version": min_version} if min_version else {}
        return self._send(EntitiesResponse, "GET", f"/documents/{document_id}/entities", params=params)

    def list_annotations(self, document_id: str) -> list[AnnotationPublic]:
        """Return a document's annotations in reading order."""
        return _ANNOTATIONS.validate_json(self._http.get(f"/documents/{document_id}/annotations").content)

    def annotate(self, document_id: str, annotation: AnnotationCreate) -> AnnotationPublic:
        """Mark one entity. Models learn it when the document is taught."""
        return self._send(AnnotationPublic, "POST", f"/documents/{document_id}/annotations", json=_dump(annotation))

    def teach(
        self,
        document_id: str,
        annotations: Sequence[AnnotationCreate] | None = None,
        reviewer: str | None = None,
        note: str | None = None,
        idempotency_key: str | None = None,
    ) -> JobResponse:
        """Submit feedback: `annotations` replace those of the document, None teaches those that are stored.

        Returns before the training; `watch` follows it. The same `idempotency_key` again returns the same job.
        """
        body = {"annotations": None if annotations is None else [_dump(each) for each in annotations]}
        return self._send(
            JobResponse,
            "POST",
            f"/documents/{document_id}/feedback",
            json={**body, "reviewer": reviewer, "note": note},
            headers={"Idempotency-Key": idempotency_key} if idempotency_key else {},
        )

    def train(self, document_ids: Sequence[str] | None = None) -> JobResponse:
        """Have one run learn these documents, at most 10,000, as they are annotated; None is all annotated ones."""
        return self._send(JobResponse, "POST", "/training-runs", json={"document_ids": document_ids})

    def read_job(self, job_id: str) -> JobDetail:
        """Return a job as it is now."""
        return self._send(JobDetail, "GET", f"/jobs/{job_id}")

    def wait_for_job(self, job_id: str, timeout_seconds: float = 900) -> JobDetail:
        """Poll a job until it is finished and return it; raises TimeoutError."""
        until = time.monotonic() + timeout_seconds
        while time.monotonic() < until:
            job = self.read_job(job_id)
            if job.status in _FINISHED:
                return job
            time.sleep(0.5)
        raise TimeoutError(f"Job {job_id} did not finish within {timeout_seconds} s")

    def watch(self, job_id: str) -> Iterator[JobDetail]:
        """Yield a job as it is, and again after each change, until it is answered.

        Logs a warning and connects again while the API restarts, for a minute. Raises ApiError if the job or the key
        is gone.
        """
        last, lost_at = None, 0.0
        while True:
            try:
                for event, data in self._stream_events(job_id):
                    lost_at = 0.0
                    if event == "end":
                        return _check_answered(job_id, EndOfEvents.model_validate_json(data))
                    job = JobDetail.model_validate_json(data)
                    if job != last:
                        yield job
                    last = job
            except (httpx.TransportError, ApiError) as error:
                is_outage = isinstance(error, httpx.TransportError) or error.status_code == 503
                if is_outage and not lost_at:
                    _logger.warning("No answer (%s): connecting again for %d s", error, _RECONNECT_SECONDS)
                lost_at = lost_at or time.monotonic()
                if not is_outage or time.monotonic() - lost_at > _RECONNECT_SECONDS:
                    raise
            time.sleep(1)

    def read_version(self, version: str) -> ModelVersion:
        """Return a version of the model."""
        return self._send(ModelVersion, "GET", f"/models/{version}")

    def import_records(
        self, format_name: FormatName, records: Iterable[str], replace: bool = False
    ) -> Iterator[ImportReport]:
        """Store the documents of a file, `FORMATS[format_name].split(text)`; yield what became of each batch of them.

        The same records again add nothing, so that an import that failed half-way goes on. With `replace`, the
        annotations of documents that are annotated otherwise are overwritten.
        """
        for batch in _batch(records):
            yield from self._import_batch(format_name, batch, replace)

    def export(
        self,
        format_name: FormatName,
        file: BinaryIO,
        statuses: Iterable[AnnotationStatus] = (AnnotationStatus.APPROVED,),
    ) -> int:
        """Write all reviewed documents, with their annotations of these statuses, to a file.

        Returns the number of annotations of other statuses, which are left out.
        """
        params = {"format": format_name.value, "status": [status.value for status in statuses]}
        with self._http.stream("GET", "/export", params=params) as answer:
            for part in answer.iter_bytes():
                file.write(part)
            return int(answer.headers[LEFT_OUT])

    def _import_batch(self, format_name: FormatName, batch: Sequence[str], replace: bool) -> Iterator[ImportReport]:
        """Send a batch, in halves if it is larger than this installation allows."""
        content = FORMATS[format_name].join(batch).encode()
        params = {"format": format_name.value, "replace": replace}
        try:
            yield self._send(ImportReport, "POST", "/import", params=params, content=content)
        except ApiError as error:
            if error.status_code != 413:
                raise
            if len(batch) == 1:
                refused = ImportedDocument(state=ImportState.REFUSED, reason=error.detail)
                yield ImportReport(documents=[refused], to_teach=[])
                return
            half = len(batch) // 2
            yield from self._import_batch(format_name, batch[:half], replace)
            yield from self._import_batch(format_name, batch[half:], replace)

    def _stream_events(self, job_id: str) -> Iterator[tuple[str, str]]:
        with self._http.stream("GET", f"/jobs/{job_id}/events", timeout=_RECONNECT_SECONDS) as answer:
            yield from read_events(answer.iter_lines())

    def _send(self, model: type[Model], method: str, path: str, **request: Any) -> Model:
        return model.model_validate_json(self._http.request(method, path, **request).content)


def _batch(records: Iterable[str]) -> Iterator[list[str]]:
    """Yield the records in batches; one that is large is a batch of its own."""
    batch: list[str] = []
    size = 0
    for record in records:
        if batch and (len(batch) == _BATCH_DOCUMENTS or size + len(record) > _BATCH_CHARACTERS):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += len(record)
    if batch:
        yield batch


def _dump(annotation: AnnotationCreate) -> dict[str, Any]:
    return annotation.model_dump(mode="json", exclude_none=True)


def _check_answered(job_id: str, end: EndOfEvents) -> None:
    if end.reason == EndReason.REVOKED:
        raise ApiError(401, "The API key was revoked")
    if end.reason == EndReason.DELETED:
        raise ApiError(404, f"There is no job {job_id} any more")


def _check(response: httpx.Response) -> None:
    """Raise ApiError for a refused request."""
    if response.is_success:
        return
    response.read()
    try:
        detail = str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):  # the answer of another server, or of a proxy
        detail = response.text[:_SHOWN_CHARACTERS] or response.reason_phrase
    raise ApiError(response.status_code, detail)
