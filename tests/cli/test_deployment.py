import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient, SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolUpdate
from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Pending, Running
from prefect.utilities.templating import resolve_block_document_references

from cli.deployment import crash_unfinished_runs, deploy
from cli.installation import Stack
from cli.pool_type import PoolType
from feedback.automations import build_automations
from feedback.time_limits import TimeLimits
from flows.warm.client import SOCKET_VARIABLE
from registry.settings import get_settings
from tests.faults import wait_until

COMMAND = (sys.executable, "-m", "cli.command_line", "deploy")


@pytest.fixture
def set_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, str]], None]]:
    """A function that sets variables of the settings in this process until the end of the test."""

    def set_variables(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()

    yield set_variables
    get_settings.cache_clear()


def deploy_here(stack: Stack, *arguments: Any) -> None:
    """Deploy in this process, which has imported the flows; the command would take seconds to do so."""
    with temporary_settings({PREFECT_API_URL: f"{stack.prefect_url}/api"}):
        deploy(*arguments)


def run_command(stack: Stack, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = stack.environment | variables
    return subprocess.run([*COMMAND, *options], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_deploy_can_be_repeated(stack: Stack) -> None:
    deployed = run_command(stack)
    assert deployed.returncode == 0, deployed.stderr
    assert deployed.stdout == f"Deployed to {stack.prefect_url}/api\n"
    with SyncPrefectClient(f"{stack.prefect_url}/api") as prefect:
        deployment = prefect.read_deployment_by_name("learn-from-feedback/feedback").model_dump(mode="json")
        consolidation = prefect.read_deployment_by_name("consolidate/consolidation").model_dump(mode="json")
        automations = sorted(automation.name for automation in prefect.read_automations())
        pool = prefect.read_work_pool("contract-feedback")
    assert (pool.type, pool.concurrency_limit) == ("process", None)
    assert automations == [
        "Crash a run of consolidate/consolidation that does not begin",
        "Crash a run of consolidate/consolidation that is silent",
        "Crash a run of learn-from-feedback/feedback that does not begin",
        "Crash a run of learn-from-feedback/feedback that is silent",
    ]
    assert deployment["description"].startswith("Fine-tunes")
    assert deployment["entrypoint"] == "flows.feedback.learn_from_feedback"
    assert deployment["job_variables"] == {"command": "python3 -m flows.warm.client"}
    assert deployment["work_pool_name"] == "contract-feedback"
    assert deployment["global_concurrency_limit"]["limit"] == 1
    assert deployment["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    assert "required" not in deployment["parameter_openapi_schema"], "A run by hand needs no parameter"
    assert not deployment["pull_steps"]
    assert consolidation["description"].startswith("Fits a model")
    assert consolidation["entrypoint"] == "flows.consolidation.consolidate"
    assert consolidation["job_variables"] == {"command": "python3 -m flows.background"}
    assert consolidation["work_pool_name"] == "contract-feedback"
    assert consolidation["global_concurrency_limit"]["limit"] == 1
    assert consolidation["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert not consolidation["parameter_openapi_schema"]["properties"]
    assert deployment["tags"] == consolidation["tags"] == ["contract-feedback"]


@pytest.mark.slow
def test_silent_runs_are_crashed_and_those_of_another_deployment_are_not(stack: Stack) -> None:
    soon = TimeLimits().model_copy(update={"silence_seconds": 10, "start_seconds": 10})
    with SyncPrefectClient(f"{stack.prefect_url}/api") as prefect:
        flow = prefect.create_flow_from_name("silent")
        own, other = (prefect.create_deployment(flow, name) for name in ("own", "other"))
        automations = [prefect.create_automation(built) for built in build_automations(soon, "silent/own", own)]

        def start_silent_runs(deployment: UUID) -> list[UUID]:
            runs = [prefect.create_flow_run_from_deployment(deployment).id for _ in range(2)]
            for run_id, state in zip(runs, (Running, Pending), strict=True):
                prefect.set_flow_run_state(run_id, state(), force=True)
            return runs

        def read_states(runs: list[UUID]) -> list[str | None]:
            return [prefect.read_flow_run(run_id).state_name for run_id in runs]

        others, owns = start_silent_runs(other), start_silent_runs(own)
        wait_until(lambda: read_states(owns) == ["Crashed", "Crashed"])
        time.sleep(1)
        assert read_states(others) == ["Running", "Pending"]
        for automation in automations:
            prefect.delete_automation(automation)


def test_runs_that_an_installation_left_unfinished_are_crashed_and_others_are_not(
    stack: Stack, set_variables: Callable[[dict[str, str]], None]
) -> None:
    set_variables(
        {
            "CONTRACT_FEEDBACK_DEPLOYMENT": "stopped/feedback",
            "CONTRACT_FEEDBACK_CONSOLIDATION_DEPLOYMENT": "stopped/consolidation",
        }
    )
    with SyncPrefectClient(f"{stack.prefect_url}/api") as prefect:
        flow = prefect.create_flow_from_name("stopped")
        own, too, other = (prefect.create_deployment(flow, name) for name in ("feedback", "consolidation", "other"))
        runs = [prefect.create_flow_run_from_deployment(each).id for each in (own, own, too, other, own)]
        for run_id, state in zip(runs[:4], (Running, Pending, Running, Running), strict=True):
            prefect.set_flow_run_state(run_id, state(), force=True)
        with temporary_settings({PREFECT_API_URL: f"{stack.prefect_url}/api"}):
            crash_unfinished_runs()
        states = [prefect.read_flow_run(run_id).state_name for run_id in runs]
    assert states == ["Crashed", "Crashed", "Crashed", "Running", "Scheduled"]


@pytest.mark.slow
def test_deploy_replaces_the_automations_of_a_deployment_created_anew_and_those_of_an_earlier_commit(
    stack: Stack,
) -> None:
    with SyncPrefectClient(f"{stack.prefect_url}/api") as prefect:
        [earlier, _] = build_automations(TimeLimits(), "every/flow", UUID(int=0))
        prefect.create_automation(earlier.model_copy(update={"name": "Crash a run that is silent"}))
        prefect.delete_deployment(prefect.read_deployment_by_name("consolidate/consolidation").id)
        deploy_here(stack)
        found = {automation.name: automation.model_dump_json() for automation in prefect.read_automations()}
        created = prefect.read_deployment_by_name("consolidate/consolidation").id
    assert len(found) == 4
    assert f"prefect.deployment.{created}" in found["Crash a run of consolidate/consolidation that is silent"]


@pytest.mark.slow
def test_second_installation_on_a_server_has_deployments_automations_and_a_pool_of_its_own(
    stack: Stack, set_variables: Callable[[dict[str, str]], None]
) -> None:
    second = {
        "CONTRACT_FEEDBACK_DEPLOYMENT": "learn-from-feedback/second",
        "CONTRACT_FEEDBACK_CONSOLIDATION_DEPLOYMENT": "consolidate/second",
        "CONTRACT_FEEDBACK_WORK_POOL": "second",
    }
    environment = stack.environment | second
    set_variables(second)
    deploy_here(stack)
    worker = subprocess.Popen([sys.executable, "-m", "flows.warm.worker"], env=environment, stderr=subprocess.DEVNULL)
    with SyncPrefectClient(f"{stack.prefect_url}/api") as prefect:
        wait_until(lambda: len(prefect.read_workers_for_work_pool("second")) == 1)
        worker.kill()
        worker.wait()
        for flow in ("learn-from-feedback", "consolidate"):
            deployment = prefect.read_deployment_by_name(f"{flow}/second")
            assert deployment.work_pool_name == "second"
            for name in (f"Crash a run of {flow}/second that {ending}" for ending in ("is silent", "does not begin")):
                [automation] = prefect.read_automations_by_name(name)
                prefect.delete_automation(automation.id)
            prefect.delete_deployment(deployment.id)
        prefect.delete_work_pool("second")


@pytest.mark.slow
def test_schedule_that_somebody_gave_the_consolidation_survives_a_deploy(stack: Stack) -> None:
    new_year = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 0 1 1 *", timezone="UTC"), active=False)
    with SyncPrefectClient(f"{stack.prefect_url}/api") as prefect:
        deployment = prefect.read_deployment_by_name("consolidate/consolidation").id
        [created] = prefect.create_deployment_schedules(deployment, [new_year])
        deploy_here(stack)
        [kept] = prefect.read_deployment_schedules(deployment)
        assert (kept.schedule, kept.active) == (created.schedule, False)
        prefect.delete_deployment_schedule(deployment, kept.id)


@pytest.mark.slow
def test_deploy_without_an_address_or_to_one_that_does_not_answer_is_refused(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment["PREFECT_HOME"] = str(tmp_path)
    nowhere = {"PREFECT_API_URL": "http://127.0.0.1:1/api"}
    for variables, reason in (({}, "Set PREFECT_API_URL"), (nowhere, "127.0.0.1:1/api refuses or does not answer")):
        refused = subprocess.run(
            COMMAND, env=environment | variables, capture_output=True, text=True, timeout=60, check=False
        )
        assert refused.returncode == 2
        assert reason in refused.stderr
        assert "Traceback" not in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", [PoolType.DOCKER, PoolType.KUBERNETES])
def test_runs_in_containers_get_an_image_and_the_variables_whose_values_prefect_does_not_show(
    stack: Stack, set_variables: Callable[[dict[str, str]], None], kind: PoolType
) -> None:
    names = {
        "CONTRACT_FEEDBACK_DEPLOYMENT": f"learn-from-feedback/{kind}",
        "CONTRACT_FEEDBACK_CONSOLIDATION_DEPLOYMENT": f"consolidate/{kind}",
    }
    secrets = {"CONTRACT_FEEDBACK_DATABASE_URL": "postgresql+psycopg://ana:hidden@db/x", "AWS_SECRET_ACCESS_KEY": "too"}
    set_variables(names | secrets)
    done = run_command(stack, "--work-pool", kind, "--type", kind, "--image", "ours:1", **names, **secrets)
    assert done.returncode == 0, done.stderr
    deploy_here(stack, kind.value, kind, "ours:1")
    with SyncPrefectClient(f"{stack.prefect_url}/api") as prefect:
        pool = prefect.read_work_pool(kind)
        assert pool.type == kind
        assert "image" in pool.base_job_template["job_configuration"] or kind == PoolType.KUBERNETES
        for flow in ("learn-from-feedback", "consolidate"):
            deployment = prefect.read_deployment_by_name(f"{flow}/{kind}")
            assert deployment.work_pool_name == kind
            assert deployment.job_variables["image"] == "ours:1"
            assert "command" not in deployment.job_variables
            assert "hidden" not in deployment.model_dump_json()
            resolved = asyncio.run(resolve(stack, deployment.job_variables))
            for automation in prefect.read_automations():
                if deployment.name in automation.name:
                    prefect.delete_automation(automation.id)
            prefect.delete_deployment(deployment.id)
        prefect.delete_work_pool(kind)
    assert secrets.items() < resolved["env"].items()
    assert resolved["env"]["OMP_WAIT_POLICY"] == "PASSIVE"
    assert resolved["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    assert SOCKET_VARIABLE not in resolved["env"]


async def resolve(stack: Stack, variables: dict[str, Any]) -> dict[str, Any]:
    """Replace references to blocks by their values, as a worker does."""
    async with PrefectClient(f"{stack.prefect_url}/api") as client:
        return dict(await resolve_block_document_references(variables, client=client))


@pytest.mark.slow
def test_pool_of_another_type_and_a_container_without_an_image_are_refused(stack: Stack) -> None:
    other = run_command(stack, "--type", "docker", "--image", "ours:1")
    assert other.returncode == 2
    said = " ".join(other.stderr.replace("│", "").split())
    assert "The work pool contract-feedback is of the type process, not docker: choose another name" in said
    assert "need --image" in " ".join(run_command(stack, "--type", "docker").stderr.split())


@pytest.mark.slow
def test_job_template_and_pause_that_somebody_gave_the_pool_survive_a_deploy(stack: Stack) -> None:
    with SyncPrefectClient(f"{stack.prefect_url}/api") as prefect:
        template = prefect.read_work_pool("contract-feedback").base_job_template
        changed = {**template, "variables": {**template["variables"], "description": "changed"}}
        prefect.update_work_pool("contract-feedback", WorkPoolUpdate(base_job_template=changed, is_paused=True))
        deploy_here(stack)
        pool = prefect.read_work_pool("contract-feedback")
        prefect.update_work_pool("contract-feedback", WorkPoolUpdate(base_job_template=template, is_paused=False))
    assert pool.base_job_template["variables"]["description"] == "changed"
    assert pool.is_paused
