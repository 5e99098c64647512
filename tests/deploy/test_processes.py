"""What the files in `deploy/` run: commands that exist, with variables that are read."""

from collections.abc import Mapping

import click
import pytest
import typer
from mlflow.cli import cli as mlflow

from cli.command_line import app
from feedback.time_limits import TimeLimits
from registry.settings import Settings
from tests.deploy.deployment_files import (
    DEPLOY,
    INSTALLATION,
    Process,
    list_pods,
    list_processes,
    read_compose,
    read_unit,
)

PROCESSES = list_processes()
PROGRAMS: Mapping[str, click.Group] = {"contract-feedback": typer.main.get_command(app), "mlflow": mlflow}  # type: ignore[dict-item]
OPTIONS_OF_PREFECT = ["--host", "--port"]

with_each = pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.place)


def test_each_kind_of_process_is_found_in_each_folder() -> None:
    found = {(process.place.split()[0], process.name) for process in PROCESSES}
    kinds = (
        "contract-feedback api",
        "contract-feedback worker",
        "contract-feedback migrate",
        "contract-feedback deploy",
    )
    names = (*kinds, "prefect server", "mlflow server")
    assert found == {(place, name) for place in ("compose", "kubernetes", "systemd") for name in names}


@with_each
def test_a_command_and_its_options_exist(process: Process) -> None:
    program, *arguments = process.command
    if program == "prefect":
        assert [argument for argument in arguments if argument.startswith("--")] == OPTIONS_OF_PREFECT
        return
    context = PROGRAMS[program].make_context(program, arguments[:1])
    name, command, _ = PROGRAMS[program].resolve_command(context, arguments[:1])
    assert command is not None
    command.make_context(name, arguments[1:], parent=context)


@with_each
def test_a_variable_of_ours_is_a_setting(process: Process) -> None:
    settings = {f"CONTRACT_FEEDBACK_{name.upper()}" for name in (*Settings.model_fields, *TimeLimits.model_fields)}
    assert {name for name in process.variables if name.startswith("CONTRACT_FEEDBACK_")} <= settings


@with_each
def test_every_process_has_the_variables_of_an_installation(process: Process) -> None:
    assert INSTALLATION.items() <= process.variables.items()


@pytest.mark.parametrize("place", ["compose", "kubernetes", "systemd"])
def test_a_worker_has_all_that_the_api_has(place: str) -> None:
    api, worker = (
        next(each for each in PROCESSES if each.place.startswith(place) and each.name == f"contract-feedback {kind}")
        for kind in ("api", "worker")
    )
    assert set(api.variables) - set(worker.variables) <= {"FORWARDED_ALLOW_IPS"}  # uvicorn's


@with_each
def test_prefect_and_mlflow_ask_for_a_password(process: Process) -> None:
    if process.name == "prefect server":
        assert process.variables["PREFECT_SERVER_API_AUTH_STRING"].startswith("admin:")
    if process.name == "mlflow server":
        assert process.command[process.command.index("--app-name") + 1] == "basic-auth"
        assert {"MLFLOW_AUTH_CONFIG_PATH", "MLFLOW_AUTH_ADMIN_PASSWORD"} <= set(process.variables)


def test_a_worker_may_end_its_run_before_it_is_killed() -> None:
    pods, unit = dict(list_pods()), read_unit(DEPLOY / "systemd" / "contract-feedback-worker.service")
    graces = {
        read_compose()["services"]["worker-1"]["stop_grace_period"].replace("1m", "60"),
        str(pods["Deployment worker"]["terminationGracePeriodSeconds"]),
        unit["TimeoutStopSec"][0],
    }
    assert graces == {"60"}
    assert TimeLimits().drain_seconds + 20 < 60
