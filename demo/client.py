"""A client of the API, as a reviewer's application would use it, for the demo, the benchmarks and the tests."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpx

from demo.alignment import carry_spans
from embeddinggemma_feasibility.annotation_data import Entity, Span

_FINISHED = {"completed", "failed", "cancelled"}


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


class ReviewerClient:
    """Uploads, extracts, submits feedback; every method raises httpx.HTTPStatusError for a refused request."""

    def __init__(self, api_url: str, api_key: str) -> None:
        headers = {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.Client(base_url=api_url, headers=headers, timeout=300, event_hooks={"response": [_check]})

    def upload(self, filename: str, pdf: bytes, written: str, spans: Iterable[Span]) -> ReviewedDocument:
        """Upload a file; `spans` are those in its text as `written`, and are carried over to the text that was read."""
        document_id = self._http.post("/documents", files={"file": (filename, pdf)}).json()["id"]
        text = self._http.get(f"/documents/{document_id}/text").text
        return ReviewedDocument(document_id, text, tuple(carry_spans(written, spans, text)))

    def extract(self, document_id: str) -> tuple[str | None, list[Entity]]:
        """Return the served model version and the entities it finds."""
        answer = self._http.get(f"/documents/{document_id}/entities").json()
        fields = ("type", "value", "start", "end", "confidence")
        return answer["model_version"], [Entity(*(entity[name] for name in fields)) for entity in answer["entities"]]

    def feed_back(self, document: ReviewedDocument) -> str:
        """Submit a document's correct annotations as feedback; return the job's id."""
        body = {"annotations": document.annotations, "reviewer": "demo"}
        return str(self._http.post(f"/documents/{document.id}/feedback", json=body).json()["job_id"])

    def read_job(self, job_id: str) -> dict[str, Any]:
        """Return a job as `GET /jobs/{id}` answers it."""
        job: dict[str, Any] = self._http.get(f"/jobs/{job_id}").json()
        return job

    def wait_for_job(self, job_id: str, timeout_seconds: float = 900) -> dict[str, Any]:
        """Poll a job until it is finished and return it; raises TimeoutError."""
        until = time.monotonic() + timeout_seconds
        while time.monotonic() < until:
            job = self.read_job(job_id)
            if job["status"] in _FINISHED:
                return job
            time.sleep(0.5)
        raise TimeoutError(f"Job {job_id} did not finish within {timeout_seconds} s")


def _check(response: httpx.Response) -> None:
    if response.is_error:
        response.read()
        raise httpx.HTTPStatusError(
            f"{response.status_code}: {response.text}", request=response.request, response=response
        )
