"""The command line: the API, keys, and a whole installation on one machine."""

import ipaddress
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from sqlmodel import Session

from api.app import create_app
from cli.installation import DEFAULT_PORTS, LOOPBACK, Stack, run_stack
from demo.play import play_demo
from registry.audit import set_principal
from registry.database import migrate_database, open_session
from registry.errors import ContractFeedbackError
from registry.keys import Scope, add_key, has_keys, list_keys, revoke_key
from registry.settings import get_settings

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)

FolderOption = Annotated[Path, typer.Option(help="Where all data lies")]
EncoderOption = Annotated[str, typer.Option(help="'packaged', a local folder, or a name on the hub")]


@app.callback()
def _configure() -> None:
    """Turn corrections of extracted contract entities into a better model at once."""
    os.environ |= {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


@app.command()
def api(host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve the API; where everything is, CONTRACT_FEEDBACK_… variables say."""
    with _open_database() as session:
        if not _is_loopback(host) and not has_keys(session):
            raise typer.BadParameter(f"Make a key before listening on {host}: contract-feedback add-key NAME")
    uvicorn.run(create_app(get_settings()), host=host, port=port, log_level="warning")


@app.command("add-key")
def add_api_key(name: str, scope: Annotated[list[Scope] | None, typer.Option(help="Default: read")] = None) -> None:
    """Make an API key and show it, this once."""
    with _open_database() as session:
        key = add_key(session, name, scope or [Scope.READ])
    typer.echo(key)


@app.command("list-keys")
def list_api_keys() -> None:
    """Show the API keys: id, name, scopes, when they were last used, whether they are revoked."""
    with _open_database() as session:
        for key in list_keys(session):
            used = f"used {key.last_used_at:%Y-%m-%d %H:%M} UTC" if key.last_used_at else "never used"
            revoked = f", revoked {key.revoked_at:%Y-%m-%d %H:%M} UTC" if key.revoked_at else ""
            typer.echo(f"{key.id}  {key.name}  {' '.join(key.scopes)}  {used}{revoked}")


@app.command("revoke-key")
def revoke_api_key(key_id: str) -> None:
    """Make an API key worthless, at once."""
    with _open_database() as session:
        key = revoke_key(session, key_id)
        typer.echo(f"{key.id} ({key.name}) is revoked")


@app.command()
def serve(
    folder: FolderOption = Path(".local"),
    encoder: EncoderOption = "packaged",
    host: Annotated[str, typer.Option(help="Another address makes Prefect and MLflow ask for a password")] = LOOPBACK,
) -> None:
    """Run everything on this machine until Ctrl-C."""
    with run_stack(folder, DEFAULT_PORTS, encoder, host) as stack:
        _show(stack)
        _wait_for_interrupt()


@app.command()
def demo(encoder: EncoderOption = "packaged") -> None:
    """Run everything on this machine, in a new folder, and play the loop: extract, correct, feed back, extract."""
    folder = Path(".local") / f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    with run_stack(folder, DEFAULT_PORTS, encoder) as stack:
        improved = play_demo(stack)
        _show(stack)
        if sys.stdin.isatty():
            _wait_for_interrupt()
    raise typer.Exit(0 if improved else 1)


def _show(stack: Stack) -> None:
    password = stack.environment.get("PREFECT_API_AUTH_STRING")
    typer.echo(f"""
API      {stack.api_url}/docs
Prefect  {stack.prefect_url}
MLflow   {stack.mlflow_url}
Key      {stack.api_key}
Logs     {stack.folder / "logs"}
{f"Prefect and MLflow ask for {password}" if password else ""}
""")


def _wait_for_interrupt() -> None:
    typer.echo("Ctrl-C stops everything.")
    try:
        signal.pause()
    except KeyboardInterrupt:
        typer.echo("Stopping …")


@contextmanager
def _open_database() -> Iterator[Session]:
    """Open the settings' database, migrated, for whoever is at the command line, who is told what is refused."""
    settings = get_settings()
    migrate_database(settings)
    with open_session(settings) as session:
        set_principal(session, "command line")
        try:
            yield session
        except ContractFeedbackError as error:
            raise typer.BadParameter(str(error)) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    app()
