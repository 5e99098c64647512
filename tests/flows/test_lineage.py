"""What a version was made from makes the same version again; the flows are real, in this process or in the stack."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from mlflow import MlflowClient
from sqlmodel import Session, select

from cli.installation import Stack
from demo.client import ContractReviewer
from embeddinggemma_feasibility.contract_data_trainer import consolidate_model, fine_tune_model
from embeddinggemma_feasibility.encoders import load_encoder
from embeddinggemma_feasibility.trained_model import TrainedModel
from feedback.consolidation import Candidate, FeedbackFirst
from feedback.training_set import TrainingSet
from flows import consolidation
from flows.artifacts import Progress
from flows.consolidation import consolidate
from flows.feedback import LearningRequest, learn_from_feedback
from registry.cache import hash_files
from registry.database import open_session
from registry.jobs import get_job
from registry.lessons import load_lessons
from registry.lineage import Lineage
from registry.models import ModelRegistry
from registry.outcome import Outcome
from registry.settings import Settings
from registry.tables import Job, JobType
from tests.flows.test_feedback import add_feedback
from tests.test_whole_loop import upload


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


def run_job(session: Session, job_id: str) -> Outcome:
    learn_from_feedback(LearningRequest(job_id=job_id))
    session.expire_all()
    outcome = get_job(session, job_id).outcome
    assert outcome
    assert outcome.challenger
    return outcome


def train_again(session: Session, settings: Settings, lineage: Lineage) -> TrainedModel:
    """Train on what a lineage names, without any cache of encoded documents."""
    registry, encoder = ModelRegistry(settings), load_encoder(settings.encoder)
    assert (encoder.sha256, encoder.model.device.type) == (lineage.encoder_sha256, lineage.device)
    training = load_lessons(session, {key: str(job_id) for key, job_id in lineage.training.items()})
    if lineage.earlier_count is None:
        champion = registry.load_model(lineage.adapter_version) if lineage.adapter_version else None
        return consolidate_model(training, champion, encoder, lineage.config).model
    replay = load_lessons(session, {key: str(job_id) for key, job_id in lineage.replay.items()})
    candidate = Candidate(lineage.candidate_run_id, 0, "") if lineage.candidate_run_id else None
    measured = TrainingSet([], training, replay, lineage.earlier_count, {}, candidate).measured
    start = registry.load_model(lineage.parent_version) if lineage.parent_version else None
    if lineage.candidate_run_id:
        start = registry.load_candidate(lineage.candidate_run_id)
    return fine_tune_model(training, start, replay, lineage.earlier_count, measured, encoder, lineage.config).model


def check_made_again(session: Session, settings: Settings, version: str) -> Lineage:
    """Check that training again makes the same files; return the version's lineage."""
    lineage = ModelRegistry(settings).get_lineage(version)
    with TemporaryDirectory() as folder:
        served, training = Path(folder) / "served", Path(folder) / "training"
        train_again(session, settings, lineage).save(served, training)
        tags = MlflowClient(settings.mlflow_tracking_uri).get_model_version(settings.model_name, version).tags
        assert (hash_files(served), hash_files(training)) == (tags["model_sha256"], tags["training_sha256"])
    return lineage


@pytest.mark.slow
@pytest.mark.usefixtures("flow_environment")
def test_steps_and_consolidations_are_made_again_from_their_lineage(session: Session, settings: Settings) -> None:
    for seed in range(1, 7):
        run_job(session, add_feedback(session, seed))
    assert check_made_again(session, settings, "1").parent_version is None
    of_step = check_made_again(session, settings, "5")
    assert (of_step.parent_version, of_step.earlier_count, len(of_step.replay)) == ("4", 4, 4)

    learned = consolidation.load_learned.fn("a run")
    consolidate()
    session.expire_all()
    handed_over = session.exec(select(Job).where(Job.type == JobType.CONSOLIDATION)).one()
    run_job(session, handed_over.id)
    of_consolidation = check_made_again(session, settings, "7")
    assert of_consolidation.training == learned.lessons
    assert (of_consolidation.adapter_version, of_consolidation.parent_version) == ("6", None)


@pytest.mark.slow
@pytest.mark.usefixtures("flow_environment")
def test_hand_over_that_learned_something_is_made_again_from_its_lineage(session: Session, settings: Settings) -> None:
    for seed in range(1, 4):
        run_job(session, add_feedback(session, seed))
    champion, learned = consolidation.load_champion.fn(), consolidation.load_learned.fn("a run")
    fitted = consolidation.fit.fn(learned, champion, FeedbackFirst(lambda: False), Progress())
    candidate = consolidation.save_candidate.fn("a run", learned, champion, fitted)
    run_job(session, add_feedback(session, 4))
    outcome = run_job(session, consolidation.hand_over.fn("a run", candidate))
    assert outcome.challenger
    lineage = check_made_again(session, settings, str(outcome.challenger.version))
    assert (lineage.candidate_run_id, lineage.parent_version) == (candidate.mlflow_run_id, None)
    assert list(lineage.training) == outcome.training_documents


@pytest.mark.slow
def test_version_of_the_warm_worker_is_made_again_in_another_process(stack: Stack, client: ContractReviewer) -> None:
    job = client.wait_for_job(client.feed_back(upload(client, 300)))
    version = job["outcome"]["challenger"]["version"]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in stack.environment.items():
            if name.startswith("CONTRACT_FEEDBACK_"):
                patch.setenv(name, value)
        settings = Settings()
    with open_session(settings) as session:
        check_made_again(session, settings, version)
