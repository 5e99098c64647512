"""What exists as long as the service runs."""

from asyncio import Semaphore
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from sqlalchemy import Engine

from api.inquiry import Inquiry
from api.metrics import Metrics
from api.version_waits import VersionWaits
from embeddinggemma_feasibility.disk_cache import DiskCache
from feedback.launcher import Launcher
from feedback.prefect_runs import PrefectRuns
from intake.page_images import PageImages
from registry.document_store import DocumentStore
from registry.encoding_queue import EncodingQueue
from registry.errors import TooManyError
from registry.models import ModelRegistry
from registry.served_model import ServedModel
from registry.settings import Settings
from registry.uncertainty import Uncertainty


class RequestLimit:
    """Counts the requests of each sender in the last minute, in this process."""

    def __init__(self, per_minute: int, kind: str) -> None:
        self._limit, self._kind = RateLimitItemPerMinute(per_minute), kind
        self._counter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def count(self, sender: str) -> None:
        """Count a request; raises TooManyError above the limit."""
        if not self._counter.hit(self._limit, sender):
            raise TooManyError(f"More than {self._limit.amount} requests a minute {self._kind}: wait a minute")


class StreamLimit:
    """Counts streams of events, and waits, in this process; `most_of_key` and `most` bound those of a key and all."""

    def __init__(self, most_of_key: int, most: int) -> None:
        self._most_of_key, self._most = most_of_key, most
        self._open = Counter[str]()

    @property
    def open(self) -> int:
        """The number of open streams."""
        return self._open.total()

    @contextmanager
    def take(self, key_id: str) -> Iterator[None]:
        """Count a stream in this block; raises TooManyError above the limit."""
        for count, most, kind in (
            (self._open[key_id], self._most_of_key, " with this key"),
            (self._open.total(), self._most, ""),
        ):
            if count >= most:
                full = f"{most} streams of events are open{kind}, and no more may be"
                raise TooManyError(f"{full}: close some, or ask GET /jobs/{{id}} now and then")
        self._open[key_id] += 1
        try:
            yield
        finally:
            self._open[key_id] -= 1
            self._open += Counter()  # drops the keys without a stream


@dataclass(frozen=True)
class Services:
    """The parts of the service."""

    settings: Settings
    engine: Engine
    store: DocumentStore
    cache: DiskCache
    models: ModelRegistry
    served: ServedModel
    encoding: EncodingQueue
    images: PageImages
    uncertainty: Uncertainty
    prefect: PrefectRuns
    launcher: Launcher
    request_limit: RequestLimit
    refusal_limit: RequestLimit
    stream_limit: StreamLimit
    metrics: Metrics
    database: Inquiry[None]
    request_slots: Semaphore
    reading_slots: Semaphore
    caller_slots: Mapping[tuple[str, str], Semaphore]
    caller_reading_slots: Mapping[str, Semaphore]
    version_waits: VersionWaits
