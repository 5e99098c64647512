"""The whole loop with its database on PostgreSQL."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cli.installation import Stack
from client.errors import ApiError
from demo.client import ContractReviewer, ReviewedDocument
from demo.contract_generator import generate_contract
from tests.postgresql import PostgreSQL

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client(postgresql: PostgreSQL, elsewhere: Stack) -> ContractReviewer:
    assert elsewhere.environment["CONTRACT_FEEDBACK_DATABASE_URL"].startswith("postgresql")
    return ContractReviewer(elsewhere.api_url, elsewhere.api_key)


def upload(client: ContractReviewer, seed: int) -> ReviewedDocument:
    contract = generate_contract(seed)
    return client.upload(contract.filename, contract.pdf, contract.text, contract.spans)


def test_feedbacks_sent_at_once_are_learned_and_served(client: ContractReviewer) -> None:
    documents = [upload(client, seed) for seed in range(300, 304)]
    with ThreadPoolExecutor(8) as pool:
        job_ids = list(pool.map(client.feed_back, documents * 2))
    assert len(set(job_ids)) == len(documents)
    jobs = [client.wait_for_job(job_id) for job_id in job_ids[: len(documents)]]
    assert {job["status"] for job in jobs} == {"completed"}, jobs
    promoted = [job["outcome"]["challenger"]["version"] for job in jobs if job["outcome"]["decision"] == "promoted"]
    version, entities = client.extract(documents[0].id)
    assert version == max(promoted, key=int)
    assert entities


def test_feedback_survives_a_crash_of_the_database_and_is_refused_while_it_is_down(
    client: ContractReviewer, postgresql: PostgreSQL
) -> None:
    learning, refused = upload(client, 304), upload(client, 305)
    job_id = client.feed_back(learning)
    while client.read_job(job_id)["status"] == "pending":
        time.sleep(0.05)
    postgresql.crash()
    with pytest.raises(ApiError, match=r"503.*The database does not answer"):
        client.feed_back(refused)
    time.sleep(5)
    postgresql.start()
    assert client.wait_for_job(job_id)["status"] == "completed"
    assert client.wait_for_job(client.feed_back(refused))["status"] == "completed"
