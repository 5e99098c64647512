"""What webhooks are told: feedback that became live or was set aside, versions that were promoted or rolled back.

Events hold ids, decisions, versions and the reasons that runs gave: no text of a contract, and no words of a person.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlmodel import Session

from registry.jobs import get_job, list_job_documents
from registry.outcome import Decision, Outcome
from registry.tables import EventType, JobType
from registry.webhooks import add_event, list_subscribers

_EVENTS = {
    Decision.PROMOTED: EventType.FEEDBACK_LIVE,
    Decision.NOT_PROMOTED: EventType.FEEDBACK_SET_ASIDE,
    Decision.ROLLED_BACK: EventType.FEEDBACK_SET_ASIDE,
}
_MOST_IDS = 400  # in a list: Standard Webhooks recommends payloads below 20 kB


def announce_run(session: Session, job_ids: Sequence[str], outcome: Outcome) -> None:
    """Announce the outcome of a run to its jobs, and its version if that was promoted."""
    version = outcome.challenger.version if outcome.challenger else None
    announce_jobs(session, outcome.decision, dict.fromkeys(job_ids, version), outcome.reason)
    if outcome.decision == Decision.PROMOTED and version and job_ids:
        announce_promotion(session, version, outcome.champion.version if outcome.champion else None, outcome.reason)


def announce_jobs(session: Session, decision: Decision, versions: Mapping[str, str | None], reason: str) -> None:
    """Announce that a decision holds for jobs, given with the version that learned each.

    A job that failed or was cancelled is not announced, nor one that is no feedback: the hand-over of a consolidation,
    or a request to unlearn.
    """
    if decision not in _EVENTS or not (webhooks := list_subscribers(session, _EVENTS[decision])):
        return
    for job_id, version in versions.items():
        job_type = get_job(session, job_id).type
        if job_type not in {JobType.CONSOLIDATION, JobType.UNLEARNING}:
            documents = _list_ids("document_ids", list_job_documents(session, [job_id]))
            data = {"job_id": job_id, "job_type": job_type, "decision": decision, "version": version, "reason": reason}
            add_event(session, webhooks, _EVENTS[decision], data | documents)


def announce_promotion(
    session: Session, version: str, previous: str | None, reason: str, set_aside: Sequence[str] = ()
) -> None:
    """Announce a new champion, and the jobs set aside for it; one earlier than the previous champion is a rollback."""
    is_rollback = previous is not None and int(version) < int(previous)
    event_type = EventType.MODEL_ROLLED_BACK if is_rollback else EventType.MODEL_PROMOTED
    data = {"version": version, "previous_version": previous, "reason": reason}
    data |= _list_ids("set_aside_job_ids", set_aside)
    if webhooks := list_subscribers(session, event_type):
        add_event(session, webhooks, event_type, data)


def _list_ids(name: str, ids: Sequence[str]) -> dict[str, Any]:
    """Return the first ids, and how many there are."""
    return {name: list(ids[:_MOST_IDS]), f"{name}_total": len(ids)}
