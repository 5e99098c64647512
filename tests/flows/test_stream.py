"""A stream of feedback through the flow in this process, with a batch of wrong labels in its middle."""

import dataclasses
from pathlib import Path

import pytest
from sqlmodel import Session

from embeddinggemma_feasibility.annotation_data import Span
from flows.feedback import LearningRequest, learn_from_feedback
from registry.jobs import get_job
from registry.outcome import Decision
from tests.feedback.jobs import find_waiting_job
from tests.flows.test_feedback import add_feedback

pytestmark = pytest.mark.usefixtures("flow_environment")


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


def swap_labels(spans: tuple[Span, ...]) -> tuple[Span, ...]:
    types = sorted({span.type for span in spans})
    following = dict(zip(types, [*types[1:], types[0]], strict=True))
    return tuple(dataclasses.replace(span, type=following[span.type]) for span in spans)


def learn_all(session: Session) -> None:
    """Run the flow, as the launcher does, until no job waits."""
    while waiting := find_waiting_job(session):
        session.rollback()
        assert learn_from_feedback(LearningRequest(job_id=waiting.id), return_state=True).is_completed()
        session.expire_all()


def learn_good(session: Session, seeds: range, at_once: int) -> list[str]:
    """Learn correct feedback on so many contracts at once; return the ids of their jobs."""
    job_ids = []
    for first in seeds[::at_once]:
        job_ids += [add_feedback(session, seed) for seed in range(first, first + at_once)]
        learn_all(session)
    return job_ids


def read_decisions(session: Session, job_ids: list[str]) -> list[Decision | None]:
    outcomes = [get_job(session, job_id).outcome for job_id in job_ids]
    return [outcome.decision if outcome else None for outcome in outcomes]


@pytest.mark.slow
def test_sixty_contracts_are_all_live_and_a_batch_with_swapped_labels_between_them_is_set_aside(
    session: Session,
) -> None:
    good = learn_good(session, range(40), at_once=8)
    swapped = [add_feedback(session, seed, swap_labels) for seed in range(40, 52)]
    learn_all(session)
    good += learn_good(session, range(52, 72), at_once=1)
    assert read_decisions(session, good) == [Decision.PROMOTED] * 60
    refused = read_decisions(session, swapped).count(Decision.NOT_PROMOTED)
    assert refused >= 10, f"{12 - refused} of 12 contracts with swapped labels were learned"
