"""What an installation needs on the Prefect server: work pool, deployments, automations."""

import os
from importlib.resources import files
from typing import Any

import yaml  # type: ignore[import-untyped]
from prefect.blocks.system import Secret
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import ConcurrencyLimitConfig, State, StateType, WorkPool
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.states import Crashed
from prefect.types.entrypoint import EntrypointType
from prefect.workers.process import ProcessWorker

from cli.environment import read_installation_file
from cli.pool_type import PoolType
from feedback.automations import build_automations
from feedback.time_limits import TimeLimits
from registry.settings import Settings, get_settings

_EARLIER_AUTOMATIONS = ("Crash a run that is silent", "Crash a run that does not begin")  # matched every flow
_OF_STORES = ("AWS_", "MLFLOW_TRACKING_")  # how the variables start by which runs reach S3 and MLflow


def deploy(work_pool: str | None = None, kind: PoolType = PoolType.PROCESS, image: str = "") -> None:
    """Create or update work pool, deployments and automations on the server that Prefect's settings name.

    The deployments are those in `prefect.yaml`, with the names of the settings and, by default, their work pool. They
    keep the schedules that somebody gave them, and an existing work pool stays as it is. Runs in containers start cold
    from `image`, with this process's variables. Raises httpx.HTTPError if the server does not answer or refuses
    something, RuntimeError if the work pool is of another type.
    """
    settings = get_settings()
    work_pool = work_pool or settings.work_pool
    names = dict(name.split("/") for name in (settings.deployment, settings.consolidation_deployment))
    deployments = yaml.safe_load((files("flows") / "prefect.yaml").read_text())["deployments"]
    with get_client(sync_client=True) as prefect:
        pool = _get_work_pool(prefect, work_pool, kind)
        container = None if kind == PoolType.PROCESS else {"image": image, "env": _store_environment(pool)}
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
                work_pool_name=work_pool,
                job_variables=container or deployment["work_pool"]["job_variables"],
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


def _get_work_pool(prefect: SyncPrefectClient, name: str, kind: PoolType) -> WorkPool:
    """Return the work pool, created with Prefect's template for its type if there is none."""
    try:
        pool = prefect.read_work_pool(name)
    except ObjectNotFound:
        created = WorkPoolCreate(name=name, type=kind.value, base_job_template=_get_template(prefect, kind))
        return prefect.create_work_pool(created)
    if pool.type != kind.value:
        raise RuntimeError(
            f"The work pool {name} is of the type {pool.type}, not {kind.value}: choose another name with --work-pool "
            "and CONTRACT_FEEDBACK_WORK_POOL, or delete it in Prefect"
        )
    return pool


def _get_template(prefect: SyncPrefectClient, kind: PoolType) -> dict[str, Any]:
    """Return Prefect's job template of a type; the server knows those of collections that are not installed here."""
    if kind == PoolType.PROCESS:
        return ProcessWorker.get_default_base_job_template()
    collections = prefect.read_worker_metadata().values()
    template: dict[str, Any] = next(types[kind.value] for types in collections if kind.value in types)
    return dict(template["default_base_job_configuration"])


def _store_environment(pool: WorkPool) -> dict[str, str]:
    """Store this process's variables for runs in a secret block, and return references to its values.

    The deployment's page in Prefect shows the references alone; the worker resolves them when it starts a run.
    """
    fields = {f"CONTRACT_FEEDBACK_{name.upper()}" for kind in (Settings, TimeLimits) for name in kind.model_fields}
    variables = {name: value for name, value in os.environ.items() if name in fields or name.startswith(_OF_STORES)}
    variables |= read_installation_file() | {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(TimeLimits().heartbeat_seconds)}
    block = f"contract-feedback-{pool.id}"
    Secret(value=variables).save(block, overwrite=True)
    return {name: f"{{{{ prefect.blocks.secret.{block}.{name} }}}}" for name in variables}


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
