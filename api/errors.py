"""How errors are answered: one shape for all, described in the OpenAPI document."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from registry.errors import ContractFeedbackError, WrongValueError
from registry.keys import Scope
from registry.logs import get_request_id

_DESCRIPTIONS = {
    400: "The body cannot be read: send JSON, or a form with a file, in UTF-8",
    401: "There is no valid API key",
    403: "The API key lacks the scope",
    404: "Something that the path or the body names does not exist",
    409: "The request contradicts what is stored",
    410: "The document was deleted; `detail` says whether a model has learned it, and since when none has",
    412: "The record was changed after it was read: read it again",
    413: "The body is too large, or its JSON has too many values",
    415: "The file is neither a PDF nor plain text",
    422: "The request is well-formed but makes no sense: `detail` says what to do",
    429: "Too many requests, or too many waiting jobs: try again later",
    503: "Prefect, MLflow, the database or the document store does not work: try again later",
}
_SHOWN_CHARACTERS = 200
_SHOWN_PROBLEMS = 20
_SHOWN_OF_FIELD = 50  # characters of a field's name, which clients choose
_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "60"}, 503: {"Retry-After": "60"}}


class ErrorResponse(BaseModel):
    """An error: what is wrong with the request, and what to do."""

    detail: str


def document_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI descriptions of these statuses, for the `responses` of a route."""
    return {
        status: {
            "model": ErrorResponse,
            "description": _DESCRIPTIONS[status],
            "headers": {
                name: {"required": True, "schema": {"type": "string", "examples": [value]}}
                for name, value in _HEADERS.get(status, {}).items()
            },
        }
        for status in statuses
    }


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error in the shape of `ErrorResponse`; the server logs an unexpected one with its trace."""
    app.add_exception_handler(ContractFeedbackError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid_request)
    app.add_exception_handler(Exception, _answer_bug)


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, ContractFeedbackError) else 500
    detail = str(error)
    if isinstance(error, WrongValueError) and request.state.caller.may(Scope.READ):
        detail += f", which is {error.text[:_SHOWN_CHARACTERS]!r}"
    return _respond(status, detail)


async def _answer_invalid_request(_: Request, error: Exception) -> JSONResponse:
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    details = [
        f"{'.'.join(str(part)[:_SHOWN_OF_FIELD] for part in problem['loc'])}: {problem['msg']}"
        for problem in problems[:_SHOWN_PROBLEMS]
    ]
    if len(problems) > _SHOWN_PROBLEMS:
        details.append(f"and {len(problems) - _SHOWN_PROBLEMS} more")
    return _respond(422, "; ".join(details))


async def _answer_bug(_: Request, error: Exception) -> JSONResponse:
    under = f" under request {request_id}" if (request_id := get_request_id()) else ""
    return _respond(500, f"An unexpected error ({type(error).__name__}): the log of the API has the trace{under}")


def _respond(status: int, detail: str) -> JSONResponse:
    return JSONResponse(ErrorResponse(detail=detail).model_dump(), status, _HEADERS.get(status))
