"""What a run decided: the answer to its jobs."""

from pydantic import BaseModel, Field

from embeddinggemma_feasibility.evaluation import ModelScores


class Outcome(BaseModel):
    """A run's result, with the reason for its decision."""

    flow_run_id: str
    promoted: bool
    failed: bool = Field(False, description="No model was made, and none will be unless it is asked for again")
    cancelled: bool = Field(False, description="It failed because a person cancelled the run in Prefect")
    reason: str = Field(description="A sentence for a person")
    challenger: ModelScores | None = Field(None, description="The version made by this run; None if nothing was taught")
    champion: ModelScores | None = Field(None, description="The version served before; None before the first")
    taught_documents: list[str] = Field(default_factory=list)
    measured_documents: list[str] = Field(
        default_factory=list, description="Held-out documents: their feedback measures instead of teaching"
    )
    mlflow_run_id: str | None = None
