"""A deletion over a whole installation: from the request to the version that has never learned the document."""

import pytest

from tests.faults import BreakableInstallation, wait_until

pytestmark = pytest.mark.slow


def test_deleted_document_is_unlearned_in_the_background_while_feedback_goes_on(
    breakable: BreakableInstallation,
) -> None:
    http, documents = breakable.http, [breakable.upload() for _ in range(2)]
    breakable.check_learned(*[breakable.feed_back(document) for document in documents])
    before = breakable.find_champion()
    assert http.delete(f"/documents/{documents[0].id}").status_code == 204
    breakable.check_learned(breakable.feed_back())
    wait_until(lambda: "It is unlearned: versions from" in http.get(f"/documents/{documents[0].id}").json()["detail"])
    [request] = (job for job in http.get("/jobs").json()["items"] if job["job_type"] == "unlearning")
    answer = breakable.reviewer.wait_for_job(request["job_id"])
    version = answer["outcome"]["challenger"]["version"]
    assert answer["outcome"]["decision"] == "promoted"
    assert (
        http.get(f"/documents/{documents[0].id}")
        .json()["detail"]
        .endswith(f"versions from {version} on were made without it.")
    )
    assert http.post(f"/models/{before}/promote").status_code == 409
    for each in http.get("/models").json()["items"]:
        assert documents[0].id not in http.get(f"/models/{each['version']}").text
    breakable.check_learned(breakable.feed_back())
