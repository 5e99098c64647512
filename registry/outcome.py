"""What a run decided and why: the answer to its jobs."""

from enum import StrEnum

from pydantic import AliasChoices, BaseModel, Field

from embeddinggemma_feasibility.evaluation import Evaluation


class Decision(StrEnum):
    """What became of a job."""

    PROMOTED = "promoted"
    NOT_PROMOTED = "not_promoted"
    NOT_TRAINED = "not_trained"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def has_failed(self) -> bool:
        """Tell whether the run ended without doing its work, so that the same feedback becomes a new job."""
        return self in {Decision.FAILED, Decision.CANCELLED}


class ModelScores(BaseModel):
    """One model's scores in a comparison."""

    version: str | None = Field(None, description="Registered version; null until it is registered")
    score: float = Field(description="The number by which models are compared, from 0 to 1: decision 0003")
    corrections_reproduced: float | None = Field(
        None,
        validation_alias=AliasChoices("corrections_reproduced", "corrections_kept"),  # the name in earlier versions
        description="Share of all corrections so far that the model reproduces; null once five are held out",
    )
    held_out: Evaluation = Field(description="Scores on the held-out documents, from which no model learns")


class Outcome(BaseModel):
    """The result of a run."""

    decision: Decision = Field(
        description="`not_trained`: all documents were held out or deleted; `failed` and `cancelled`: no model was made"
    )
    reason: str = Field(description="Why, in one or two sentences")
    flow_run_id: str
    challenger: ModelScores | None = Field(None, description="The version made by this run; null if none was trained")
    champion: ModelScores | None = Field(None, description="The version served before; null before the first")
    training_documents: list[str] = Field(default_factory=list, description="Documents from which this run learned")
    held_out_documents: list[str] = Field(
        default_factory=list, description="Documents of this feedback that are held out: they measure models only"
    )
    mlflow_run_id: str | None = None
