"""What a run's name says in Prefect once the run has ended: what came of it."""

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from feedback.training_set import TrainingSet
from flows.task_types import task_with_neighbours
from registry.errors import translate_http_errors
from registry.outcome import Decision, Outcome


@task_with_neighbours
@translate_http_errors("Prefect")
def name_run(name: str) -> None:
    """Give the flow run a name."""
    context = FlowRunContext.get()
    if context and context.flow_run:
        with get_client(sync_client=True) as prefect:
            prefect.set_flow_run_name(context.flow_run.id, name)


def describe_run(training_set: TrainingSet, outcome: Outcome, set_aside: int = 0) -> str:
    """Return the name of a run with an outcome, which set so many documents aside."""
    parts = ["consolidation"] if training_set.candidate else []
    if training_set.training or not parts:
        parts.append(count_documents(len(training_set.training)))
    what = " and ".join(parts) + (f", {set_aside} set aside" if set_aside else "")
    if outcome.challenger is None:
        return f"{outcome.decision.replace('_', ' ')}: {what}"
    promoted = "promoted" if outcome.decision == Decision.PROMOTED else "not promoted"
    return f"v{outcome.challenger.version} {promoted}: {what}"


def count_documents(count: int) -> str:
    """Return a number of documents in words."""
    return f"{count} document{'s' * (count != 1)}"
