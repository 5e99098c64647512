"""The installation of `deploy/compose.yaml` without containers: each service runs as on a machine of its own.

A machine is a loopback address, a folder, and the processes that have the folder as HOME. In the files, names of
services are replaced by addresses, and paths of volumes by paths in the folder. A process has the environment that the
files give it, and PATH, HOME, TMPDIR, LANG and, for the release, PYTHONPATH.
"""

import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from random import SystemRandom
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import yaml  # type: ignore[import-untyped]
from dotenv import dotenv_values

from registry.keys import Scope
from tests.faults import wait_until
from tests.postgresql import find_programs

RELEASE = Path(__file__).parents[1]
DEPLOY = RELEASE / "deploy"
_PROGRAMS = {"setpriv": "util-linux", "wget": "wget"}
_DEFAULTS: dict[str, Any] = {"volumes": [], "command": [], "environment": {}, "depends_on": {}, "healthcheck": {}}
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*)|:\?)?\}")
_POSTGRESQL_DATA, _AS_NOBODY = "var/lib/postgresql/data", "setpriv --reuid=nobody --clear-groups"
_UNITS = {"s": 1, "m": 60}
_START_SECONDS, _TICK_SECONDS = 300, 0.5


def find_obstacle() -> str | None:
    """Return why the installation cannot run on this machine; None if it can."""
    missing = [package for program, package in _PROGRAMS.items() if not shutil.which(program)]
    missing += [] if find_programs() else ["postgresql"]
    if missing:
        return f"Not installed: apt-get install {' '.join(missing)}"
    return None if os.geteuid() == 0 else "Only root may listen on the proxy's ports"


class Machine:
    """The machine of one service; `hosts` has the addresses of all."""

    def __init__(self, name: str, service: dict[str, Any], folder: Path, hosts: dict[str, str]) -> None:
        service = _DEFAULTS | service
        self.name, self.address, self.folder, self._hosts = name, hosts[name], folder, hosts
        self.log = folder.parent / "logs" / f"{name}.log"
        self.release = RELEASE
        self.depends_on, self._is_job = service["depends_on"], service.get("restart") == "on-failure"
        self.process: subprocess.Popen[bytes] | None = None
        self._mounts = {target: source for source, target, *_ in (each.split(":") for each in service["volumes"])}
        self._command = [self._translate(argument) for argument in service["command"]]
        if self._command[:1] == ["weed"]:
            self._command += _list_own_sockets(folder)
        self._health_check = [self._translate(each) for each in service["healthcheck"].get("test", ["CMD", "true"])[1:]]
        grace = service.get("stop_grace_period", "10s")
        self._grace_seconds = int(grace[:-1]) * _UNITS[grace[-1]]
        variables = service["environment"]
        if "env_file" in service:
            variables = dotenv_values(DEPLOY / service["env_file"]) | variables
        self.environment = dict(self._translate(f"{key}={value}").split("=", 1) for key, value in variables.items())
        path = f"{Path(sys.executable).parent}:{find_programs()}:/usr/bin:/bin"
        self.environment |= {"PATH": path, "HOME": str(folder), "TMPDIR": str(folder / "tmp"), "LANG": "C.UTF-8"}

    def start(self) -> None:
        """Start the service with the code of `release`."""
        self._add_files()
        command = _prepare_postgresql(self) if "POSTGRES_USER" in self.environment else self._command
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig=TERM", *command],  # noqa: S607  (it ends with this thread)
                cwd=self.folder, env=self.environment | {"PYTHONPATH": str(self.release)},
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def run(self, *command: str, release: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run another command on this machine until it ends, as `docker compose run` does."""
        self._add_files()
        environment = self.environment | {"PYTHONPATH": str(release or self.release)}
        return subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_START_SECONDS,
            check=False,
        )

    def is_up(self) -> bool:
        """Tell whether the job is done, or the service healthy; raise AssertionError if it has exited otherwise."""
        code = self.process.poll() if self.process else None
        assert code is None or (code == 0 and self._is_job), f"{self.name} exited with {code}:\n{self.read_log()}"
        return code == 0 if self._is_job else self.run(*self._health_check).returncode == 0

    def wait(self) -> None:
        """Wait until it is up."""
        wait_until(self.is_up, _START_SECONDS)

    def stop(self) -> float:
        """Stop it as Docker does, and return the seconds; raise AssertionError if its grace period is too short."""
        assert self.process
        started = time.monotonic()
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(self._grace_seconds)
        took, has_ended = time.monotonic() - started, self.process.poll() is not None
        self.signal(signal.SIGKILL)
        assert has_ended, f"{self.name} did not stop within {self._grace_seconds} s:\n{self.read_log()}"
        return took

    def destroy(self) -> None:
        """Kill all its processes at once and delete its folder."""
        self.signal(signal.SIGKILL)
        shutil.rmtree(self.folder)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes; after SIGKILL, return when none is left."""
        while members := self.list_processes():
            for pid in members:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            if number != signal.SIGKILL:
                return
            time.sleep(0.01)
        if self.process:
            self.process.wait()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let it hang in this block: it accepts connections, and does not answer."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def list_processes(self) -> list[int]:
        """Return the ids of its processes, whatever has started them."""
        home, members = f"HOME={self.folder}\0".encode(), []
        for file in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                members += [int(file.parent.name)] * (home in file.read_bytes())
        return members

    def read_log(self) -> str:
        """Return the end of what it has printed."""
        return self.log.read_text()[-5000:]

    def _translate(self, text: str) -> str:
        """Replace the names of services, this machine's own addresses, and the paths of its volumes."""
        names = "|".join(self._hosts)
        host = rf"(?<![\w.-])({names})(?=:\d)|(?<=^PGHOST=)({names})$"
        text = re.sub(host, lambda match: self._hosts[match[0]], text)
        text = re.sub(r"0\.0\.0\.0|127\.0\.0\.1", self.address, text)
        for path in self._mounts:
            text = re.sub(rf"(?<![\w.-]){path}(?![\w-])", f"{self.folder}{path}", text)
        return text

    def _add_files(self) -> None:
        """Create the folders of this machine, and copy the files that are mounted, unless it has them."""
        if self.folder.exists():
            return
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        for target, source in self._mounts.items():
            file, here = DEPLOY / source, Path(f"{self.folder}{target}")
            (here.parent if file.is_file() else here).mkdir(parents=True, exist_ok=True)
            if file.is_file():
                text = self._translate(file.read_text())
                here.write_text(_bind_proxy(text, self.address) if file.name == "Caddyfile" else text)


class TeamInstallation:
    """All machines, by the names of their services."""

    def __init__(self, folder: Path, more_environment: Mapping[str, str]) -> None:
        text, random = (DEPLOY / "compose.yaml").read_text(), SystemRandom()
        network = f"127.{random.randrange(1, 255)}.{random.randrange(256)}"
        hosts = {name: f"{network}.{number}" for number, name in enumerate(yaml.safe_load(text)["services"], 1)}
        names = dotenv_values(DEPLOY / ".env.example").items()
        values = {name: value or f"s{secrets.token_hex(12)}" for name, value in names} | {"DOMAIN": hosts["proxy"]}
        services = yaml.safe_load(_VARIABLE.sub(lambda match: values.get(match[1]) or match[2], text))["services"]
        (folder / "logs").mkdir()
        self.machines = {name: Machine(name, services[name], folder / name, hosts) for name in services}
        for machine in self.machines.values():
            machine.environment |= more_environment
        self.api_key = ""

    def __getitem__(self, name: str) -> Machine:
        """Return the machine of a service."""
        return self.machines[name]

    def start(self) -> None:
        """Start each service when those that it depends on are as it needs them; return when all are up."""
        until, up = time.monotonic() + _START_SECONDS, set[str]()
        while len(up) < len(self.machines):
            for name, machine in self.machines.items():
                if machine.process is None and self._may_start(machine, up):
                    machine.start()
                elif machine.process and name not in up and machine.is_up():
                    up.add(name)
            assert time.monotonic() < until, f"Not up: {self.machines.keys() - up}"
            time.sleep(_TICK_SECONDS)
        scopes = [option for scope in Scope for option in ("--scope", scope)]
        self.api_key = self["api-1"].run("contract-feedback", "add-key", "ana", *scopes).stdout.strip()

    def get_url(self, name: str, port: int) -> str:
        """Return the address of a service."""
        return f"http://{self[name].address}:{port}"

    @property
    def proxy_url(self) -> str:
        """The API's address behind the proxy."""
        return f"https://{self['proxy'].address}"

    def find_certificate(self) -> Path:
        """Return the certificate of the proxy's own authority."""
        return next(self["proxy"].folder.rglob("root.crt"))

    def _may_start(self, machine: Machine, up: set[str]) -> bool:
        needs = machine.depends_on
        conditions = needs if isinstance(needs, dict) else {name: {"condition": "service_started"} for name in needs}
        return all(
            name in up or (need["condition"] == "service_started" and self[name].process)
            for name, need in conditions.items()
        )


@contextmanager
def run_team_installation(more_environment: Mapping[str, str] = MappingProxyType({})) -> Iterator[TeamInstallation]:
    """Run all services, with more variables than the files give them, until the block ends."""
    with TemporaryDirectory(prefix="team-") as folder:
        Path(folder).chmod(0o711)  # PostgreSQL runs as another user
        team = TeamInstallation(Path(folder), more_environment)
        try:
            team.start()
            yield team
        finally:
            for machine in reversed(team.machines.values()):
                machine.signal(signal.SIGKILL)


def _prepare_postgresql(machine: Machine) -> list[str]:
    """Initialise its data as the image does, unless there is some, and return the command of its server."""
    data, sockets, environment = machine.folder / _POSTGRESQL_DATA, machine.folder / "tmp", machine.environment
    user, database = environment["POSTGRES_USER"], environment["POSTGRES_DB"]
    scripts = sorted((machine.folder / "docker-entrypoint-initdb.d").iterdir())
    login, server = f"--username={user} --host={sockets}", f"-k {sockets} -c listen_addresses={machine.address}"
    if not (data / "PG_VERSION").exists():
        password = sockets / "password"
        password.write_text(environment["POSTGRES_PASSWORD"])
        for path in (data, sockets, password):
            shutil.chown(path, "nobody")
        options = f"--username={user} --pwfile={password} --auth-local=trust --auth-host=scram-sha-256 --no-sync"
        for command in (
            f"{_AS_NOBODY} initdb --pgdata={data} {options}",
            f"{_AS_NOBODY} pg_ctl start --wait --pgdata={data} --log={sockets}/log --options='{server}'",
            f"createdb {login} {database}",
            *(f"psql {login} --set=ON_ERROR_STOP=1 --file={script} {database}" for script in scripts),
            f"{_AS_NOBODY} pg_ctl stop --wait --pgdata={data}",
        ):
            subprocess.run(shlex.split(command), env=environment, cwd="/", check=True, stdout=subprocess.DEVNULL)
    return shlex.split(f"{_AS_NOBODY} --pdeathsig=TERM postgres -D {data} {server}")


def _list_own_sockets(folder: Path) -> list[str]:
    """Return options without which SeaweedFS shares sockets in /tmp, by their ports, with others on this machine."""
    port = SystemRandom().randrange(10_000, 30_000)
    options = [f"-{part}.port.grpc={port + n}" for n, part in enumerate(("master", "volume", "filer", "s3"))]
    return [*options, *(f"-{part}.localSocket={folder / 'tmp' / part}" for part in ("filer", "s3"))]


def _bind_proxy(caddyfile: str, address: str) -> str:
    """Have the proxy listen on its own address only; the file must leave alone which certificates a machine trusts."""
    assert "skip_install_trust" in caddyfile
    return caddyfile.replace("{\n", f"{{\n\tdefault_bind {address}\n\tadmin {address}:2019\n", 1)
