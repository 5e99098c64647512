"""A reviewer of contracts whose entities are known, for the demo, the benchmarks and the tests."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from api.schemas import AnnotationCreate
from client.reviewer_client import ReviewerClient
from demo.alignment import carry_spans
from embeddinggemma_feasibility.annotation_data import Entity, Span


@dataclass(frozen=True)
class ReviewedDocument:
    """An uploaded document, its text as the service reads it, and the correct spans in that text."""

    id: str
    text: str
    spans: tuple[Span, ...]

    @property
    def annotations(self) -> list[dict[str, Any]]:
        """The spans in the form of a request body."""
        return [
            {"type": span.type, "value": self.text[span.start : span.end], "start": span.start, "end": span.end}
            for span in self.spans
        ]


class ContractReviewer:
    """Uploads, extracts, submits the known entities as feedback; raises as `ReviewerClient` does."""

    def __init__(self, api_url: str, api_key: str) -> None:
        self._client = ReviewerClient(api_url, api_key)

    def upload(self, filename: str, pdf: bytes, written: str, spans: Iterable[Span]) -> ReviewedDocument:
        """Upload a file; `spans` are those in its text as `written`, and are carried over to the text that was read."""
        document_id = self._client.upload(filename, pdf).id
        text = self._client.read_text(document_id)
        return ReviewedDocument(document_id, text, tuple(carry_spans(written, spans, text)))

    def extract(self, document_id: str) -> tuple[str | None, list[Entity]]:
        """Return the served model version and the entities it finds."""
        found = self._client.extract(document_id)
        entities = [Entity(each.type, each.value, each.start, each.end, each.confidence) for each in found.entities]
        return found.model_version, entities

    def feed_back(self, document: ReviewedDocument) -> str:
        """Submit a document's correct annotations as feedback; return the job's id."""
        annotations = [AnnotationCreate(**each) for each in document.annotations]
        return self._client.teach(document.id, annotations, reviewer="demo").job_id

    def read_job(self, job_id: str) -> dict[str, Any]:
        """Return a job as `GET /jobs/{id}` answers it."""
        return self._client.read_job(job_id).model_dump(mode="json")

    def wait_for_job(self, job_id: str, timeout_seconds: float = 900) -> dict[str, Any]:
        """Wait until a job is finished and return it as `GET /jobs/{id}` answers it; raises TimeoutError."""
        return self._client.wait_for_job(job_id, timeout_seconds).model_dump(mode="json")
