import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent


def test_lock_holds_every_dependency_with_hashes_at_a_version_that_fits() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["demo"], *extras["dev"], *extras["postgresql"]]
    lock = (ROOT / "requirements.lock").read_text()
    locked: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==(\S+).*\\\n    --hash=sha256:", lock, re.MULTILINE):
        locked.setdefault(canonicalize_name(name), set()).add(version)
    requirements = [Requirement(each) for each in asked]
    unfit = [
        str(requirement)
        for requirement in requirements
        if requirement.name not in {"torch", "contract-feedback"}
        and not any(map(requirement.specifier.contains, locked.get(canonicalize_name(requirement.name), ())))
    ]
    assert unfit == [], "make lock"
