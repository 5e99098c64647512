from sqlmodel import Session

from feedback.claiming import answer_jobs
from feedback.consolidation import Candidate, FeedbackFirst, add_consolidation, find_candidate, find_due_consolidation
from registry.jobs import get_snapshot
from registry.outcome import Decision
from registry.tables import Annotation, AnnotationStatus, JobType
from tests.feedback.jobs import add_feedback, outcome


def learn(session: Session, count: int, decision: Decision = Decision.PROMOTED) -> None:
    """Add so many documents with answered feedback."""
    first = get_snapshot(session)
    jobs = [add_feedback(session, f"{first + index}")[0] for index in range(count)]
    answer_jobs(session, [job.id for job in jobs], outcome(decision))


def consolidate(session: Session, decision: Decision) -> None:
    snapshot = get_snapshot(session)
    job = add_consolidation(session, f"run-{snapshot}", Candidate(f"mlflow-{snapshot}", snapshot, "All of it."))
    answer_jobs(session, [job.id], outcome(decision))


def test_consolidation_is_due_with_twenty_learned_documents_and_nothing_waiting(session: Session) -> None:
    learn(session, 19)
    learn(session, 9, Decision.NOT_PROMOTED)
    assert not find_due_consolidation(session)
    learn(session, 1)
    assert find_due_consolidation(session)
    waiting, _ = add_feedback(session, "waiting")
    assert not find_due_consolidation(session)
    answer_jobs(session, [waiting.id], outcome())
    assert find_due_consolidation(session)


def test_consolidation_is_due_with_fewer_documents_if_they_have_a_thousand_annotations(session: Session) -> None:
    job, document_id = add_feedback(session, "dense")
    for number in range(999):
        status = AnnotationStatus.REJECTED if number == 0 else AnnotationStatus.APPROVED
        session.add(Annotation(document_id=document_id, type=f"t{number}", value="A", start=0, end=1, status=status))
    answer_jobs(session, [job.id], outcome())
    learn(session, 3)
    session.add(Annotation(document_id=document_id, type="the 999th", value="A", start=0, end=1))
    assert not find_due_consolidation(session)
    session.add(Annotation(document_id=document_id, type="the thousandth", value="A", start=0, end=1))
    assert find_due_consolidation(session)
    learn(session, 1)
    consolidate(session, Decision.PROMOTED)
    assert not find_due_consolidation(session)


def test_after_a_consolidation_the_next_is_due_with_a_quarter_more_whatever_became_of_it(session: Session) -> None:
    learn(session, 90)
    consolidate(session, Decision.NOT_PROMOTED)
    assert not find_due_consolidation(session)
    learn(session, 29)
    assert not find_due_consolidation(session)
    learn(session, 1)
    assert find_due_consolidation(session)


def test_consolidation_is_handed_over_once_for_each_run(session: Session) -> None:
    candidate = Candidate("mlflow-run", 3, "All of it.")
    job = add_consolidation(session, "run", candidate)
    assert (job.type, job.triggered_by, job.note) == (JobType.CONSOLIDATION, "consolidation", "All of it.")
    assert add_consolidation(session, "run", candidate).id == job.id
    assert find_candidate(session, [job.id]) == candidate
    assert find_candidate(session, [add_feedback(session, "a")[0].id]) is None


class SimulatedFeedback:
    """Feedback that waits until a point in time, and a clock that sleeping advances."""

    def __init__(self, ends_at: float) -> None:
        self.now, self.ends_at, self.checks = 0.0, ends_at, 0
        self.first = FeedbackFirst(self.waits, lambda: self.now, self.sleep)

    def waits(self) -> bool:
        self.checks += 1
        return self.now < self.ends_at

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_consolidation_is_held_until_no_feedback_waits() -> None:
    feedback = SimulatedFeedback(ends_at=42)
    feedback.first.hold()
    assert feedback.now == 42


def test_feedback_is_looked_for_at_most_once_a_second() -> None:
    feedback = SimulatedFeedback(ends_at=0)
    for _ in range(25):
        feedback.first.hold()
        feedback.now += 0.125
    assert feedback.checks == 4


def test_feedback_without_end_lets_the_consolidation_work_one_minute_in_eleven() -> None:
    feedback = SimulatedFeedback(ends_at=float("inf"))
    feedback.first.hold()
    assert feedback.now == 600
    feedback.now += 59
    feedback.first.hold()
    assert feedback.now == 659
    feedback.now += 1
    feedback.first.hold()
    assert feedback.now == 1260
