"""Files of annotated documents, as other programs read and write them: imported, and exported."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from api.authentication import GuardedRoute
from api.dependencies import ImporterDep, ReaderDep, ServicesDep, SessionDep
from api.errors import document_errors
from api.exports import stream_file
from api.import_schemas import LEFT_OUT, ImportReport
from api.imports import import_file
from intake.formats.names import FORMATS, FormatName
from registry.errors import InvalidInputError
from registry.reviews import count_other_annotations, list_reviewed_documents
from registry.tables import AnnotationStatus

router = APIRouter(tags=["import and export"], route_class=GuardedRoute)
FormatDep = Annotated[FormatName, Query(alias="format")]
_ANY_FILE = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_FILES: dict[str, object] = {each.media_type: {"schema": {}} for each in FORMATS.values()}


async def _read_body(request: Request) -> bytes:
    return await request.body()


@router.post(
    "/import",
    responses=document_errors(413),
    openapi_extra={"requestBody": {"description": "A file in UTF-8", "content": _ANY_FILE, "required": True}},
)
def import_documents(
    format_name: FormatDep,
    content: Annotated[bytes, Depends(_read_body)],
    session: SessionDep,
    services: ServicesDep,
    caller: ImporterDep,
    replace: Annotated[bool, Query(description="Overwrite the annotations of documents that have others")] = False,
) -> ImportReport:
    """Store the documents of a file with their annotations; each is stored or refused for itself, with the reason.

    The same file again adds nothing. A body is as large as one of JSON may be, and has 1,000 documents at most: send a
    larger file in parts. No model learns the annotations before `POST /training-runs`, or feedback.
    """
    return import_file(session, services, caller.name, FORMATS[format_name], content, replace)


@router.get(
    "/export",
    response_class=Response,
    responses={
        200: {
            "content": _FILES,
            "headers": {
                LEFT_OUT: {
                    "description": "The number of annotations with another status, which are left out",
                    "schema": {"type": "integer"},
                    "required": True,
                }
            },
        }
    },
)
def export_documents(
    format_name: FormatDep,
    session: SessionDep,
    services: ServicesDep,
    _: ReaderDep,
    statuses: Annotated[list[AnnotationStatus], Query(alias="status", min_length=1, max_length=3)] = [  # noqa: B006
        AnnotationStatus.APPROVED
    ],
) -> StreamingResponse:
    """Write all reviewed documents, with their approved annotations, to a file that `POST /import` reads.

    With `status`, the annotations of these statuses; CoNLL holds neither status, reviewer nor notes. A stream that
    breaks off is not a whole file.
    """
    file_format = FORMATS[format_name]
    if not file_format.holds_details and set(statuses) != {AnnotationStatus.APPROVED}:
        raise InvalidInputError(f"{format_name.value} does not hold the status: export approved annotations only")
    document_ids = list_reviewed_documents(session, statuses)
    headers = {
        LEFT_OUT: str(count_other_annotations(session, statuses)),
        "Content-Disposition": f'attachment; filename="contracts.{file_format.suffix}"',
    }
    stream = stream_file(services, file_format, document_ids, statuses)
    return StreamingResponse(stream, media_type=file_format.media_type, headers=headers)
