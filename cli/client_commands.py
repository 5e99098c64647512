"""Commands on single contracts and jobs: upload, extract, teach, watch."""

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from rich.console import Console
from rich.table import Table
from rich.text import Text

from api.schemas import AnnotationCreate, EntitiesResponse
from cli.connection import DEFAULT_URL, KeyOption, UrlOption, connect
from cli.usage import UsageError
from client.errors import ApiError
from client.reviewer_client import ReviewerClient
from intake.formats.annotated_text import describe_mistakes
from registry.outcome import Decision

commands = typer.Typer()

_ANNOTATIONS = TypeAdapter(list[AnnotationCreate])
DocumentArgument = Annotated[str, typer.Argument(help="The id of a document, or a file, which is uploaded first")]


@commands.command()
def upload(
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="PDFs, or texts in UTF-8")],
    api_url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
) -> None:
    """Upload contracts and print their ids."""
    refused = 0
    with connect(api_url, key) as client:
        for file in files:
            try:
                document = client.upload(file.name, file.read_bytes())
            except ApiError as error:
                refused += 1
                typer.echo(f"{file} is refused: {error.detail}", err=True)
            else:
                typer.echo(f"{document.id}  {document.filename}")
    raise typer.Exit(1 if refused else 0)


@commands.command()
def extract(
    document: DocumentArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, which `teach --annotations` reads")] = False,
    min_version: Annotated[
        int | None, typer.Option(min=1, help="Only by this version or a newer one, for which the API waits 5 s")
    ] = None,
    api_url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
) -> None:
    """Print the entities that the served model finds in a contract."""
    with connect(api_url, key) as client:
        found = client.extract(_find_document(client, document), min_version)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        _print_entities(found)


@commands.command()
def teach(
    document: DocumentArgument,
    annotations: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="JSON: all annotations of the document, instead of those stored"
        ),
    ] = None,
    api_url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
) -> None:
    """Submit feedback on a contract and print the id of the job."""
    corrected = _read_annotations(annotations) if annotations else None
    with connect(api_url, key) as client:
        typer.echo(client.teach(_find_document(client, document), corrected).job_id)


@commands.command()
def watch(
    job: Annotated[str, typer.Argument(help="The id of a job")],
    api_url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
) -> None:
    """Print what becomes of a job, until its end; the exit status is 0 if its version was promoted."""
    last = None
    with connect(api_url, key) as client:
        for last in client.watch(job):
            typer.echo(f"{last.status.value} {last.progress:3.0f}%  {last.message or ''}".rstrip())
    if last is None or last.outcome is None:
        raise typer.Exit(1)
    for document_id, reason in last.set_aside.items():
        typer.echo(f"{document_id} is set aside: {reason}")
    raise typer.Exit(0 if last.outcome.decision == Decision.PROMOTED else 1)


def _find_document(client: ReviewerClient, document: str) -> str:
    """Return the id of a document, or of a file after its upload."""
    file = Path(document)
    return client.upload(file.name, file.read_bytes()).id if file.is_file() else document


def _read_annotations(file: Path) -> list[AnnotationCreate]:
    """Return the annotations of a list, of `annotations`, or of `entities`, as `extract --json` prints them."""
    try:
        content = from_json(file.read_bytes())
        if isinstance(content, dict):
            content = content.get("annotations", content.get("entities"))
        if isinstance(content, list):
            return _ANNOTATIONS.validate_python([_leave_out_confidence(each) for each in content])
    except ValidationError as error:
        raise UsageError(f"{file}: {describe_mistakes(error)}") from error
    except ValueError as error:
        raise UsageError(f"{file} is not JSON: {error}") from error
    raise UsageError(f"{file} has no list of annotations, nor an object with one as `annotations` or `entities`")


def _leave_out_confidence(entity: Any) -> Any:
    return (
        {name: value for name, value in entity.items() if name != "confidence"} if isinstance(entity, dict) else entity
    )


def _print_entities(found: EntitiesResponse) -> None:
    if found.warning:
        typer.echo(found.warning, err=True)
    if found.model_version is None:
        typer.echo("No model yet: teach a document first", err=True)
    table = Table("type", "value", "confidence", "page", "from", "to", title=f"version {found.model_version}")
    for entity in found.entities:
        pages = ", ".join(str(location.page) for location in entity.location)
        offsets = str(entity.start), str(entity.end)
        table.add_row(Text(entity.type), Text(entity.value), f"{entity.confidence:.2f}", pages, *offsets)
    Console().print(table)
