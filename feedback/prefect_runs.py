"""What the service asks of Prefect: start the deployment, read its runs."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import State, StateType
from prefect.events.filters import EventFilter, EventOccurredFilter, EventResourceFilter
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.states import Cancelled, Crashed

from api.schemas import JobStatus
from registry.errors import UnavailableError
from registry.settings import Settings
from registry.tables import Job

_STATUS = {
    StateType.SCHEDULED: JobStatus.PENDING,
    StateType.PENDING: JobStatus.PENDING,
    StateType.PAUSED: JobStatus.PENDING,
    StateType.RUNNING: JobStatus.RUNNING,
    StateType.CANCELLING: JobStatus.RUNNING,
    StateType.COMPLETED: JobStatus.COMPLETED,
    StateType.FAILED: JobStatus.FAILED,
    StateType.CRASHED: JobStatus.FAILED,
    StateType.CANCELLED: JobStatus.CANCELLED,
}
_PAGE = 200  # Prefect returns no more at once
_PATIENCE = timedelta(minutes=5)


@dataclass(frozen=True)
class RunState:
    """A flow run's state in the API's words, with Prefect's message, and since when it is in it."""

    status: JobStatus
    message: str | None = None
    since: datetime | None = None

    @property
    def is_old(self) -> bool:
        """Tell whether it has been so for longer than a run that sends nothing is left alone."""
        return self.since is not None and self.since < datetime.now(UTC) - _PATIENCE


@contextmanager
def _needs_prefect() -> Iterator[None]:
    """Raise UnavailableError where Prefect does not answer."""
    try:
        yield
    except httpx.HTTPError as error:
        raise UnavailableError("Prefect does not answer") from error


class PrefectRuns:
    """Prefect through its own client; every method raises UnavailableError where Prefect does not answer."""

    def __init__(self, client: SyncPrefectClient, settings: Settings) -> None:
        self._client, self._settings = client, settings

    @_needs_prefect()
    def start(self, job: Job, document_ids: Sequence[str]) -> str:
        """Start the deployment for a job and return the run's id; for the same attempt always the same run."""
        documents = f"{len(document_ids)} document{'s' * (len(document_ids) != 1)}"
        name = f"{job.type.replace('_', ' ')} on {documents} by {job.triggered_by}"
        request = {"job_id": job.id, "document_ids": list(document_ids), "triggered_by": job.triggered_by}
        try:
            deployment = self._client.read_deployment_by_name(self._settings.deployment)
            run = self._client.create_flow_run_from_deployment(
                deployment.id,
                name=name,
                parameters={"request": request},
                idempotency_key=f"{job.id} {job.attempts}",
                tags=[job.type],
            )
        except ObjectNotFound as error:
            raise UnavailableError(f"Prefect has no deployment {self._settings.deployment}: deploy it") from error
        return str(run.id)

    @_needs_prefect()
    def read_states(self, run_ids: Iterable[str]) -> dict[str, RunState]:
        """Return the states of those runs that Prefect still knows."""
        ids = [UUID(run_id) for run_id in run_ids]
        runs = []
        for first in range(0, len(ids), _PAGE):
            some = FlowRunFilter(id=FlowRunFilterId(any_=ids[first : first + _PAGE]))
            runs += self._client.read_flow_runs(flow_run_filter=some, limit=_PAGE)
        return {str(run.id): _describe(run.state) for run in runs if run.state}

    @_needs_prefect()
    def end_if_silent(self, run_id: str) -> None:
        """Crash a run that should be alive, or about to begin, but has sent nothing for five minutes.

        If somebody was cancelling it, it is cancelled.
        Prefect's automations do so within a minute, unless its server has lost the event that arms them.
        """
        of_run = EventResourceFilter(id=[f"prefect.flow-run.{run_id}"])
        recent = EventOccurredFilter(since=datetime.now(UTC) - _PATIENCE)
        if self._client.read_events(EventFilter(occurred=recent, resource=of_run), limit=1).events:
            return
        before = self._client.read_flow_run(UUID(run_id)).state
        end = Cancelled if before and before.is_cancelling() else Crashed
        ended: State[None] = end(message="Nothing was heard of it for five minutes: it died with its worker")
        self._client.set_flow_run_state(UUID(run_id), ended, force=True)

    @_needs_prefect()
    def read_progress(self, run_id: str) -> float:
        """Return how much of a run is done, in percent."""
        of_run = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(run_id)]), key=ArtifactFilterKey(any_=["progress"])
        )
        artifacts = self._client.read_artifacts(artifact_filter=of_run)
        return max((float(str(artifact.data)) for artifact in artifacts), default=0.0)

    def check_alive(self) -> None:
        """Raise UnavailableError unless Prefect answers."""
        if error := self._client.api_healthcheck():
            raise UnavailableError("Prefect does not answer") from error

    @_needs_prefect()
    def list_workers(self) -> list[str]:
        """Return the names of the workers that are online in the work pool."""
        try:
            workers = self._client.read_workers_for_work_pool(self._settings.work_pool)
        except ObjectNotFound:
            return []
        return [worker.name for worker in workers if worker.status == "ONLINE"]

    def run_url(self, run_id: str) -> str:
        """Return the address of a run in the Prefect UI."""
        return f"{str(get_current_settings().ui_url or '').rstrip('/')}/runs/flow-run/{run_id}"


def _describe(state: State) -> RunState:
    due = state.state_details.scheduled_time
    if state.type == StateType.SCHEDULED and due and due > datetime.now(UTC) + _PATIENCE:
        return RunState(
            JobStatus.FAILED, f"It is due only at {due:%Y-%m-%d %H:%M}: it was postponed, or the clock set back"
        )
    since = None if state.type == StateType.SCHEDULED else state.timestamp  # who waits for a worker may wait long
    return RunState(_STATUS[state.type], state.message, since)
