"""What a run decided and why: the answer to its jobs."""

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
        """Tell whether the same feedback again becomes a new job: no model was made, or a person went back."""
        return self in {Decision.FAILED, Decision.CANCELLED, Decision.ROLLED_BACK}


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


class Effect(BaseModel):
    """What the corrections of a run did."""

    summary: str = Field(description="All of this in one sentence")
    corrections: int = Field(description="Values that the champion reads otherwise than this run's annotations say")
    reproduced: int = Field(description="How many of these the new version reads as they say")
    changes: list[DocumentChange] = Field(
        description="In other reviewed documents, at most twenty, each read by a part of a model that has not seen it"
    )


class Outcome(BaseModel):
    """The result of a run."""

    decision: Decision = Field(
        description="`not_promoted`: the feedback is set aside until it is sent again or the version is promoted; "
        "`rolled_back`: promoted, and set aside since a person went back to an earlier version; `not_trained`: all "
        "documents were deleted, or withdrawn; `failed` and `cancelled`: no model was made"
    )
    reason: str = Field(description="Why, in one or two sentences")
    flow_run_id: str
    challenger: ModelScores | None = Field(None, description="The version made by this run; null if none was trained")
    champion: ModelScores | None = Field(None, description="The version served before; null before the first")
    effect: Effect | None = Field(None, description="What the corrections did; null if no version was made")
    training_documents: list[str] = Field(default_factory=list, description="Documents from which this run learned")
    mlflow_run_id: str | None = None
