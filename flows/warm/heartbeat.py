"""The interval of a run's heartbeats: Prefect reads it from the run's environment, which the worker passes on."""

import os

from prefect.context import refresh_global_settings_context

from feedback.time_limits import TimeLimits


def set_heartbeat_interval() -> None:
    """Set the interval for this process and the runs that it starts."""
    os.environ["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] = str(TimeLimits().heartbeat_seconds)
    refresh_global_settings_context()
