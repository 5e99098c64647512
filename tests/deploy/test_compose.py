import re
import subprocess
import sys
from pathlib import Path

from dotenv import dotenv_values

from registry.settings import Settings
from tests.deploy.deployment_files import DEPLOY, read_compose

COMPOSE = DEPLOY / "compose.yaml"
SERVICES = read_compose()["services"]
VARIABLES = dict(re.findall(r"\$\{(\w+)(:-[^}]*|:\?)?\}", COMPOSE.read_text()))


def test_the_file_follows_the_specification_of_compose() -> None:
    program = Path(sys.executable).with_name("check-jsonschema")
    checked = subprocess.run(
        [program, "--builtin-schema", "vendor.compose-spec", COMPOSE], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


def test_the_example_has_each_variable_and_no_other() -> None:
    assert set(dotenv_values(DEPLOY / ".env.example")) == set(VARIABLES)


def test_nothing_starts_with_the_example_alone() -> None:
    example = dotenv_values(DEPLOY / ".env.example")
    empty = {name for name, value in example.items() if not value}
    assert empty == {name for name, rule in VARIABLES.items() if rule == ":?"}
    assert {name for name in example if name.endswith(("PASSWORD", "KEY"))} <= empty


def test_only_the_proxy_is_reachable_from_outside() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["proxy"]
    assert not {"front", "default"} & set(SERVICES["postgres"]["networks"] + SERVICES["s3"]["networks"])


def test_each_image_has_a_version() -> None:
    tags = {service["image"].rpartition(":")[2] for service in SERVICES.values()}
    assert all(re.search(r"\d", tag) for tag in tags), tags


def test_replicas_share_the_cache_alone() -> None:
    names = ("api-1", "api-2", "worker-1", "worker-2")
    for name in names:
        written = dict(volume.split(":") for volume in SERVICES[name]["volumes"] if not volume.endswith(":ro"))
        assert set(written) == {name, "cache"}
        assert SERVICES[name]["environment"]["CONTRACT_FEEDBACK_CACHE_FOLDER"] == written["cache"]
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert re.search(rf"install --directory --owner=10001 .* {written['cache']}\n", dockerfile), "Root would own it"


def test_what_a_service_waits_for_has_a_health_check_or_ends() -> None:
    for name, service in SERVICES.items():
        rules = service.get("depends_on", {})
        for other, rule in rules.items() if isinstance(rules, dict) else ():
            if rule["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], f"{name} waits for {other}"
            elif rule["condition"] == "service_completed_successfully":
                assert SERVICES[other]["restart"] == "on-failure", f"{name} waits for {other}"


def test_the_proxy_takes_what_the_api_takes() -> None:
    (megabytes,) = re.findall(r"max_size (\d+)MB", (DEPLOY / "Caddyfile").read_text())
    assert int(megabytes) * 1_000_000 > Settings.model_fields["max_upload_bytes"].default
