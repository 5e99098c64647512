"""Jobs as the client sees them, where no run is needed for it."""

from sqlmodel import Session

from feedback.claiming import cancel_jobs
from registry.jobs import get_job
from tests.api.conftest import Start
from tests.api.test_limits import mark, upload


def test_cancelled_feedback_is_answered_as_cancelled_and_becomes_a_new_job_when_sent_again(
    start: Start, session: Session
) -> None:
    client = start()
    address, body = f"/documents/{upload(client)}/feedback", {"annotations": [mark("Bell")]}
    job_id = client.post(address, json=body).json()["job_id"]
    get_job(session, job_id).launched_run_id = "run"
    cancel_jobs(session, "run")
    session.commit()
    job = client.get(f"/jobs/{job_id}").json()
    assert (job["status"], "send the feedback again" in job["message"]) == ("cancelled", True)
    assert client.post(address, json=body).json()["job_id"] != job_id
