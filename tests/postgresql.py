"""A PostgreSQL server of the tests' own, in a temporary folder."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from sqlalchemy import create_engine, make_url


def find_programs() -> Path | None:
    """Return the folder of PostgreSQL's programs: Debian's, which are not on the path, or whatever is."""
    debian = [str(folder) for folder in Path("/usr/lib/postgresql").glob("*/bin")]
    initdb = shutil.which("initdb", path=os.pathsep.join([*debian, os.environ.get("PATH", os.defpath)]))
    return Path(initdb).parent if initdb else None


@contextmanager
def run_postgresql(programs: Path) -> Iterator[str]:
    """Run a server on a socket in its folder; yield the URL of its `postgres` database."""
    with TemporaryDirectory(prefix="postgresql-") as folder:
        user = "nobody" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
        if user:
            shutil.chown(folder, user)

        def run(program: str, *arguments: str) -> None:
            command = [programs / program, "--pgdata", f"{folder}/data", *arguments]
            subprocess.run(command, cwd=folder, user=user, stdout=subprocess.DEVNULL, check=True)

        run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync")
        options = f"-F -k {folder} -c listen_addresses= -c timezone=America/Sao_Paulo -c deadlock_timeout=100ms"
        run("pg_ctl", "start", "--wait", "--log", f"{folder}/log", "--options", options)
        try:
            yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
        finally:
            run("pg_ctl", "stop", "--mode=immediate")


def create_database(server_url: str) -> str:
    """Make an empty database and return its URL."""
    name = f"test_{uuid4().hex}"
    engine = create_engine(server_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)
