"""Jobs as they go on: one task looks after all jobs that somebody watches, and tells the open streams what changed."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Set
from dataclasses import dataclass, field

from anyio import CapacityLimiter, to_thread
from fastapi.sse import ServerSentEvent
from sqlmodel import Session, col, select

from api.job_responses import Runs, build_job_details, find_progress, find_state, read_runs
from api.schemas import EndOfEvents, EndReason, JobDetail
from api.services import Services
from feedback.job_state import JobStatus
from registry.database import translate_database_errors
from registry.errors import UnavailableError
from registry.tables import ApiKey, Job

_LOOK_SECONDS = 0.2  # between two looks into the database
_PREFECT_SECONDS, _KEY_SECONDS = 1.0, 1.0  # between two questions to Prefect, and two checks of the keys

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Signature:
    """All of a job's detail that an event is sent for."""

    status: JobStatus
    message: str | None
    progress: float
    is_answered: bool


def _sign(detail: JobDetail) -> _Signature:
    return _Signature(detail.status, detail.message, detail.progress, detail.outcome is not None)


def _sign_job(job: Job, runs: Runs) -> _Signature:
    state = find_state(job, runs)
    return _Signature(state.status, state.message, find_progress(job, state, runs), job.outcome is not None)


@dataclass(eq=False)
class _Stream:
    """An open stream: what its client has seen of the job, and what it is to be sent; only the newest state counts."""

    job_id: str
    key_id: str
    seen: _Signature
    opened_at: float = field(default_factory=time.monotonic)
    detail: str | None = None
    reason: EndReason | None = None
    is_over: bool = False
    has_news: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, reason: EndReason | None) -> None:
        self.reason, self.is_over = reason, True
        self.has_news.set()


@dataclass(frozen=True)
class _News:
    """The new state of a job, and its detail as JSON."""

    signature: _Signature
    detail: str


@dataclass(frozen=True)
class _Look:
    """What one look into the database found: changed jobs, the runs of unanswered ones, jobs and keys that are gone.

    `claims` has, by the jobs' ids, the run that is to answer each, and whether it has claimed the job.
    """

    changed: Mapping[str, _News]
    claims: Mapping[str, tuple[str, bool]]
    deleted: Set[str]
    revoked: Set[str]


class JobWatcher:
    """Tells the open streams of this process what becomes of their jobs.

    One look asks for all jobs in one query, and for all runs Prefect knows in two requests; both in threads and with a
    connection of its own, so that neither requests nor streams wait for the other. Between the looks, a stream holds
    nothing but its socket.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._streams = set[_Stream]()
        self._threads = CapacityLimiter(2)
        self._task: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None
        self._runs, self._runs_at = Runs(), 0.0
        self._claims: Mapping[str, tuple[str, bool]] = {}
        self._asked_at = self._keys_checked_at = 0.0
        self._is_closed = False

    def close(self) -> None:
        """End all streams; their clients may connect again after the restart."""
        self._is_closed = True
        for stream in self._streams:
            stream.end(None)

    async def follow(self, first: JobDetail, key_id: str) -> AsyncIterator[ServerSentEvent]:
        """Yield the state of a job, `first`, each change of it, and the end; the stream was opened with a key."""
        stream = _Stream(first.job_id, key_id, _sign(first))
        yield ServerSentEvent(event="job", raw_data=first.model_dump_json())
        if first.outcome:
            stream.end(EndReason.ANSWERED)
        if self._is_closed:
            stream.end(None)
        self._streams.add(stream)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look_after_all())
        try:
            while True:
                await stream.has_news.wait()
                stream.has_news.clear()
                detail, stream.detail = stream.detail, None
                if detail:
                    yield ServerSentEvent(event="job", raw_data=detail)
                if stream.is_over and not stream.detail:
                    break
            if stream.reason:
                yield ServerSentEvent(event="end", data=EndOfEvents(reason=stream.reason))
        finally:
            self._streams.discard(stream)

    async def _look_after_all(self) -> None:
        while self._streams and not self._is_closed:
            try:
                await self._look()
            except UnavailableError:
                pass  # the database is away: the streams wait
            except Exception:
                _logger.exception("The jobs of open streams could not be read")
            if self._asking and not self._asking.done():
                await asyncio.wait({self._asking}, timeout=_LOOK_SECONDS)
            else:
                await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self) -> None:
        streams, runs_at = list(self._streams), self._runs_at
        seen: dict[str, set[_Signature]] = defaultdict(set)
        for stream in streams:
            seen[stream.job_id].add(stream.seen)
        keys = set[str]()
        if time.monotonic() - self._keys_checked_at >= _KEY_SECONDS:
            self._keys_checked_at, keys = time.monotonic(), {stream.key_id for stream in streams}
        found = await to_thread.run_sync(self._read, seen, keys, self._runs, limiter=self._threads)
        for stream in streams:
            news = found.changed.get(stream.job_id)
            is_older = stream.job_id in found.claims and runs_at < stream.opened_at
            if news and news.signature != stream.seen and not is_older:
                stream.seen, stream.detail = news.signature, news.detail
                stream.has_news.set()
            if stream.key_id in found.revoked:
                stream.end(EndReason.REVOKED)
            elif stream.job_id in found.deleted:
                stream.end(EndReason.DELETED)
            elif stream.seen.is_answered:
                stream.end(EndReason.ANSWERED)
        self._ask_prefect(found.claims)

    def _read(self, seen: Mapping[str, Set[_Signature]], key_ids: Set[str], runs: Runs) -> _Look:
        """Read the watched jobs, of which streams have seen these states, and check the keys."""
        with translate_database_errors(), Session(self._services.engine) as session:
            jobs = session.exec(select(Job).where(col(Job.id).in_(seen))).all()
            valid = set[str]()
            if key_ids:
                query = select(ApiKey.id).where(col(ApiKey.id).in_(key_ids), col(ApiKey.revoked_at).is_(None))
                valid = set(session.exec(query))
            unanswered = [job for job in jobs if not job.outcome]
            known = [job for job in jobs if job.outcome or not job.run_id or job.run_id in runs.asked]
            changed = [job for job in known if seen[job.id] != {_sign_job(job, runs)}]
            details = build_job_details(session, self._services, changed, runs) if changed else []
            return _Look(
                changed={each.job_id: _News(_sign(each), each.model_dump_json()) for each in details},
                claims={job.id: (job.run_id, bool(job.claiming_run_id)) for job in unanswered if job.run_id},
                deleted=seen.keys() - {job.id for job in jobs},
                revoked=key_ids - valid,
            )

    def _ask_prefect(self, claims: Mapping[str, tuple[str, bool]]) -> None:
        """Ask for the runs, in another task, unless that was done within the last second and no other run has come."""
        if not claims:
            self._runs = Runs()
        is_due = time.monotonic() - self._asked_at >= _PREFECT_SECONDS or claims != self._claims
        is_asking = self._asking is not None and not self._asking.done()
        if claims and is_due and not is_asking:
            self._claims, self._asked_at = claims, time.monotonic()
            run_ids = {run_id for run_id, _ in claims.values()}
            self._asking = asyncio.create_task(self._read_runs(run_ids))

    async def _read_runs(self, run_ids: Set[str]) -> None:
        started = time.monotonic()
        self._runs = await to_thread.run_sync(read_runs, self._services.prefect, run_ids, limiter=self._threads)
        self._runs_at = started
