"""Refused commands."""

import typer


class UsageError(typer.BadParameter):
    """A refused command, reported in one sentence without a traceback."""

    def format_message(self) -> str:
        """Return the message alone: it is about the command, not about one parameter."""
        return self.message
