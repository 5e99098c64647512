"""What a run says in its log, in Prefect and in the worker's: what it claimed, set aside and decided, in numbers."""

from collections.abc import Mapping, Sequence

from prefect import get_run_logger

from feedback.training_set import TrainingSet
from registry.logs import set_log_ids
from registry.outcome import Decision, Outcome

_JOBS_OF_LINE = 50  # such a line is written to a pipe in one piece


def log_claimed(training_set: TrainingSet) -> None:
    """Log what the run works on, and the ids of all its jobs, the first of which each further line has."""
    job_ids, logger = training_set.job_ids, get_run_logger()
    set_log_ids(job_ids=job_ids)
    logger.info(training_set.describe())
    for first in range(0, len(job_ids), _JOBS_OF_LINE):
        logger.info("Claimed jobs: %s", " ".join(job_ids[first : first + _JOBS_OF_LINE]))


def log_set_aside(reasons: Mapping[str, str]) -> None:
    """Log which documents are set aside, and why."""
    for document_id, reason in reasons.items():
        get_run_logger().info("Set aside document %s: %s", document_id, reason)


def log_outcome(outcome: Outcome, job_ids: Sequence[str]) -> None:
    """Log the decision with the scores behind it, and what the corrections did."""
    logger = get_run_logger()
    logger.info(describe_decision(outcome, len(job_ids)))
    if outcome.effect:
        logger.info(outcome.effect.summary)


def describe_decision(outcome: Outcome, count: int) -> str:
    """Return the decision about so many jobs, as in `Value F1 0.810 against 0.790: promoted as v12, ...`."""
    challenger, champion = outcome.challenger, outcome.champion
    jobs = f"{count} job{'s' * (count != 1)}"
    if challenger is None:
        return f"No version was made; {jobs} answered"
    decision = f"promoted as v{challenger.version}; {jobs} answered"
    if outcome.decision != Decision.PROMOTED:
        becomes = "to be tried in parts" if count > 1 else "answered"
        decision = f"v{challenger.version} is not promoted; {jobs} {becomes}"
    if champion is None or champion.score is None or challenger.score is None:
        return f"No scores to compare: {decision}"
    return f"Value F1 {challenger.score:.3f} against {champion.score:.3f}: {decision}"
