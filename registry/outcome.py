"""What a run decided and why: the answer to its jobs."""

from collections.abc import Collection, Mapping
from datetime import datetime
from enum import StrEnum

from pydantic import AliasChoices, BaseModel, Field

from embeddinggemma_feasibility.calibration import Reliability
from embeddinggemma_feasibility.evaluation import Evaluation


class Decision(StrEnum):
    """What became of a job."""

    PROMOTED = "promoted"
    NOT_PROMOTED = "not_promoted"
    NOT_TRAINED = "not_trained"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ROLLED_BACK = "rolled_back"

    @property
    def may_be_repeated(self) -> bool:
        """Tell whether the same feedback again becomes a new job: no model has learned it."""
        return self in {Decision.NOT_PROMOTED, Decision.FAILED, Decision.CANCELLED, Decision.ROLLED_BACK}


LEARNED = {Decision.PROMOTED, Decision.NOT_TRAINED}  # the latter in an earlier release, which held documents out


class ModelScores(BaseModel):
    """One model's scores in a comparison."""

    version: str | None = Field(None, description="Registered version; null until it is registered")
    score: float | None = Field(
        description="Value F1 on the documents in `unseen`, by which models are compared; null if there is none"
    )
    corrections_reproduced: float | None = Field(
        None,
        validation_alias=AliasChoices("corrections_reproduced", "corrections_kept"),  # the name in earlier versions
        description="Share of the values that this feedback corrected which the model gets right",
    )
    reliability: Reliability | None = Field(
        None,
        description="How reliable a challenger's confidences are; each document is checked by what others taught. "
        "Null for the champion: the outcome that made it has them",
    )
    unseen: Evaluation = Field(
        validation_alias=AliasChoices("unseen", "held_out"),
        description="Scores on earlier documents, each measured by a part of the model that has not learned from it",
    )


class DocumentChange(BaseModel):
    """How often the new version and the champion read a value of one type differently in one document."""

    document_id: str
    type: str
    improved: int = Field(description="Values that only the new version reads right")
    worsened: int = Field(description="Values that only the champion reads right")


class Corrections(BaseModel):
    """What became of the corrections in one document."""

    corrections: int = Field(description="Values that the champion reads otherwise than the annotations say")
    reproduced: int = Field(description="How many of these the new version reads as they say")


class Effect(BaseModel):
    """What the corrections in some documents did, and what the run changed in others."""

    summary: str = Field(description="All of this in one sentence")
    corrections: int = Field(description="Values that the champion reads otherwise than the annotations say")
    reproduced: int = Field(description="How many of these the new version reads as they say")
    by_document: dict[str, Corrections] = Field(
        default_factory=dict, description="The same for each corrected document"
    )
    changes: list[DocumentChange] = Field(
        description="In other reviewed documents, at most twenty, each read by a part of a model that has not seen it"
    )

    @classmethod
    def summarise(cls, by_document: Mapping[str, Corrections], changes: list[DocumentChange]) -> "Effect":
        """Return the effect with its sums and its sentence."""
        corrections, reproduced = (
            sum(getattr(each, name) for each in by_document.values()) for name in ("corrections", "reproduced")
        )
        summary = f"{reproduced} of {corrections} corrected values are read right now"
        if not corrections:
            summary = "No value needed a correction"
        if changes:
            others = len({change.document_id for change in changes})
            improved, worsened = (sum(getattr(each, name) for each in changes) for name in ("improved", "worsened"))
            documents = f"{others} other document{'s' * (others != 1)}"
            summary += f"; in {documents}, {improved} became right and {worsened} wrong"
        return cls(
            summary=f"{summary}.",
            corrections=corrections,
            reproduced=reproduced,
            by_document=dict(by_document),
            changes=changes,
        )


class Outcome(BaseModel):
    """The result of a run."""

    decision: Decision = Field(
        description="`not_promoted`: set aside; POST /jobs/{id}/teach insists, and feedback sent again is judged anew; "
        "`rolled_back`: promoted, and set aside since a person went back to an earlier version; `not_trained`: all "
        "documents were deleted, or withdrawn; `failed` and `cancelled`: no model was made"
    )
    reason: str = Field(description="Why, in one or two sentences")
    flow_run_id: str
    decided_at: datetime | None = Field(None, description="When; null in outcomes of earlier releases")
    challenger: ModelScores | None = Field(None, description="The version made by this run; null if none was trained")
    champion: ModelScores | None = Field(None, description="The version served before; null before the first")
    effect: Effect | None = Field(None, description="What the corrections did; null if no version was made")
    training_documents: list[str] = Field(default_factory=list, description="Documents of the job that the run learned")
    mlflow_run_id: str | None = None

    @property
    def live_version(self) -> str | None:
        """The version that learned the job, None if none did, or if a person has gone back to before it."""
        return self.challenger.version if self.challenger and self.decision == Decision.PROMOTED else None

    def restrict(self, document_ids: Collection[str]) -> "Outcome":
        """Return the answer to a job with these documents, of a run that learned others, too."""
        effect = self.effect
        if effect:
            own = {document_id: of for document_id, of in effect.by_document.items() if document_id in document_ids}
            effect = Effect.summarise(own, effect.changes)
        learned = [document_id for document_id in self.training_documents if document_id in document_ids]
        return self.model_copy(update={"effect": effect, "training_documents": learned})
