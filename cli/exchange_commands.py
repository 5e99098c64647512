"""Commands on files of annotated documents: import, export."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import httpx
import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from api.import_schemas import ImportedDocument, ImportState
from cli.connection import DEFAULT_URL, KeyOption, UrlOption, connect
from cli.usage import UsageError
from client.errors import ApiError
from client.reviewer_client import ReviewerClient
from intake.formats.file_format import FileFormat, decode_file
from intake.formats.names import FORMATS, FormatName
from registry.errors import InvalidInputError
from registry.jobs import MOST_DOCUMENTS
from registry.tables import AnnotationStatus

commands = typer.Typer()

FormatOption = Annotated[FormatName, typer.Option("--format", help="Format of the file")]
FileArgument = Annotated[Path, typer.Argument(exists=True, dir_okay=False)]


@commands.command("import")
def import_file(
    file: FileArgument,
    format_name: FormatOption,
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite the annotations of documents that are annotated otherwise")
    ] = False,
    train: Annotated[bool, typer.Option(help="Have one run learn what is new, and print the id of its job")] = True,
    api_url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
) -> None:
    """Store the documents of a file with their annotations, and have one run learn them all.

    The same file again adds nothing; after a failure, it goes on where it stopped.
    """
    records = _split(file, FORMATS[format_name])
    with connect(api_url, key) as client:
        documents, to_teach = _send(client, format_name, records, replace)
        _print_import(documents)
        for first in range(0, len(to_teach) if train else 0, MOST_DOCUMENTS):
            typer.echo(client.train(to_teach[first : first + MOST_DOCUMENTS]).job_id)
    raise typer.Exit(1 if any(each.state == ImportState.REFUSED for each in documents) else 0)


@commands.command("export")
def export_file(
    format_name: FormatOption,
    output: Annotated[Path | None, typer.Option(help="File to write. Default: the standard output")] = None,
    status: Annotated[
        list[AnnotationStatus] | None,
        typer.Option(help="Only annotations of this status; repeatable. Default: approved"),
    ] = None,
    api_url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
) -> None:
    """Write all reviewed documents with their annotations to a file that `import` reads."""
    statuses = status or [AnnotationStatus.APPROVED]
    with connect(api_url, key) as client, _open_output(output) as file:
        left_out = client.export(format_name, file, statuses)
    if left_out:
        typer.echo(f"{left_out} annotations of another status are left out: see --status", err=True)
    if not FORMATS[format_name].holds_details:
        typer.echo(f"{format_name.value} holds no reviewers and no notes", err=True)


@contextmanager
def _open_output(path: Path | None) -> Iterator[BinaryIO]:
    """Open a file that has its name only when it is whole, or the standard output."""
    if path is None:
        yield sys.stdout.buffer
        return
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _split(file: Path, file_format: FileFormat) -> list[str]:
    """Return the documents of a file, each as its format writes it."""
    try:
        return list(file_format.split(decode_file(file.read_bytes())))
    except InvalidInputError as error:
        raise UsageError(str(error)) from error


def _send(
    client: ReviewerClient, format_name: FormatName, records: Sequence[str], replace: bool
) -> tuple[list[ImportedDocument], list[str]]:
    """Import the documents; return what became of each, and the ids of those to teach."""
    documents: list[ImportedDocument] = []
    to_teach: dict[str, None] = {}
    bar = Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True))
    with bar:
        task = bar.add_task("Importing", total=len(records))
        try:
            for report in client.import_records(format_name, records, replace):
                documents += report.documents
                to_teach |= dict.fromkeys(report.to_teach)
                bar.update(task, completed=len(documents))
        except (ApiError, httpx.TransportError) as error:
            raise UsageError(
                f"{len(documents)} of {len(records)} documents are imported, and none is taught yet: {error}. The same "
                "command again goes on"
            ) from error
    return documents, list(to_teach)


def _print_import(documents: Sequence[ImportedDocument]) -> None:
    """Print how many documents were stored, and why others were not."""
    counts = Counter(document.state.value for document in documents)
    ignored = sum((Counter(document.ignored) for document in documents), Counter[str]())
    annotations = sum(document.annotations for document in documents)
    typer.echo(f"{len(documents)} documents with {annotations} annotations: {_describe(counts)}", err=True)
    if ignored:
        typer.echo(f"Ignored, since only spans are read: {_describe(ignored)}", err=True)
    if empty := sum(each.annotations == 0 and each.document_id is not None for each in documents):
        typer.echo(
            f"Without annotations, and not learned: {empty}. `teach` an empty list if nothing is to be found", err=True
        )
    for number, document in enumerate(documents, 1):
        if document.reason:
            name = f" ({document.filename})" if document.filename else ""
            typer.echo(f"Document {number}{name} is {document.state.value}: {document.reason}", err=True)


def _describe(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
