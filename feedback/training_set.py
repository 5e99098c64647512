"""What one run works on: the documents it learns from, those it replays, and those that measure both models."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session

from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.evaluation import LabelledValue
from embeddinggemma_feasibility.training_config import TrainingConfig
from feedback.consolidation import Candidate, find_candidate
from feedback.held_out import ENOUGH_HELD_OUT, list_held_out_documents
from feedback.replay import choose_replay_documents
from registry.annotations import get_latest_annotations
from registry.corrections import list_corrected_documents, list_corrections
from registry.jobs import list_job_documents, list_learned_documents

_MAX_MEASURING_DOCUMENTS = 10  # both models extract each, so this bounds the time of a run


@dataclass(frozen=True)
class TrainingSet:
    """The jobs a run has claimed and the documents it needs; every list but `training` is bounded.

    `held_out_feedback` are the ids of those documents of the jobs that are held out. `held_out` are the newest held-out
    documents, which measure both models; while they are few, so do the `corrections` in `training` and `corrected`.
    With a `candidate`, the run hands over a consolidation, and `training` holds the documents learned meanwhile.
    """

    job_ids: list[str]
    training: list[AnnotationData]
    replay: list[AnnotationData]
    held_out: list[AnnotationData]
    held_out_feedback: list[str]
    corrected: list[AnnotationData]
    corrections: set[LabelledValue]
    candidate: Candidate | None = None

    @property
    def has_few_held_out(self) -> bool:
        """Tell whether too few documents are held out to compare models on them alone."""
        return len(self.held_out) < ENOUGH_HELD_OUT


def load_training_set(session: Session, job_ids: list[str]) -> TrainingSet:
    """Load the latest annotations of the jobs' documents, and the earlier documents that go with them."""
    candidate = find_candidate(session, job_ids)
    training = list_job_documents(session, job_ids, held_out=False)
    if candidate:
        training = list_learned_documents(session, since=candidate.snapshot)
    held_out = list_held_out_documents(session, _MAX_MEASURING_DOCUMENTS)
    replay = choose_replay_documents(session, training, TrainingConfig().replay_documents)
    corrected: Sequence[str] = []
    if len(held_out) < ENOUGH_HELD_OUT:
        corrected = list_corrected_documents(session, training, _MAX_MEASURING_DOCUMENTS - len(held_out))
    return TrainingSet(
        job_ids=job_ids,
        training=get_latest_annotations(session, training),
        replay=get_latest_annotations(session, replay),
        held_out=get_latest_annotations(session, held_out),
        held_out_feedback=list(list_job_documents(session, job_ids, held_out=True)),
        corrected=get_latest_annotations(session, corrected),
        corrections=list_corrections(session, [*training, *corrected]),
        candidate=candidate,
    )
