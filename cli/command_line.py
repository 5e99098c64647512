"""The command line: the API, its keys, the Prefect deployment, and a whole installation on one machine.

Commands import Prefect, MLflow and torch themselves: both servers' clients read at import whether telemetry is off, and
`add-key` does not have to wait for torch.
"""

import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import httpx
import typer
from sqlmodel import Session

from api.loopback import is_loopback
from cli import client_commands, exchange_commands
from cli.environment import PACKAGED, read_installation_variables
from cli.installation import DEFAULT_PORTS, LOOPBACK, Ports, Stack, run_stack
from cli.pool_type import PoolType
from cli.settings_table import build_settings_table
from cli.usage import UsageError
from cli.worker import run_worker
from registry.audit import set_principal
from registry.database import migrate_database, open_session
from registry.errors import ContractFeedbackError, SchemaError, explain_outage
from registry.keys import Scope, add_key, has_keys, list_keys, revoke_key
from registry.logs import configure_logging
from registry.settings import get_settings

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(client_commands.commands)
app.add_typer(exchange_commands.commands)

_SHORT_WAITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "PREFECT_API_REQUEST_TIMEOUT": "5"}  # seconds
# The loaded model answers if MLflow does not; the launcher asks Prefect again.
_NO_RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "PREFECT_CLIENT_MAX_RETRIES": "0"}
_HEALTH_PORT = 8081
_NO_PREFECT = "Set PREFECT_API_URL to the Prefect server's address, for example http://127.0.0.1:4200/api"
_API_PORT, _PREFECT_PORT, _MLFLOW_PORT = DEFAULT_PORTS

EncoderOption = Annotated[str, typer.Option(help="Base encoder: 'packaged', a local folder, or a name on the hub")]


@app.callback()
def _configure() -> None:
    """Extract contract entities, and turn each correction into a better model within the minute."""
    os.environ |= read_installation_variables()


@app.command()
def api(
    host: Annotated[str, typer.Option(help="Address to listen on; all but loopback need an API key first")] = LOOPBACK,
    port: Annotated[int, typer.Option(help="Port to listen on")] = _API_PORT,
) -> None:
    """Serve the API alone. Its settings are environment variables, CONTRACT_FEEDBACK_… and PREFECT_API_URL."""
    os.environ |= {**_SHORT_WAITS, **os.environ, **_NO_RETRIES}
    configure_logging()
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))  # idle connections must not use them up
    with _open_database() as session:
        if not is_loopback(host) and not has_keys(session):
            raise UsageError(f"Make a key before listening on {host}: contract-feedback add-key NAME")
    from api.app import create_app  # noqa: PLC0415  (the module's docstring)
    from api.server import Server  # noqa: PLC0415

    server = Server(create_app(), host=host, port=port)
    with suppress(KeyboardInterrupt):  # uvicorn raises it after it has shut down
        server.run()
    if not server.started:
        raise typer.Exit(1)


@app.command("add-key")
def add_api_key(
    name: Annotated[str, typer.Argument(help="Name of the key's owner, for logs and the audit")],
    scope: Annotated[list[Scope] | None, typer.Option(help="What the key may do; repeatable. Default: read")] = None,
) -> None:
    """Make an API key and print it. It cannot be shown again."""
    with _open_database() as session:
        key = add_key(session, name, scope or [Scope.READ])
    typer.echo(key)


@app.command("list-keys")
def list_api_keys() -> None:
    """List the API keys: id, name, scopes, last use, revocation."""
    with _open_database() as session:
        for key in list_keys(session):
            used = f"used {key.last_used_at:%Y-%m-%d %H:%M} UTC" if key.last_used_at else "never used"
            revoked = f", revoked {key.revoked_at:%Y-%m-%d %H:%M} UTC" if key.revoked_at else ""
            typer.echo(f"{key.id}  {key.name}  {' '.join(key.scopes)}  {used}{revoked}")


@app.command("revoke-key")
def revoke_api_key(key_id: Annotated[str, typer.Argument(help="The id that list-keys shows")]) -> None:
    """Revoke an API key, effective with the next request."""
    with _open_database() as session:
        key = revoke_key(session, key_id)
        typer.echo(f"{key.id} ({key.name}) is revoked")


@app.command()
def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with 1 if the schema is not this release's")
    ] = False,
) -> None:
    """Migrate the database to this release's schema. Repeatable; APIs and workers of the release before may run."""
    try:
        if not check:
            migrate_database(get_settings())
        with open_session(get_settings()):  # it checks the schema
            typer.echo("The database has the schema of this release")
    except SchemaError as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from error
    except ContractFeedbackError as error:
        raise UsageError(explain_outage(error)) from error


@app.command()
def worker(
    host: Annotated[str, typer.Option(help="Address of the health check, GET /health")] = LOOPBACK,
    port: Annotated[int, typer.Option(help="Port of the health check")] = _HEALTH_PORT,
) -> None:
    """Run a worker that starts runs within a second, until SIGTERM; then the run under way ends first."""
    if not os.environ.get("PREFECT_API_URL"):
        raise UsageError(_NO_PREFECT)
    configure_logging()
    try:
        run_worker(host, port)
    except (RuntimeError, ContractFeedbackError) as error:
        raise UsageError(str(error)) from error


@app.command("deploy")
def deploy_to_prefect(
    work_pool: Annotated[
        str | None, typer.Option(help="Name of the work pool. Default: CONTRACT_FEEDBACK_WORK_POOL, which workers read")
    ] = None,
    kind: Annotated[PoolType, typer.Option("--type", help="Where runs take place")] = PoolType.PROCESS,
    image: Annotated[str, typer.Option(help="Image of the containers of runs, with contract-feedback installed")] = "",
) -> None:
    """Create or update work pool, deployments and automations on the Prefect server at PREFECT_API_URL. Repeatable."""
    from prefect.settings import get_current_settings  # noqa: PLC0415  (the module's docstring)

    url = get_current_settings().api.url
    if not url:
        raise UsageError(_NO_PREFECT)
    if not image and kind != PoolType.PROCESS:
        raise UsageError(f"Runs of the type {kind.value} need --image, the image of their containers")
    typer.echo(f"Deploying to {url} …", err=True)
    from cli.deployment import deploy  # noqa: PLC0415  (it takes seconds)

    try:
        deploy(work_pool, kind, image)
    except httpx.HTTPError as error:
        raise UsageError(f"Prefect at {url} refuses or does not answer: {error}") from error
    except RuntimeError as error:
        raise UsageError(str(error)) from error
    typer.echo(f"Deployed to {url}")


@app.command("settings")
def print_settings() -> None:
    """Print a Markdown table of all settings: environment variable, default, description."""
    typer.echo(build_settings_table())


@app.command()
def serve(
    folder: Annotated[Path, typer.Option(help="Folder of all data")] = Path(".local"),
    encoder: EncoderOption = PACKAGED,
    host: Annotated[
        str, typer.Option(help="Address to listen on; with any but 127.0.0.1 Prefect and MLflow require a password")
    ] = LOOPBACK,
    port: Annotated[int, typer.Option(help="Port of the API; 0 is any free one")] = _API_PORT,
    prefect_port: Annotated[int, typer.Option(help="Port of Prefect; 0 is any free one")] = _PREFECT_PORT,
    mlflow_port: Annotated[int, typer.Option(help="Port of MLflow; 0 is any free one")] = _MLFLOW_PORT,
) -> None:
    """Run the API, Prefect, MLflow and a worker on this machine until Ctrl-C, and print their addresses and a key."""
    with _open_stack(folder, (port, prefect_port, mlflow_port), encoder, host) as stack:
        _print_addresses(stack)
        _wait_for_interrupt()


@app.command()
def demo(encoder: EncoderOption = PACKAGED) -> None:
    """Run everything in a new folder and play the loop on generated contracts: extract, correct, learn, extract."""
    if find_spec("reportlab") is None:
        raise UsageError("The demo needs the extra `demo`: pip install 'contract-feedback[demo]'")
    from demo.play import play_demo  # noqa: PLC0415

    folder = Path(".local") / f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    with _open_stack(folder, DEFAULT_PORTS, encoder, LOOPBACK) as stack:
        improved = play_demo(stack.api_url, stack.api_key)
        _print_addresses(stack)
        if sys.stdin.isatty():
            _wait_for_interrupt()
    raise typer.Exit(0 if improved else 1)


@contextmanager
def _open_stack(folder: Path, ports: Ports, encoder: str, host: str) -> Iterator[Stack]:
    """Run an installation; report one that does not start as a usage error."""
    with ExitStack() as opened:
        try:
            stack = opened.enter_context(run_stack(folder, ports, encoder, host))
        except (RuntimeError, ContractFeedbackError) as error:
            raise UsageError(str(error)) from error
        configure_logging()  # not before: its variables are not for Prefect's and MLflow's servers
        yield stack


def _print_addresses(stack: Stack) -> None:
    password = stack.environment.get("PREFECT_API_AUTH_STRING")
    typer.echo(f"""
Review   {stack.api_url}/#key={stack.api_key}
API      {stack.api_url}/docs
Prefect  {stack.prefect_url}
MLflow   {stack.mlflow_url}
Key      {stack.api_key}
Logs     {stack.folder / "logs"}
{f"Prefect and MLflow require {password}" if password else ""}
""")


def _wait_for_interrupt() -> None:
    typer.echo("Ctrl-C stops everything.")
    try:
        signal.pause()
    except KeyboardInterrupt:
        typer.echo("Stopping …")


@contextmanager
def _open_database() -> Iterator[Session]:
    """Open the settings' database, migrated first; report refused changes as usage errors."""
    settings = get_settings()
    try:
        migrate_database(settings)
        with open_session(settings) as session:
            set_principal(session, "command line")
            yield session
    except ContractFeedbackError as error:
        raise UsageError(explain_outage(error)) from error


if __name__ == "__main__":
    app()
