"""Attempts to make the model worse, by feedback through the flow in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlmodel import Session, col, select

from demo.contract_generator import generate_contract
from embeddinggemma_feasibility.annotation_data import AnnotationData, Span
from embeddinggemma_feasibility.evaluation import evaluate
from registry.annotations import list_annotations, replace_annotations
from registry.audit import set_principal
from registry.jobs import add_job, get_job
from registry.models import ModelRegistry
from registry.outcome import Decision
from registry.settings import Settings
from registry.tables import AnnotationBase, Document, JobType
from tests.flows.test_feedback import add_feedback, read_name
from tests.flows.test_stream import learn_all, learn_good, read_decisions, swap_labels

pytestmark = [pytest.mark.usefixtures("flow_environment"), pytest.mark.slow]
Change = Callable[[tuple[Span, ...]], tuple[Span, ...]]


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


@pytest.fixture
def read_score(settings: Settings) -> Callable[[], float]:
    """The value F1 of the champion on contracts that nobody teaches."""
    contracts = [generate_contract(seed) for seed in range(900, 910)]
    documents = [AnnotationData(str(number), each.text, each.spans) for number, each in enumerate(contracts)]

    def read() -> float:
        registry = ModelRegistry(settings)
        tagger = registry.load_tagger(str(registry.find_champion()))
        return evaluate(documents, {data.document_id: tagger.extract(data.text) for data in documents}).value.f1

    return read


def review_again(session: Session, reviewer: str, change: Change) -> list[str]:
    """Have a reviewer send feedback on each document, with its annotations changed; return the ids of the jobs."""
    set_principal(session, reviewer)
    job_ids = []
    for document in session.exec(select(Document).order_by(col(Document.created_at))).all():
        spans = change(tuple(Span(each.start, each.end, each.type) for each in list_annotations(session, document.id)))
        marked = [
            AnnotationBase(
                type=span.type, value=document.text[span.start : span.end], start=span.start, end=span.end,
                reviewer=reviewer,
            )
            for span in spans
        ]  # fmt: skip
        replace_annotations(session, document, marked)
        job_ids.append(add_job(session, JobType.FEEDBACK, [document.id], reviewer).id)
    session.commit()
    return job_ids


def test_swapped_labels_are_set_aside_and_named_and_the_others_of_their_run_are_learned(
    session: Session, read_score: Callable[[], float]
) -> None:
    learn_good(session, range(16), at_once=8)
    before = read_score()
    swapped = [add_feedback(session, seed, swap_labels) for seed in range(16, 20)]
    good = [add_feedback(session, seed) for seed in range(20, 24)]
    learn_all(session)
    assert read_decisions(session, good) == [Decision.PROMOTED] * 4
    assert read_decisions(session, swapped) == [Decision.NOT_PROMOTED] * 4
    outcome = get_job(session, swapped[0]).outcome
    assert outcome
    assert "It marks as " in outcome.reason
    assert read_name(outcome.flow_run_id).endswith(" promoted: 4 documents, 4 set aside")
    assert read_score() >= before - 0.01


def test_annotations_that_nobody_taught_neither_measure_nor_teach(
    session: Session, read_score: Callable[[], float]
) -> None:
    learn_good(session, range(16), at_once=8)
    before = read_score()
    for document in session.exec(select(Document)).all():
        replace_annotations(session, document, [])
    good = add_feedback(session, 16)
    learn_all(session)
    outcome = get_job(session, good).outcome
    assert outcome
    assert outcome.champion
    assert outcome.challenger
    assert min(outcome.champion.score or 0, outcome.challenger.score or 0) > 0.5
    assert read_score() >= before - 0.01


def test_empty_feedback_on_what_measures_is_set_aside(session: Session, read_score: Callable[[], float]) -> None:
    learn_good(session, range(16), at_once=8)
    before = read_score()
    emptied = review_again(session, "mallory", lambda spans: ())
    learn_all(session)
    assert read_decisions(session, emptied).count(Decision.NOT_PROMOTED) >= 13
    assert read_score() >= before - 0.05


def test_third_reviewer_who_takes_out_what_two_agreed_on_is_set_aside(
    session: Session, read_score: Callable[[], float]
) -> None:
    learn_good(session, range(4), at_once=4)
    review_again(session, "ana", tuple)
    review_again(session, "bruno", tuple)
    learn_all(session)
    before = read_score()
    contradicting = review_again(session, "carla", lambda spans: spans[:1])
    learn_all(session)
    reasons = [outcome.reason for job_id in contradicting if (outcome := get_job(session, job_id).outcome)]
    assert all("annotations that two reviewers agreed on" in reason for reason in reasons)
    assert read_decisions(session, contradicting) == [Decision.NOT_PROMOTED] * 4
    assert read_score() == before
