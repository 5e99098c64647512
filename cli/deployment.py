"""What an installation needs on the Prefect server: work pool, deployments, automations."""

from importlib.resources import files
from typing import Any

import yaml  # type: ignore[import-untyped]
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import ConcurrencyLimitConfig, State, StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.states import Crashed
from prefect.types.entrypoint import EntrypointType
from prefect.workers.process import ProcessWorker

from feedback.automations import build_automations
from feedback.time_limits import TimeLimits
from registry.settings import get_settings

_EARLIER_AUTOMATIONS = ("Crash a run that is silent", "Crash a run that does not begin")  # matched every flow


def deploy() -> None:
    """Create or update work pool, deployments and automations on the server that Prefect's settings name.

    The deployments are those in `prefect.yaml`, with the names and the work pool of the settings. They keep the
    schedules that somebody gave them. Raises httpx.HTTPError if the server does not answer or refuses something.
    """
    settings = get_settings()
    names = dict(name.split("/") for name in (settings.deployment, settings.consolidation_deployment))
    deployments = yaml.safe_load((files("flows") / "prefect.yaml").read_text())["deployments"]
    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as prefect:
        prefect.create_work_pool(
            WorkPoolCreate(name=settings.work_pool, type=ProcessWorker.type, base_job_template=template), overwrite=True
        )
        for name in _EARLIER_AUTOMATIONS:
            _delete_automations(prefect, name)
        for deployment in deployments:
            flow: Flow[..., Any] = load_flow_from_entrypoint(deployment["entrypoint"])
            name = names.get(flow.name, deployment["name"])
            full_name = f"{flow.name}/{name}"
            RunnerDeployment.from_flow(
                flow,
                name,
                description=deployment["description"],
                tags=deployment["tags"],
                schedules=_list_schedules(prefect, full_name),
                concurrency_limit=ConcurrencyLimitConfig(**deployment["concurrency_limit"]),
                work_pool_name=settings.work_pool,
                job_variables=deployment["work_pool"]["job_variables"],
                entrypoint_type=EntrypointType.MODULE_PATH,
            ).apply()
            deployment_id = prefect.read_deployment_by_name(full_name).id
            for automation in build_automations(TimeLimits(), full_name, deployment_id):
                _delete_automations(prefect, automation.name)
                prefect.create_automation(automation)


def crash_unfinished_runs() -> None:
    """Crash the runs of both deployments that have begun, when no worker runs: their processes are dead.

    Otherwise they hold the deployments' slots until they have been silent for long. Raises httpx.HTTPError.
    """
    settings = get_settings()
    begun = FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING, StateType.CANCELLING])
    with get_client(sync_client=True) as prefect:
        deployments = map(prefect.read_deployment_by_name, (settings.deployment, settings.consolidation_deployment))
        ids = DeploymentFilterId(any_=[deployment.id for deployment in deployments])
        for run in prefect.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=begun)),
            deployment_filter=DeploymentFilter(id=ids),
        ):
            crashed: State[None] = Crashed(message="The installation was stopped while this run was under way")
            prefect.set_flow_run_state(run.id, crashed, force=True)


def _delete_automations(prefect: SyncPrefectClient, name: str) -> None:
    for automation in prefect.read_automations_by_name(name):
        prefect.delete_automation(automation.id)


def _list_schedules(prefect: SyncPrefectClient, name: str) -> list[DeploymentScheduleCreate]:
    """Return the schedules of a deployment, none if it does not exist; an update without them would delete them."""
    try:
        existing = prefect.read_deployment_by_name(name)
    except ObjectNotFound:
        return []
    fields = set(DeploymentScheduleCreate.model_fields)
    return [DeploymentScheduleCreate(**schedule.model_dump(include=fields)) for schedule in existing.schedules]
