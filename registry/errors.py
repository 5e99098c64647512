"""What can be wrong with a request, each with the HTTP status that says so."""


class ContractFeedbackError(Exception):
    """The base of all errors whose message is meant for the client."""

    status_code = 500


class NotFoundError(ContractFeedbackError):
    """What the request names does not exist."""

    status_code = 404


class ConflictError(ContractFeedbackError):
    """The request contradicts what is stored."""

    status_code = 409


class StaleRevisionError(ContractFeedbackError):
    """What is to be changed was changed since it was read."""

    status_code = 412


class TooLargeError(ContractFeedbackError):
    """The upload exceeds the limit."""

    status_code = 413


class UnsupportedFileError(ContractFeedbackError):
    """The upload is no PDF and no plain text."""

    status_code = 415


class InvalidInputError(ContractFeedbackError):
    """The request can be read but makes no sense: a broken PDF, a value that is not at its offsets."""

    status_code = 422


class TooManyError(ContractFeedbackError):
    """More than is allowed at a time: later it may be."""

    status_code = 429


class UnavailableError(ContractFeedbackError):
    """A part of the installation does not do its work now."""

    status_code = 503


class TamperedModelError(UnavailableError):
    """A model's files are not those whose hash was registered with it."""


class UnauthorizedError(ContractFeedbackError):
    """No API key, or one that is not known."""

    status_code = 401


class ForbiddenError(ContractFeedbackError):
    """The key lacks the scope."""

    status_code = 403
