"""The flow that fits a model anew on everything learned, in the background, and hands it over to a run on feedback."""

from collections.abc import Mapping
from dataclasses import dataclass

from prefect import flow, get_run_logger, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed
from torch import nn

from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.contract_data_trainer import FineTuningError, FineTuningResult, consolidate_model
from embeddinggemma_feasibility.device import choose_device
from embeddinggemma_feasibility.encoders import load_encoder
from embeddinggemma_feasibility.trained_model import TrainedModel
from feedback.consolidation import Candidate, FeedbackFirst, add_consolidation
from feedback.contradictions import Contradiction, find_contradictions
from feedback.unlearning import (
    claim_unlearnings,
    delete_cached,
    get_last_withdrawal,
    is_unlearning_due,
    list_deleted,
)
from flows.artifacts import Progress, publish_consolidation, publish_contradictions
from flows.run_names import count_documents, name_run
from flows.task_types import computing_task, task_with_neighbours
from registry.cache import build_representation_cache
from registry.database import open_session
from registry.errors import UnavailableError
from registry.jobs import count_waiting_jobs, get_snapshot
from registry.lessons import list_learned_lessons, load_lessons
from registry.lineage import Lineage
from registry.logs import set_log_ids
from registry.models import ModelRegistry
from registry.settings import get_settings


@dataclass(frozen=True)
class Learned:
    """All learned documents, read after `snapshot` was taken, and after the requests to unlearn up to `withdrawals`.

    `lessons` has the job that teaches each document. `unlearnings` are the requests that this run is to answer. While
    any request is unanswered, the champion has learned what is withdrawn, and the run takes nothing from it.
    """

    snapshot: int
    documents: list[AnnotationData]
    lessons: Mapping[str, str]
    withdrawals: int = 0
    unlearnings: tuple[str, ...] = ()
    keeps_adapter: bool = True

    def describe(self) -> str:
        """Return what the run works on, in one sentence with numbers."""
        documents, annotations = len(self.documents), sum(len(data.spans) for data in self.documents)
        requests = f"; claimed requests to unlearn: {' '.join(self.unlearnings)}" if self.unlearnings else ""
        return f"{count_documents(documents)} learned up to job {self.snapshot}, {annotations} annotations{requests}"


@dataclass(frozen=True)
class Champion:
    """The champion, whose adapter may be kept."""

    version: str
    trained: TrainedModel


@flow(name="consolidate")
def consolidate() -> State[None]:
    """Fit a model from nothing on the learned documents, and add the job that hands it over.

    It lets feedback go first. A retry continues where the run stopped: it neither fits nor hands over twice. If
    something is to be unlearned, that is gone from the documents; traces of deleted documents are deleted, too.
    """
    flow_run_id, progress, logger = str(runtime.flow_run.id), Progress(), get_run_logger()
    candidate, fitted = find_candidate(flow_run_id), None
    if candidate is None:
        feedback_first = FeedbackFirst(_has_feedback)
        feedback_first.hold()
        learned = load_learned(flow_run_id)
        if not learned.documents and not learned.unlearnings:
            name_run("nothing to consolidate")
            return Completed(message="No document was learned yet: there is nothing to consolidate")
        logger.info(learned.describe())
        champion = load_champion() if learned.keeps_adapter else None
        try:
            fitted = fit(learned, champion, feedback_first, progress)
            logger.info(fitted.describe())
            candidate = save_candidate(flow_run_id, learned, champion, fitted)
        except FineTuningError as error:
            if not learned.unlearnings:
                raise
            candidate = describe_nothing(learned, error)
    delete_traces(flow_run_id)
    job_id = hand_over(flow_run_id, candidate)
    set_log_ids(job_ids=[job_id])
    logger.info("Handed over in job %s: %s", job_id, candidate.description)
    name_run(candidate.description.partition(". ")[0].rstrip("."))
    report(candidate, job_id)
    if fitted:
        contradictions = list_contradictions(learned, fitted)
        logger.info("Places that contradict what was learned from other documents: %d", len(contradictions))
        report_contradictions(contradictions)
    progress.reach(100)
    return Completed(message=f"{candidate.description} Job {job_id} hands it over.")


@task_with_neighbours
def find_candidate(flow_run_id: str) -> Candidate | None:
    """Find the model that this run had saved before it was interrupted."""
    found = ModelRegistry(get_settings()).find_candidate(flow_run_id)
    return Candidate(*found) if found else None


@task_with_neighbours
def load_learned(flow_run_id: str) -> Learned:
    """Claim the requests to unlearn, and load all that was learned and is not withdrawn.

    In two transactions: the first writes, and on SQLite would keep others from writing as long as the documents load.
    """
    with open_session(get_settings()) as session:
        unlearnings = tuple(claim_unlearnings(session, flow_run_id))
    with open_session(get_settings()) as session:
        is_due, withdrawals, snapshot = is_unlearning_due(session), get_last_withdrawal(session), get_snapshot(session)
        lessons = list_learned_lessons(session)
        documents = load_lessons(session, lessons)
        return Learned(snapshot, documents, lessons, withdrawals, unlearnings, keeps_adapter=not is_due)


@task_with_neighbours
def load_champion() -> Champion | None:
    """Load the champion."""
    registry = ModelRegistry(get_settings())
    version = registry.find_champion()
    return Champion(version, registry.load_model(version)) if version else None


@computing_task
def fit(
    learned: Learned, champion: Champion | None, feedback_first: FeedbackFirst, progress: Progress
) -> FineTuningResult:
    """Fit a model from nothing, and pause while feedback waits."""

    def on_progress(share: float) -> None:
        feedback_first.hold()
        progress.reach(5 + 85 * share)

    encoder = load_encoder(get_settings().encoder)
    nn.Module.to(encoder.model, choose_device(get_settings().device))
    cache = build_representation_cache(get_settings())
    trained = champion.trained if champion else None
    return consolidate_model(learned.documents, trained, encoder, cache=cache, on_progress=on_progress)


@task_with_neighbours
def save_candidate(
    flow_run_id: str, learned: Learned, champion: Champion | None, fitted: FineTuningResult
) -> Candidate:
    """Store the fitted model in MLflow, so that no retry fits again."""
    count, all_count, types = len(fitted.learned), len(learned.documents), len(fitted.model.served.types)
    documents = f"{count} of {all_count} documents" if count < all_count else f"{count} document{'s' * (count != 1)}"
    description = (
        f"{'Unlearning' if learned.unlearnings else 'Consolidation'}: fitted from nothing on {documents} "
        f"with {types} type{'s' * (types != 1)} in {fitted.seconds:.0f} s."
    )
    if learned.unlearnings:
        adapter = "The adapter was trained anew on them." if fitted.model.full.adapted_spans else "It has no adapter."
        description = f"{description} Nothing is from an earlier version. {adapter}"
    lineage = Lineage(
        training={data.document_id: learned.lessons[data.document_id] for data in learned.documents},
        replay={},
        adapter_version=champion.version if champion else None,
    )
    known = (learned.snapshot, description, learned.withdrawals)
    return Candidate(ModelRegistry(get_settings()).save_candidate(flow_run_id, fitted, lineage, *known), *known)


def describe_nothing(learned: Learned, error: FineTuningError) -> Candidate:
    """Return what is handed over if no model results from what is left."""
    reason = str(error) if learned.documents else "Nothing is left to learn from"
    description = f"Unlearning: {reason[0].upper()}{reason[1:].rstrip('.')}."
    return Candidate(None, learned.snapshot, description, learned.withdrawals)


@task_with_neighbours
def delete_traces(flow_run_id: str) -> None:
    """Delete what MLflow's lineage and this machine's cache hold of the deleted documents that the run unlearns."""
    with open_session(get_settings()) as session:
        deleted = {each.id: each.text_hash for each in list_deleted(session, flow_run_id)}
    if deleted:
        delete_cached(build_representation_cache(get_settings()), deleted.values())
        ModelRegistry(get_settings()).forget_documents(deleted)
        get_run_logger().info("Deleted the traces of %s", count_documents(len(deleted)))


@task_with_neighbours
def hand_over(flow_run_id: str, candidate: Candidate) -> str:
    """Add the job whose run compares the candidate with the champion, and return the job's id."""
    with open_session(get_settings()) as session:
        return add_consolidation(session, flow_run_id, candidate).id


@task_with_neighbours
def report(candidate: Candidate, job_id: str) -> None:
    """Publish the report."""
    publish_consolidation(candidate, job_id)


@computing_task
def list_contradictions(learned: Learned, fitted: FineTuningResult) -> list[Contradiction]:
    """Find the annotations that contradict what was learned from other documents."""
    model, cache = fitted.model, build_representation_cache(get_settings())
    documents = [data for data in learned.documents if data.document_id in model.measurements]
    return find_contradictions(documents, model.extract_unseen(documents, model.served.calibration, cache))


@task_with_neighbours
def report_contradictions(contradictions: list[Contradiction]) -> None:
    """Publish the contradictions, for a person to check."""
    publish_contradictions(contradictions)


def _has_feedback() -> bool:
    """Tell whether a job is unanswered; while the database does not answer, no feedback can be learned either."""
    try:
        with open_session(get_settings()) as session:
            return count_waiting_jobs(session) > 0
    except UnavailableError:
        return False
