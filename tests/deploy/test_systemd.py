import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.deployment_files import DEPLOY

FOLDER = DEPLOY / "systemd"
UNITS = sorted(file.name.replace("@.", "@8001.") for file in FOLDER.glob("*.service"))

SYSTEMD_ANALYZE = shutil.which("systemd-analyze") or ""

pytestmark = pytest.mark.skipif(not SYSTEMD_ANALYZE, reason="Not installed: systemd")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the units, whose programs are those of this environment."""
    folder = tmp_path_factory.mktemp("systemd")
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    for file in folder.glob("*.service"):
        file.write_text(file.read_text().replace("/opt/contract-feedback/bin", str(Path(sys.executable).parent)))
    return folder


def analyze(folder: Path, *arguments: str) -> str:
    path = {"SYSTEMD_UNIT_PATH": f"{folder}:/lib/systemd/system:/usr/lib/systemd/system"}
    done = subprocess.run([SYSTEMD_ANALYZE, *arguments], env=path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_has_no_mistake(folder: Path, unit: str) -> None:
    assert analyze(folder, "--man=no", "verify", unit) == ""


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_protected(folder: Path, unit: str) -> None:
    (level,) = re.findall(
        r"Overall exposure level for .*: ([\d.]+)", analyze(folder, "security", "--offline=yes", unit)
    )
    assert float(level) < 2
