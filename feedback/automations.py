"""Prefect automations that crash a run whose process has died: Prefect alone never notices."""

from datetime import timedelta
from uuid import UUID

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from feedback.time_limits import TimeLimits

_ENDED = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}


def build_automations(limits: TimeLimits, deployment: str, deployment_id: UUID) -> list[AutomationCore]:
    """Return a deployment's automations, which match its runs only; replace those of the same name on the server."""
    return [
        _crash_after(
            limits.silence_seconds,
            deployment_id,
            name=f"Crash a run of {deployment} that is silent",
            description=f"A run sends a heartbeat every {limits.heartbeat_seconds} s as long as its process lives.",
            message=f"No heartbeat for {limits.silence_seconds} s: the run's process has died",
            after={"prefect.flow-run.Running", "prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *_ENDED},
        ),
        _crash_after(
            limits.start_seconds,
            deployment_id,
            name=f"Crash a run of {deployment} that does not begin",
            description="A worker that dies between taking a run and starting it leaves the run pending.",
            message=f"The run did not begin within {limits.start_seconds} s: its worker has died",
            after={"prefect.flow-run.Pending"},
            expect={
                "prefect.flow-run.Running",
                "prefect.flow-run.AwaitingConcurrencySlot",
                "prefect.flow-run.Cancelling",
                *_ENDED,
            },
        ),
    ]


def _crash_after(
    seconds: int, deployment_id: UUID, *, name: str, description: str, message: str, after: set[str], expect: set[str]
) -> AutomationCore:
    return AutomationCore(
        name=name,
        description=description,
        enabled=True,
        trigger=EventTrigger(
            posture=Posture.Proactive,
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification(  # by id: heartbeats do not carry the deployment's name
                {
                    "prefect.resource.role": "deployment",
                    "prefect.resource.id": f"prefect.deployment.{deployment_id}",
                }
            ),
            after=after,
            expect=expect,
            for_each={"prefect.resource.id"},
            threshold=1,
            within=timedelta(seconds=seconds),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=message)],
    )
