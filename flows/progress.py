"""How far a run is, as a Prefect artifact that the API reads."""

from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

PROGRESS_KEY = "progress"


class Progress:
    """Percent done of one run, shown in the Prefect UI."""

    def __init__(self) -> None:
        self._percent = 0.0
        self._artifact = cast("UUID", create_progress_artifact(0.0, PROGRESS_KEY, "Percent of this run that is done"))

    def reach(self, percent: float) -> None:
        """Show `percent`, in steps of at least five, each of which is a request to Prefect."""
        if percent - self._percent >= 5 or percent >= 100:
            self._percent = percent
            update_progress_artifact(self._artifact, percent)
