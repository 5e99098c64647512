"""A registered version of the model, as clients see it; this module loads neither MLflow nor torch."""

from datetime import datetime

from pydantic import BaseModel, Field

from registry.outcome import Decision, ModelScores


class ModelVersion(BaseModel):
    """A registered version of the model."""

    version: str
    created_at: datetime
    is_champion: bool = Field(description="Whether extractions are served by this version")
    decision: Decision | None = Field(description="What the run that made it decided; a person may decide otherwise")
    promoted_at: datetime | None = Field(description="When it last became the champion; null if it never did")
    training_documents: int | None = Field(
        description="The number of documents that its run learned; null in versions of earlier releases"
    )
    flow_run_id: str | None = Field(description="The Prefect run that made it; null in versions of earlier releases")
    parent_version: str | None = Field(description="The version from which its fine-tuning started")
    reason: str = Field(description="Why it was promoted, or not")
    scores: ModelScores
    mlflow_run_id: str
    mlflow_run: str = Field(description="The run in the MLflow UI")
