"""The metrics that are read at each scrape: the whole installation's, and the state of this API's queues."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from sqlalchemy import QueuePool
from sqlmodel import Session

from api.inquiry import Inquiry, Reply
from api.services import Services
from registry.database import list_revisions, translate_database_errors
from registry.figures import Figures, JobCounts, read_figures
from registry.lineage import get_code_version
from registry.outcome import Decision
from registry.tables import JobType

_NEIGHBOUR_SECONDS, _FIGURES_SECONDS = 30.0, 5.0  # for which a reply is kept: a check of an S3 store writes a file
_SERVED_BUCKETS = (1, 2, 3, 5, 8, 15, 30, 60, 120, 300, 600)  # whole seconds, as `Figures` counts
_OF_ALL = "The same on each API, so take the maximum."


class InstallationMetrics:
    """Asks the neighbours and reads the tables; what does not answer within three seconds is left out."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._build = {"version": get_code_version(), "schema": list_revisions()[0]}
        self._figures = Inquiry("The database", self._read_figures, _FIGURES_SECONDS)
        self._neighbours: Mapping[str, Inquiry[Any]] = {
            "database": services.database,
            "document_store": Inquiry("The document store", services.store.check_alive, _NEIGHBOUR_SECONDS),
            "mlflow": Inquiry("MLflow", services.models.find_alias, _NEIGHBOUR_SECONDS),
            "prefect": Inquiry("Prefect", services.prefect.check_alive, _NEIGHBOUR_SECONDS),
        }
        self._served = Inquiry("MLflow", services.served.find_version, _NEIGHBOUR_SECONDS)
        self._workers = Inquiry("Prefect", services.prefect.list_workers, _NEIGHBOUR_SECONDS)

    async def collect(self) -> Collector:
        """Return all metrics of this API."""
        names = list(self._neighbours)
        figures, served, workers, *replies = await asyncio.gather(
            self._figures.ask(),
            self._served.ask(),
            self._workers.ask(),
            *(self._neighbours[name].ask() for name in names),
        )
        neighbours = dict(zip(names, replies, strict=True))
        return _Collected(
            [
                *self._services.metrics.registry.collect(),
                *self._describe_process(),
                *_describe_neighbours(neighbours),
                *_describe_version("served", "The version that this API extracts with, 0 for none.", served),
                *_describe_version("champion", f"The champion in MLflow. {_OF_ALL}", neighbours["mlflow"]),
                *_describe_workers(workers),
                *(_describe_figures(figures.answer) if figures.answer else ()),
            ]
        )

    def _read_figures(self) -> Figures:
        with translate_database_errors(), Session(self._services.engine) as session:
            return read_figures(session)

    def _describe_process(self) -> Iterator[Metric]:
        services, pool = self._services, self._services.engine.pool
        yield InfoMetricFamily("contract_feedback_build", "This API's release and its database schema.", self._build)
        yield CounterMetricFamily(
            "contract_feedback_failed_runs_total",
            "Runs that ended without an answer to their jobs, and whose jobs this API released.",
            services.launcher.failed_runs,
        )
        yield _gauge("texts_to_encode", "Texts that wait to be encoded by this API.", services.encoding.waiting)
        yield _gauge("event_streams", "Open streams of events of jobs.", services.stream_limit.open)
        if isinstance(pool, QueuePool):
            yield _gauge("database_connections", "Connections to the database in use.", pool.checkedout())


class _Collected(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(f"contract_feedback_{name}", documentation, value)


def _describe_neighbours(replies: Mapping[str, Reply[Any]]) -> Iterator[Metric]:
    up = GaugeMetricFamily(
        "contract_feedback_neighbour_up", "Whether this API reaches a part of the installation.", labels=["neighbour"]
    )
    for name, reply in replies.items():
        up.add_metric([name], reply.problem is None)
    yield up


def _describe_version(name: str, documentation: str, reply: Reply[str | None]) -> Iterator[Metric]:
    if reply.problem is None:
        yield _gauge(f"{name}_version", documentation, int(reply.answer or 0))


def _describe_workers(reply: Reply[list[str]]) -> Iterator[Metric]:
    if reply.answer is not None:
        yield _gauge("workers_online", f"Workers of the work pool that Prefect hears of. {_OF_ALL}", len(reply.answer))


def _describe_figures(figures: Figures) -> Iterator[Metric]:
    jobs = GaugeMetricFamily(
        "contract_feedback_jobs", f"Answered jobs; a rollback changes decisions. {_OF_ALL}", labels=["type", "decision"]
    )
    waiting = GaugeMetricFamily("contract_feedback_waiting_jobs", f"Jobs without an answer. {_OF_ALL}", labels=["type"])
    for job_type in JobType:
        waiting.add_metric([job_type], figures.jobs.waiting[job_type])
        for decision in Decision:
            jobs.add_metric([job_type, decision], figures.jobs.answered[job_type, decision])
    yield jobs
    yield waiting
    yield _gauge(
        "oldest_waiting_job_age_seconds",
        f"Age of the oldest job without an answer, apart from requests to unlearn; 0 for none. {_OF_ALL}",
        _get_age(figures.oldest_waiting),
    )
    yield _describe_served(figures.jobs)
    yield _gauge(
        "documents_set_aside",
        f"Documents that were set aside while others of their job were learned. {_OF_ALL}",
        figures.contradicted_documents,
    )
    yield _gauge("waiting_webhook_deliveries", f"Events that no webhook has yet. {_OF_ALL}", figures.waiting_deliveries)
    yield _gauge(
        "oldest_webhook_delivery_age_seconds",
        f"Age of the oldest of these events; 0 for none. {_OF_ALL}",
        _get_age(figures.oldest_delivery),
    )


def _describe_served(jobs: JobCounts) -> Metric:
    below = [
        (f"{bucket:.1f}", sum(count for seconds, count in jobs.served_within.items() if seconds <= bucket))
        for bucket in _SERVED_BUCKETS
    ]
    return HistogramMetricFamily(
        "contract_feedback_feedback_to_served_seconds",
        f"Time from a job of feedback to its answer, as its version serves, if it was promoted. {_OF_ALL}",
        buckets=[*below, ("+Inf", sum(jobs.served_within.values()))],
        sum_value=jobs.served_seconds,
    )


def _get_age(time: datetime | None) -> float:
    return max(0.0, (datetime.now(UTC) - time).total_seconds()) if time else 0.0
