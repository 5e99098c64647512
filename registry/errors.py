"""Errors whose message is meant for the client, each with its HTTP status, and the translation of HTTP errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import httpx

_REFUSALS = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


class ContractFeedbackError(Exception):
    """The base of all errors whose message is meant for the client."""

    status_code = 500


class UnauthorizedError(ContractFeedbackError):
    """There is no API key, or an unknown one."""

    status_code = 401


class ForbiddenError(ContractFeedbackError):
    """The API key lacks the scope."""

    status_code = 403


class NotFoundError(ContractFeedbackError):
    """The request names something that does not exist."""

    status_code = 404


class ConflictError(ContractFeedbackError):
    """The request contradicts what is stored."""

    status_code = 409


class DeletedError(ContractFeedbackError):
    """The request names a document that was deleted."""

    status_code = 410


class OvertakenError(ContractFeedbackError):
    """Another version was promoted while a run learned from the champion before it."""


class StaleRevisionError(ContractFeedbackError):
    """The record was changed after the client read it."""

    status_code = 412


class TooLargeError(ContractFeedbackError):
    """The upload exceeds the limit."""

    status_code = 413


class UnsupportedFileError(ContractFeedbackError):
    """The upload is neither a PDF nor plain text."""

    status_code = 415


class InvalidInputError(ContractFeedbackError):
    """The request is well-formed but makes no sense: a broken PDF, a value that is not at its offsets."""

    status_code = 422


class WrongValueError(InvalidInputError):
    """An annotation's value is not the text at its position; callers who may read the document are shown `text`."""

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message)
        self.text = text


class TooManyError(ContractFeedbackError):
    """A rate or queue limit is reached; the same request may succeed later."""

    status_code = 429


class UnavailableError(ContractFeedbackError):
    """A part of the installation does not work at the moment."""

    status_code = 503


class SchemaError(ContractFeedbackError):
    """The database has the schema of another release."""

    status_code = 503


class NewerSchemaError(SchemaError):
    """The database has the schema of a later release."""


class UnusableModelError(UnavailableError):
    """A model cannot be loaded: its files are missing, changed, or of another encoder."""


class NoChampionError(UnavailableError):
    """There are versions that were champions, and none is now."""


def build_outage_error(service: str, status: int | None = None) -> UnavailableError:
    """Return the error for a service that does not answer, or that answers with an HTTP status that is an outage."""
    if status in _REFUSALS:
        return UnavailableError(
            f"{service} refuses our user or password (HTTP {status}): correct them in the environment of this process"
        )
    return UnavailableError(f"{service} does not answer; try again when GET /system-status shows it alive")


def explain_outage(error: ContractFeedbackError) -> str:
    """Return the message with its cause, for those who operate the installation: it may name addresses."""
    cause = getattr(error.__cause__, "orig", error.__cause__)
    return f"{error} ({str(cause).strip()})" if cause else str(error)


def is_outage_status(status: int) -> bool:
    """Tell whether an HTTP status means that a server does not work, or refuses our password, at the moment."""
    return status >= 500 or status == HTTPStatus.TOO_MANY_REQUESTS or status in _REFUSALS


@contextmanager
def translate_http_errors(service: str) -> Iterator[None]:
    """Raise UnavailableError if a service does not answer or fails; a request that it rejects is a bug."""
    try:
        yield
    except httpx.HTTPError as error:
        status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
        if status and not is_outage_status(status):
            raise
        raise build_outage_error(service, status) from error
