"""What an installation needs on the Prefect server: work pool, deployment, automations."""

from importlib.resources import files
from typing import Any

import yaml  # type: ignore[import-untyped]
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.deployments.runner import RunnerDeployment
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.types.entrypoint import EntrypointType
from prefect.workers.process import ProcessWorker

from feedback.automations import build_automations
from feedback.time_limits import TimeLimits


def deploy() -> None:
    """Create or update work pool, deployment and automations on the server that Prefect's settings name.

    The deployment is the one in `prefect.yaml`, as `prefect deploy --all` creates it. Raises httpx.HTTPError if the
    server does not answer or refuses something.
    """
    [deployment] = yaml.safe_load((files("flows") / "prefect.yaml").read_text())["deployments"]
    pool = deployment["work_pool"]
    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as prefect:
        prefect.create_work_pool(
            WorkPoolCreate(name=pool["name"], type=ProcessWorker.type, base_job_template=template), overwrite=True
        )
        flow: Flow[..., Any] = load_flow_from_entrypoint(deployment["entrypoint"])
        RunnerDeployment.from_flow(
            flow,
            deployment["name"],
            description=deployment["description"],
            concurrency_limit=ConcurrencyLimitConfig(**deployment["concurrency_limit"]),
            work_pool_name=pool["name"],
            job_variables=pool["job_variables"],
            entrypoint_type=EntrypointType.MODULE_PATH,
        ).apply()
        for automation in build_automations(TimeLimits()):
            for earlier in prefect.read_automations_by_name(automation.name):
                prefect.delete_automation(earlier.id)
            prefect.create_automation(automation)
