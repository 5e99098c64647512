"""How long a run may be silent, and how long a job waits before it is launched again."""

from datetime import UTC, datetime
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class TimeLimits(BaseSettings):
    """All time limits of failure handling, in seconds; read from `CONTRACT_FEEDBACK_…` environment variables.

    `feedback/automations.py`, `feedback/launcher.py` and `flows/warm/worker.py` apply them.
    """

    model_config = SettingsConfigDict(env_prefix="CONTRACT_FEEDBACK_", frozen=True)

    heartbeat_seconds: int = Field(
        30, ge=30, description="Interval of a run's heartbeats, in seconds; Prefect allows 30 or more"
    )
    silence_seconds: int = Field(
        45,
        gt=0,
        description="A run without a heartbeat for this long has died, and is crashed. Run `contract-feedback deploy` "
        "after a change",
    )
    start_seconds: int = Field(
        90,
        gt=0,
        description="A run that a worker has taken must begin within this time; a container whose image must be pulled "
        "needs more. Run `contract-feedback deploy` after a change",
    )
    missed_event_seconds: float = Field(
        300,
        gt=0,
        description="A run without any event for this long is crashed by the API itself: Prefect may lose the events "
        "by which it notices",
    )
    launch_seconds: float = Field(
        5, gt=0, description="How often the API looks for jobs to launch; feedback also wakes it at once"
    )
    first_pause_seconds: float = Field(
        2, gt=0, description="Pause before a job whose run failed is launched again; it doubles each time"
    )
    longest_pause_seconds: float = Field(
        300, gt=0, description="Longest pause between two launches of a job. After 20 it is answered as failed"
    )
    drain_seconds: float = Field(
        20,
        ge=0,
        description="Longest wait of a stopped worker for its runs to end; one that is cut off is launched again. "
        "Feedback takes 2 to 6 seconds. What stops the worker must wait 10 seconds longer before it kills it",
    )

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if not self.heartbeat_seconds < self.silence_seconds < self.missed_event_seconds:
            raise ValueError(
                "Choose heartbeat_seconds < silence_seconds < missed_event_seconds: otherwise living runs are crashed"
            )
        return self

    def pause_before_launch(self, failures: int) -> float:
        """Return the pause after a job's n-th failure, in seconds."""
        return min(self.longest_pause_seconds, self.first_pause_seconds * 2.0 ** (failures - 1))


def utc_now() -> datetime:
    """Return the time in UTC, by which pauses and silences are measured."""
    return datetime.now(UTC)
