import os
import subprocess
import sys
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule

from cli.installation import Stack

COMMAND = (sys.executable, "-m", "cli.command_line", "deploy")


def test_deploy_can_be_repeated(stack: Stack) -> None:
    deployed = subprocess.run(COMMAND, env=stack.environment, capture_output=True, text=True, check=True)
    assert deployed.stdout == f"Deployed to {stack.prefect_url}/api\n"
    with SyncPrefectClient(f"{stack.prefect_url}/api") as prefect:
        deployment = prefect.read_deployment_by_name("learn-from-feedback/feedback").model_dump(mode="json")
        consolidation = prefect.read_deployment_by_name("consolidate/consolidation").model_dump(mode="json")
        automations = sorted(automation.name for automation in prefect.read_automations())
        pool = prefect.read_work_pool("contract-feedback")
    assert (pool.type, pool.concurrency_limit) == ("process", None)
    assert automations == ["Crash a run that does not begin", "Crash a run that is silent"]
    assert deployment["description"].startswith("Fine-tunes")
    assert deployment["entrypoint"] == "flows.feedback.learn_from_feedback"
    assert deployment["job_variables"] == {"command": "python3 -m flows.warm.client"}
    assert deployment["work_pool_name"] == "contract-feedback"
    assert deployment["global_concurrency_limit"]["limit"] == 1
    assert deployment["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    assert deployment["parameter_openapi_schema"]["required"] == ["request"]
    assert not deployment["pull_steps"]
    assert consolidation["description"].startswith("Fits a model")
    assert consolidation["entrypoint"] == "flows.consolidation.consolidate"
    assert consolidation["job_variables"] == {"command": "python3 -m flows.background"}
    assert consolidation["work_pool_name"] == "contract-feedback"
    assert consolidation["global_concurrency_limit"]["limit"] == 1
    assert consolidation["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert not consolidation["parameter_openapi_schema"]["properties"]
    assert deployment["tags"] == consolidation["tags"] == ["contract-feedback"]


def test_schedule_that_somebody_gave_the_consolidation_survives_a_deploy(stack: Stack) -> None:
    new_year = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 0 1 1 *", timezone="UTC"), active=False)
    with SyncPrefectClient(f"{stack.prefect_url}/api") as prefect:
        deployment = prefect.read_deployment_by_name("consolidate/consolidation").id
        [created] = prefect.create_deployment_schedules(deployment, [new_year])
        subprocess.run(COMMAND, env=stack.environment, capture_output=True, check=True)
        [kept] = prefect.read_deployment_schedules(deployment)
        assert (kept.schedule, kept.active) == (created.schedule, False)
        prefect.delete_deployment_schedule(deployment, kept.id)


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
