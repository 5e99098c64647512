"""The files in `deploy/`, and the processes that they describe."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from dotenv import dotenv_values

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
INSTALLATION = dotenv_values(ROOT / "cli" / "installation.env")


@dataclass(frozen=True)
class Process:
    """A process of a file: its name there, its command, and the variables that the file gives it."""

    place: str
    command: list[str]
    variables: dict[str, str]

    @property
    def name(self) -> str:
        """What runs: `contract-feedback worker`, or `mlflow server`."""
        return " ".join(self.command[:2])


def read_compose() -> dict[str, Any]:
    """Return the Compose file, with `${…}` as they are."""
    compose: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return compose


def read_manifests() -> list[dict[str, Any]]:
    """Return all of Kubernetes' objects, with the example of the Secrets."""
    files = set((DEPLOY / "kubernetes").glob("*.yaml")) - {DEPLOY / "kubernetes" / "secret.yaml"}
    return [each for file in sorted(files) for each in yaml.safe_load_all(file.read_text()) if each]


def list_pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """List the kind and name of what runs pods, and the specification of these."""
    for manifest in read_manifests():
        if "template" in manifest.get("spec", {}):
            yield f"{manifest['kind']} {manifest['metadata']['name']}", manifest["spec"]["template"]["spec"]


def read_unit(file: Path) -> dict[str, list[str]]:
    """Return the values of each key of a systemd unit."""
    values: dict[str, list[str]] = {}
    for line in file.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            values.setdefault(key, []).append(value)
    return values


def list_processes() -> list[Process]:
    """List the processes of the Compose file, of Kubernetes and of systemd that run from our image or environment."""
    ours = ("contract-feedback", "prefect", "mlflow")
    processes = [*_list_services(), *_list_containers(), *_list_units()]
    return [process for process in processes if process.command[0] in ours]


def _list_services() -> Iterator[Process]:
    for name, service in read_compose()["services"].items():
        installation = INSTALLATION if service.get("env_file") == "../cli/installation.env" else {}
        yield Process(f"compose {name}", service.get("command", [""]), installation | service.get("environment", {}))


def _list_containers() -> Iterator[Process]:
    manifests = read_manifests()
    values = {
        (each["kind"], each["metadata"]["name"]): each.get("data", {}) | each.get("stringData", {})
        for each in manifests
        if each["kind"] in {"ConfigMap", "Secret"}
    }
    kinds = {"configMapRef": "ConfigMap", "secretRef": "Secret"}
    for name, pod in list_pods():
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            variables = {each["name"]: each["value"] for each in container.get("env", [])}
            for source in container["envFrom"]:
                ((kind, reference),) = source.items()
                variables |= values[kinds[kind], reference["name"]]
            yield Process(f"kubernetes {name} {container['name']}", container["command"], variables)


def _list_units() -> Iterator[Process]:
    folder = DEPLOY / "systemd"
    common = read_unit(folder / "contract-feedback-.service.d" / "common.conf")
    files = {
        "/etc/contract-feedback/installation.env": INSTALLATION,
        "/etc/contract-feedback/contract-feedback.env": dotenv_values(folder / "contract-feedback.env.example"),
    }
    given: dict[str, Any] = {}
    for name in common["EnvironmentFile"]:
        given |= files[name]
    for file in sorted(folder.glob("*.service")):
        unit = read_unit(file)
        own = dict(pair.split("=", 1) for value in unit["Environment"] for pair in shlex.split(value))
        for command in unit["ExecStart"]:
            program, *arguments = shlex.split(command.replace("%i", "8001"))
            yield Process(f"systemd {file.name}", [Path(program).name, *arguments], given | own)
