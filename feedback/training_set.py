"""What one run works on: the documents it learns from, those it replays, and those that measure both models."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlmodel import Session, col, select

from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.halves import half_of
from embeddinggemma_feasibility.training_config import TrainingConfig
from feedback.claiming import are_suspected
from feedback.consolidation import Candidate, find_candidate
from feedback.drift import Drift, read_drift
from feedback.replay import choose_replay_documents
from feedback.unlearning import is_obsolete, list_handed_over
from registry.lessons import list_learned_lessons, list_lessons, load_lessons
from registry.tables import Job, JobDocument

_MAX_MEASURED = 20  # both models extract each, so this bounds the time of a run


@dataclass(frozen=True)
class TrainingSet:
    """The jobs a run has claimed and the documents it needs; every list but `training` is bounded.

    `replay` stands for all `earlier_count` documents that were learned before. `lessons` holds, for each document of
    both, the job that teaches it. With a `candidate`, the run hands over a consolidation, and `training` holds the
    documents learned meanwhile; `unlearnings` are the requests to unlearn that it answers. An obsolete candidate may
    bring back what was unlearned. The jobs are suspected if runs failed on them, or a larger batch with them was
    refused. `insisted` names who insists on learning a document, by its id. `drift` is what the versions before lost.
    """

    job_ids: list[str]
    training: list[AnnotationData]
    replay: list[AnnotationData]
    earlier_count: int
    lessons: Mapping[str, str]
    candidate: Candidate | None = None
    is_suspected: bool = False
    unlearnings: list[str] = field(default_factory=list)
    is_obsolete: bool = False
    insisted: dict[str, str] = field(default_factory=dict)
    drift: Drift = field(default_factory=Drift)

    def describe(self) -> str:
        """Return what the run works on, in one sentence with numbers."""
        jobs, documents = len(self.job_ids), len(self.training)
        annotations = sum(len(data.spans) for data in self.training)
        return (
            f"Claimed {jobs} job{'s' * (jobs != 1)}; {documents} document{'s' * (documents != 1)} to learn, with "
            f"{annotations} annotations; of {self.earlier_count} earlier ones {len(self.replay)} to replay, "
            f"{len(self.measured)} to measure both models"
        )

    @property
    def insisting(self) -> list[str]:
        """Return who insists, if somebody does for each document that is learned; else nobody."""
        names = [self.insisted.get(data.document_id) for data in self.training]
        return sorted({name for name in names if name}) if all(names) else []

    @property
    def measured(self) -> list[AnnotationData]:
        """Return the replayed documents that measure both models.

        In a step from the champion, the tagger that is blind to a document changes only if there is feedback on a
        document of the other half. What a person insisted on does not measure.
        """
        changed = {1 - half_of(data.text) for data in self.training}
        agreed = [data for data in self.replay if data.document_id not in self.insisted]
        return [data for data in agreed if self.candidate or half_of(data.text) in changed][:_MAX_MEASURED]


def load_training_set(session: Session, job_ids: list[str]) -> TrainingSet:
    """Load what the jobs teach, and the earlier documents that go with it."""
    candidate, learned = find_candidate(session, job_ids), list_learned_lessons(session)
    training = list_lessons(session, job_ids)
    if candidate:
        training = list_learned_lessons(session, since=candidate.snapshot)
    chosen = choose_replay_documents(list(learned), training, TrainingConfig().replay_documents)
    replay = {document_id: learned[document_id] for document_id in chosen}
    return TrainingSet(
        job_ids=job_ids,
        training=load_lessons(session, training),
        replay=load_lessons(session, replay),
        earlier_count=len(learned.keys() - training.keys()),
        lessons={**training, **replay},
        candidate=candidate,
        is_suspected=are_suspected(session, job_ids),
        unlearnings=list_handed_over(session, job_ids) if candidate else [],
        is_obsolete=candidate is not None and is_obsolete(session, candidate),
        insisted=_list_insisted(session, [*job_ids, *replay.values()]),
        drift=read_drift(session),
    )


def _list_insisted(session: Session, job_ids: list[str]) -> dict[str, str]:
    query = select(JobDocument.document_id, Job.insisted_by).join(Job).where(col(Job.id).in_(job_ids))
    return {document_id: name for document_id, name in session.exec(query) if name}
