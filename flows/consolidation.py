"""The flow that fits a model anew on everything learned, in the background, and hands it over to a run on feedback."""

from collections.abc import Mapping
from dataclasses import dataclass

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed
from torch import nn

from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.contract_data_trainer import FineTuningResult, consolidate_model
from embeddinggemma_feasibility.device import choose_device
from embeddinggemma_feasibility.encoders import load_encoder
from embeddinggemma_feasibility.trained_model import TrainedModel
from feedback.consolidation import Candidate, FeedbackFirst, add_consolidation
from feedback.contradictions import Contradiction, find_contradictions
from flows.artifacts import Progress, publish_consolidation, publish_contradictions
from flows.task_types import computing_task, task_with_neighbours
from registry.cache import build_representation_cache
from registry.database import open_session
from registry.errors import UnavailableError
from registry.jobs import count_waiting_jobs, get_snapshot
from registry.lessons import list_learned_lessons, load_lessons
from registry.lineage import Lineage
from registry.models import ModelRegistry
from registry.settings import get_settings


@dataclass(frozen=True)
class Learned:
    """All learned documents, read after `snapshot` was taken; `lessons` has the job that teaches each."""

    snapshot: int
    documents: list[AnnotationData]
    lessons: Mapping[str, str]


@dataclass(frozen=True)
class Champion:
    """The champion, whose adapter may be kept."""

    version: str
    trained: TrainedModel


@flow(name="consolidate")
def consolidate() -> State[None]:
    """Fit a model from nothing on the learned documents, and add the job that hands it over.

    It lets feedback go first. A retry continues where the run stopped: it neither fits nor hands over twice.
    """
    flow_run_id, progress = str(runtime.flow_run.id), Progress()
    candidate, fitted = find_candidate(flow_run_id), None
    if candidate is None:
        feedback_first = FeedbackFirst(_has_feedback)
        feedback_first.hold()
        learned = load_learned()
        if not learned.documents:
            return Completed(message="No document was learned yet: there is nothing to consolidate")
        champion = load_champion()
        fitted = fit(learned, champion, feedback_first, progress)
        candidate = save_candidate(flow_run_id, learned, champion, fitted)
    job_id = hand_over(flow_run_id, candidate)
    report(candidate, job_id)
    if fitted:
        report_contradictions(list_contradictions(learned, fitted))
    progress.reach(100)
    return Completed(message=f"{candidate.description} Job {job_id} hands it over.")


@task_with_neighbours
def find_candidate(flow_run_id: str) -> Candidate | None:
    """Find the model that this run had saved before it was interrupted."""
    found = ModelRegistry(get_settings()).find_candidate(flow_run_id)
    return Candidate(*found) if found else None


@task_with_neighbours
def load_learned() -> Learned:
    """Load all that was learned."""
    with open_session(get_settings()) as session:
        snapshot = get_snapshot(session)
        lessons = list_learned_lessons(session)
        return Learned(snapshot, load_lessons(session, lessons), lessons)


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
        f"Consolidation: fitted from nothing on {documents} "
        f"with {types} type{'s' * (types != 1)} in {fitted.seconds:.0f} s."
    )
    lineage = Lineage(
        training={data.document_id: learned.lessons[data.document_id] for data in learned.documents},
        replay={},
        adapter_version=champion.version if champion else None,
    )
    run_id = ModelRegistry(get_settings()).save_candidate(flow_run_id, fitted, lineage, learned.snapshot, description)
    return Candidate(run_id, learned.snapshot, description)


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
