from datetime import timedelta

from sqlmodel import Session

from registry.jobs import add_job, find_last_feedback, list_jobs
from registry.tables import JobType
from tests.feedback.jobs import add_feedback


def test_last_feedback_is_the_one_stored_last_though_the_clock_was_set_back(session: Session) -> None:
    first, document_id = add_feedback(session, "a")
    second = add_job(session, JobType.FEEDBACK, [document_id], "tester")
    second.created_at = first.created_at - timedelta(hours=1)
    session.add(second)
    session.flush()
    assert find_last_feedback(session, document_id) == second
    assert list_jobs(session, 0, 2)[0] == [second, first]
