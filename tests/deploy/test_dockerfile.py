import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.deploy.deployment_files import DEPLOY, ROOT

TEXT = (DEPLOY / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
COPIED = [word for line in re.findall(r"^COPY (?!--)(.+) \S+$", TEXT, re.MULTILINE) for word in line.split()]


def test_hadolint_finds_nothing() -> None:
    program = Path(sys.executable).with_name("hadolint")
    checked = subprocess.run([program, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert [name for name in COPIED if not (ROOT / name).exists()] == []
    assert {line[1:] for line in ignored if line.startswith("!")} == set(COPIED)


def test_every_package_is_copied() -> None:
    packages = {name.rstrip("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages <= set(COPIED)


def test_the_image_has_the_extras_of_a_team() -> None:
    extras = re.findall(r"--extra (\w+)", TEXT)
    assert extras == ["postgresql", "s3"]
    assert set(extras) <= set(PROJECT["project"]["optional-dependencies"])


def test_versions_are_those_of_the_project() -> None:
    pythons = set(re.findall(r"^FROM python:([\d.]+)-slim", TEXT, re.MULTILINE))
    (torch,) = (Requirement(each) for each in PROJECT["project"]["dependencies"] if each.startswith("torch"))
    assert len(pythons) == 1
    assert pythons.pop() in SpecifierSet(PROJECT["project"]["requires-python"])
    assert re.findall(r"^ARG TORCH=(.+)$", TEXT, re.MULTILINE)[0] in torch.specifier
    uv = re.findall(r"^FROM ghcr.io/astral-sh/uv:(\S+)", TEXT, re.MULTILINE)[0]
    assert f"uv=={uv} " in (ROOT / "requirements.lock").read_text()


def test_the_tag_of_the_image_is_the_version_of_the_project() -> None:
    version = PROJECT["project"]["version"]
    assert f"--tag contract-feedback:{version} " in TEXT
    assert f"image: contract-feedback:${{VERSION:-{version}}}\n" in (DEPLOY / "compose.yaml").read_text()
    assert f"\nVERSION={version}\n" in (DEPLOY / ".env.example").read_text()
    assert f"newTag: {version}\n" in (DEPLOY / "kubernetes" / "kustomization.yaml").read_text()


def test_the_image_does_not_run_as_root() -> None:
    *_, user = re.findall(r"^USER (\d+):\d+$", TEXT, re.MULTILINE)
    assert int(user) > 0
    assert f"--uid {user} " in TEXT
