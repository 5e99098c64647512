import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from tests.deploy.deployment_files import DEPLOY, INSTALLATION, list_pods, read_manifests

FOLDER = DEPLOY / "kubernetes"
VERSION = "1.35"
MANIFESTS = [each for each in read_manifests() if each["kind"] != "Kustomization"]
PODS = dict(list_pods())

with_each_pod = pytest.mark.parametrize("pod", PODS.values(), ids=PODS)


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda each: f"{each['kind']} {each['metadata']['name']}")
def test_a_manifest_follows_the_schema(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_kustomize_builds_all_of_it(tmp_path: Path) -> None:
    kubectl = shutil.which("kubectl")
    if not kubectl:
        pytest.skip("Not installed: kubectl")
    folder = shutil.copytree(FOLDER, tmp_path / "kubernetes")
    shutil.copy(folder / "secret.example.yaml", folder / "secret.yaml")
    built = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert built.stdout.count("\nkind: ") + built.stdout.startswith("kind: ") == len(MANIFESTS)


@with_each_pod
def test_a_pod_has_the_least_rights(pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"USER {pod['securityContext']['runAsUser']}:" in (DEPLOY / "Dockerfile").read_text()
    assert pod["automountServiceAccountToken"] is False
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@with_each_pod
def test_a_pod_does_not_take_the_variables_of_services_for_settings(pod: dict[str, Any]) -> None:
    assert pod["enableServiceLinks"] is False  # else MLFLOW_PORT is tcp://…, and the server does not start


def test_the_configuration_is_that_of_the_files_it_repeats() -> None:
    maps = {each["metadata"]["name"]: each["data"] for each in MANIFESTS if each["kind"] == "ConfigMap"}
    original = (DEPLOY / "mlflow" / "authentication.ini").read_text()
    lines = [line for line in original.splitlines() if not line.startswith(";")]
    assert maps["installation"] == INSTALLATION
    assert maps["mlflow"]["authentication.ini"].splitlines() == lines


def test_a_service_reaches_the_pods_of_its_name() -> None:
    deployments = {each["metadata"]["name"]: each["spec"] for each in MANIFESTS if each["kind"] == "Deployment"}
    services = [each for each in MANIFESTS if each["kind"] == "Service"]
    assert {each["metadata"]["name"] for each in services} == {"api", "prefect", "mlflow"}
    for service in services:
        deployment = deployments[service["metadata"]["name"]]
        assert deployment["template"]["metadata"]["labels"] == service["spec"]["selector"]
        assert deployment["selector"]["matchLabels"] == service["spec"]["selector"]
