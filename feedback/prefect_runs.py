"""Everything the service asks of Prefect: start the deployments, read their runs, crash a run that has died."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, State, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.filters import EventFilter, EventOccurredFilter, EventResourceFilter
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.states import Cancelled, Crashed

from feedback.job_state import JobStatus, RunState
from feedback.time_limits import TimeLimits, utc_now
from registry.errors import UnavailableError, translate_http_errors
from registry.neighbour import Neighbour
from registry.settings import Settings
from registry.tables import Job, JobType

PROGRESS_KEY = "progress"
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
_PAGE = 200  # flow runs that Prefect returns at most
_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")


def _needs_prefect(
    method: Callable[Concatenate["PrefectRuns", _Arguments], _Answer],
) -> Callable[Concatenate["PrefectRuns", _Arguments], _Answer]:
    """Raise UnavailableError if Prefect does not answer, at once while it hangs."""

    @wraps(method)
    def ask(self: "PrefectRuns", /, *arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Answer:
        with self._server.ask(), translate_http_errors("Prefect"):
            return method(self, *arguments, **options)

    return ask


class PrefectRuns:
    """The flow runs in Prefect; each method raises UnavailableError if Prefect does not answer."""

    def __init__(
        self,
        client: SyncPrefectClient,
        settings: Settings,
        limits: TimeLimits,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._client, self._settings, self._clock = client, settings, clock
        self._server = Neighbour("Prefect")
        self._missed_event_time = timedelta(seconds=limits.missed_event_seconds)

    @_needs_prefect
    def start(self, job: Job, document_ids: Sequence[str]) -> str:
        """Start the deployment for a job and return the run's id, the same until it fails, or its version is lost."""
        documents = f"{len(document_ids)} document{'s' * (len(document_ids) != 1)}"
        name = f"{job.type.replace('_', ' ')} on {documents} by {job.triggered_by}"
        if job.type == JobType.CONSOLIDATION:
            name = "hand over a consolidation"
        request = {"job_id": job.id, "document_ids": list(document_ids), "triggered_by": job.triggered_by}
        run = self._client.create_flow_run_from_deployment(
            self._get_deployment(self._settings.deployment).id,
            name=name,
            parameters={"request": request},
            idempotency_key=f"{job.id} {job.failures}{f' after {job.lost_version}' if job.lost_version else ''}",
            tags=[job.type],
        )
        return str(run.id)

    @_needs_prefect
    def start_consolidation(self, newest: Job) -> None:
        """Start a consolidation of what was learned up to the newest job, unless one was started for it before."""
        self._client.create_flow_run_from_deployment(
            self._get_deployment(self._settings.consolidation_deployment).id,
            name=f"consolidate what was learned up to job {newest.number}",
            idempotency_key=f"consolidation {newest.id}",
        )

    @_needs_prefect
    def start_unlearning(self, job: Job) -> str:
        """Start a consolidation for a request to unlearn, and return the run's id as `start` does."""
        run = self._client.create_flow_run_from_deployment(
            self._get_deployment(self._settings.consolidation_deployment).id,
            name=f"unlearn what was withdrawn up to job {job.number}",
            idempotency_key=f"{job.id} {job.failures}",
            tags=[job.type],
        )
        return str(run.id)

    @_needs_prefect
    def read_consolidations(self) -> dict[str, RunState]:
        """Return the states of the consolidations that are due and have not ended, by their ids."""
        deployment = self._get_deployment(self._settings.consolidation_deployment)
        not_ended = FlowRunFilterStateType(any_=[state for state in StateType if state not in TERMINAL_STATES])
        due = FlowRunFilterExpectedStartTime(before_=self._clock())  # a schedule creates its runs days before
        runs = self._client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=not_ended), expected_start_time=due),
        )
        return {str(run.id): self._describe(run.state) for run in runs if run.state}

    @_needs_prefect
    def read_states(self, run_ids: Iterable[str]) -> dict[str, RunState]:
        """Return the states of the runs that Prefect knows, by their ids."""
        ids = [UUID(run_id) for run_id in run_ids]
        runs = []
        for first in range(0, len(ids), _PAGE):
            some = FlowRunFilter(id=FlowRunFilterId(any_=ids[first : first + _PAGE]))
            runs += self._client.read_flow_runs(flow_run_filter=some, limit=_PAGE)
        return {str(run.id): self._describe(run.state) for run in runs if run.state}

    @_needs_prefect
    def end_if_silent(self, run_id: str, state: RunState) -> None:
        """Crash a run in this state if Prefect has had no event of it for too long; cancel it if it was cancelling.

        Prefect's automations do so much earlier, unless its server has lost the event that starts their timer.
        """
        now = self._clock()
        if state.since is None or state.since > now - self._missed_event_time:
            return
        of_run = EventResourceFilter(id=[f"prefect.flow-run.{run_id}"])
        recent = EventOccurredFilter(since=now - self._missed_event_time, until=now)
        if self._client.read_events(EventFilter(occurred=recent, resource=of_run), limit=1).events:
            return
        before = self._client.read_flow_run(UUID(run_id)).state
        end = Cancelled if before and before.is_cancelling() else Crashed
        message = f"No event for {self._missed_event_time.total_seconds():g} s: the run's process has died"
        ended: State[None] = end(message=message)
        self._client.set_flow_run_state(UUID(run_id), ended, force=True)

    @_needs_prefect
    def read_progress(self, run_ids: Sequence[str]) -> dict[str, float]:
        """Return how much of each run is done, in percent; at most 200 runs that show it."""
        of_runs = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(run_id) for run_id in run_ids]),
            key=ArtifactFilterKey(any_=[PROGRESS_KEY]),
        )
        progress = dict[str, float]()
        for artifact in self._client.read_artifacts(artifact_filter=of_runs, limit=_PAGE):
            run_id = str(artifact.flow_run_id)
            progress[run_id] = max(progress.get(run_id, 0.0), float(str(artifact.data)))
        return progress

    @_needs_prefect
    def check_alive(self) -> None:
        """Raise UnavailableError unless Prefect answers and has both deployments."""
        self._get_deployment(self._settings.deployment)
        self._get_deployment(self._settings.consolidation_deployment)

    @_needs_prefect
    def list_workers(self) -> list[str]:
        """Return the names of the online workers of the work pool."""
        try:
            workers = self._client.read_workers_for_work_pool(self._settings.work_pool)
        except ObjectNotFound:
            return []
        return [worker.name for worker in workers if worker.status == "ONLINE"]

    def get_url(self, run_id: str) -> str:
        """Return the address of a run in the Prefect UI."""
        return f"{str(get_current_settings().ui_url or '').rstrip('/')}/runs/flow-run/{run_id}"

    def _get_deployment(self, name: str) -> DeploymentResponse:
        """Return a deployment; raises UnavailableError if Prefect has none of this name."""
        try:
            return self._client.read_deployment_by_name(name)
        except ObjectNotFound as error:
            raise UnavailableError(f"Prefect has no deployment {name}: run `contract-feedback deploy`") from error

    def _describe(self, state: State) -> RunState:
        """Return the state; a run that is due only much later counts as failed, since its jobs would wait for it."""
        due = state.state_details.scheduled_time
        if state.type != StateType.SCHEDULED:
            return RunState(_STATUS[state.type], state.message, state.timestamp)
        if due and due > self._clock() + self._missed_event_time:
            late = f"The run is due only at {due:%Y-%m-%d %H:%M}: it was postponed, or the clock was set back"
            return RunState(JobStatus.FAILED, late)
        return RunState(JobStatus.PENDING, state.message)
