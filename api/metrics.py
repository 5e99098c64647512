"""The metrics that this process counts as things happen: requests, extractions, its own memory and time."""

import time
from http import HTTPMethod

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_REQUEST_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_EXTRACTION_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of this process, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which no query reads
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "contract_feedback_http_requests_total",
            "Requests that this API has begun to answer.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "contract_feedback_http_request_duration_seconds",
            "Time from the headers of a request to the first byte of its answer.",
            ("method", "route"),
            buckets=_REQUEST_BUCKETS,
            registry=self.registry,
        )
        self.extraction_seconds = Histogram(
            "contract_feedback_extraction_duration_seconds",
            "Time to extract a document's entities; encoding: known if it was in the cache, new if it was computed.",
            ("encoding",),
            buckets=_EXTRACTION_BUCKETS,
            registry=self.registry,
        )


class RequestMetrics:
    """ASGI middleware that counts requests, by routes and methods that exist: nobody can add labels by requests."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; count it as its answer begins, or as 500 if it is never begun for an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, is_counted = time.perf_counter(), False

        async def send_counted(message: Message) -> None:
            nonlocal is_counted
            if message["type"] == "http.response.start":
                is_counted = True
                self._count(scope, message["status"], time.perf_counter() - started)
            await send(message)

        try:
            await self._app(scope, receive, send_counted)
        except Exception:
            if not is_counted:
                self._count(scope, 500, time.perf_counter() - started)
            raise

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in HTTPMethod.__members__ else "other"
        route = getattr(scope.get("route"), "path", "none")
        self._metrics.requests.labels(method, route, status).inc()
        self._metrics.request_seconds.labels(method, route).observe(seconds)
