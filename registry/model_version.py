"""A registered version of the model, as clients see it; this module loads neither MLflow nor torch."""

from datetime import datetime

from pydantic import BaseModel, Field

from registry.outcome import ModelScores


class ModelVersion(BaseModel):
    """A registered version of the model."""

    version: str
    created_at: datetime
    is_champion: bool = Field(description="Whether extractions are served by this version")
    parent_version: str | None = Field(description="The version from which its fine-tuning started")
    reason: str = Field(description="Why it was promoted, or not")
    scores: ModelScores
    mlflow_run_id: str
    mlflow_run: str = Field(description="The run in the MLflow UI")
