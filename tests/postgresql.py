"""A PostgreSQL server for the tests, in a temporary folder."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from sqlalchemy import create_engine, make_url


def find_programs() -> Path | None:
    """Return the folder of PostgreSQL's programs: Debian's, which is not on the path, or the one on the path."""
    debian = [str(folder) for folder in Path("/usr/lib/postgresql").glob("*/bin")]
    initdb = shutil.which("initdb", path=os.pathsep.join([*debian, os.environ.get("PATH", os.defpath)]))
    return Path(initdb).parent if initdb else None


@dataclass(frozen=True)
class PostgreSQL:
    """A server that listens on a Unix socket in its folder and, if it has an `address`, on port 5432 of that."""

    programs: Path
    folder: str
    user: str | None
    address: str = ""

    @property
    def url(self) -> str:
        """The URL of its `postgres` database."""
        return f"postgresql+psycopg://postgres@/postgres?host={self.folder}"

    def start(self) -> None:
        """Start it, also after a crash, and wait until it answers."""
        options = f"-F -k {self.folder} -c listen_addresses={self.address} -c timezone=America/Sao_Paulo"
        options += " -c deadlock_timeout=100ms"
        self.run("pg_ctl", "start", "--wait", "--log", f"{self.folder}/log", "--options", options)

    def crash(self) -> None:
        """Stop it at once, without a checkpoint."""
        self.run("pg_ctl", "stop", "--mode=immediate")

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs on the server's data folder."""
        command = [str(self.programs / program), "--pgdata", f"{self.folder}/data", *arguments]
        subprocess.run(command, cwd=self.folder, user=self.user, stdout=subprocess.DEVNULL, check=True)


@contextmanager
def run_postgresql(programs: Path, address: str = "") -> Iterator[PostgreSQL]:
    """Run a server in a temporary folder until the block ends."""
    with TemporaryDirectory(prefix="postgresql-") as folder:
        user = "nobody" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
        if user:
            shutil.chown(folder, user)
        server = PostgreSQL(programs, folder, user, address)
        server.run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync")
        server.start()
        try:
            yield server
        finally:
            server.crash()


def create_database(server: PostgreSQL, template_url: str | None = None) -> str:
    """Create a database, empty or a copy of another one, and return its URL."""
    name, template = f"test_{uuid4().hex}", make_url(template_url).database if template_url else "template1"
    engine = create_engine(server.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {template}")
    engine.dispose()
    return make_url(server.url).set(database=name).render_as_string(hide_password=False)
