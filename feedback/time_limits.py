"""How long a run may be silent, and how long a job waits before it is launched again."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class TimeLimits(BaseSettings):
    """All time limits of failure handling, in seconds; read from `CONTRACT_FEEDBACK_…` environment variables.

    `feedback/automations.py`, `feedback/launcher.py` and `flows/warm/worker.py` apply them.
    """

    model_config = SettingsConfigDict(env_prefix="CONTRACT_FEEDBACK_", frozen=True)

    heartbeat_seconds: int = Field(30, ge=30, description="Interval of a run's heartbeats; Prefect allows 30 or more")
    silence_seconds: int = Field(45, description="A running run without a heartbeat for this long is crashed")
    start_seconds: int = Field(90, description="A run that a worker has taken must begin within this time")
    missed_event_seconds: float = Field(
        300, description="The launcher crashes a run without any event for this long: Prefect has lost its automation's"
    )
    launch_seconds: float = Field(5, description="The launcher looks for waiting jobs this often, or when it is woken")
    first_pause_seconds: float = Field(2, description="Pause before a job is launched again; doubles each time")
    longest_pause_seconds: float = Field(300, description="The pause between two launches of a job never exceeds this")

    def pause_before_launch(self, failures: int) -> float:
        """Return the pause after a job's n-th failure, in seconds."""
        return min(self.longest_pause_seconds, self.first_pause_seconds * 2.0 ** (failures - 1))
