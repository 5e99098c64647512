from datetime import timedelta
from uuid import uuid4

import pytest
from prefect.events.schemas.automations import EventTrigger
from pydantic import ValidationError

from feedback.automations import build_automations
from feedback.time_limits import TimeLimits


def test_shipped_limits_crash_a_silent_run_within_a_minute_and_one_that_does_not_begin_within_90_seconds() -> None:
    triggers = [automation.trigger for automation in build_automations(TimeLimits(), "flow/name", uuid4())]
    assert all(isinstance(trigger, EventTrigger) for trigger in triggers)
    within = [trigger.within for trigger in triggers if isinstance(trigger, EventTrigger)]
    assert within == [timedelta(seconds=45), timedelta(seconds=90)]


def test_pause_doubles_with_each_failure_up_to_the_longest() -> None:
    assert [TimeLimits().pause_before_launch(failures) for failures in (1, 2, 3, 8, 9, 20)] == [2, 4, 8, 256, 300, 300]


@pytest.mark.parametrize(
    "limits",
    [{"heartbeat_seconds": 45}, {"silence_seconds": 300}, {"missed_event_seconds": 45}, {"launch_seconds": 0}],
)
def test_limits_that_would_crash_living_runs_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match=r"living runs are crashed|greater than 0"):
        TimeLimits.model_validate(limits)
