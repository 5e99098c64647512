"""Settings: addresses, folders and limits, read from the environment."""

from functools import lru_cache
from typing import Annotated, Literal

from pydantic import Field, SecretStr, StringConstraints
from pydantic_settings import BaseSettings, SettingsConfigDict

MOST_ANNOTATIONS = 10_000  # of one document, whatever the settings


class Settings(BaseSettings):
    """Read from environment variables that start with `CONTRACT_FEEDBACK_`.

    The address of Prefect is its own setting, `PREFECT_API_URL`; time limits are in `feedback/time_limits.py`.
    """

    model_config = SettingsConfigDict(env_prefix="CONTRACT_FEEDBACK_", frozen=True)

    database_url: SecretStr = Field(
        SecretStr("sqlite:///.local/contract-feedback.db"), description="SQLAlchemy URL: SQLite or postgresql+psycopg"
    )
    document_store_url: str = Field(
        ".local/documents", description="Where original files are stored: a folder, or s3://bucket/folder"
    )
    mlflow_tracking_uri: str = Field("http://127.0.0.1:5000", description="MLflow's tracking server and registry")
    mlflow_public_url: str | None = Field(
        None, description="MLflow's address in links, if people open it at another one"
    )
    public_url: str | None = Field(None, description="The API's address, for links to its pages in Prefect's reports")
    model_name: str = Field("contract-entities", description="Name of the registered model in MLflow")
    deployment: str = Field("learn-from-feedback/feedback", description="The Prefect deployment to start")
    consolidation_deployment: str = Field(
        "consolidate/consolidation", description="The Prefect deployment that consolidates"
    )
    work_pool: str = Field("contract-feedback", description="The Prefect work pool of both deployments")
    encoder: str = Field("packaged", description="Base encoder: 'packaged', a local folder, or a name on the hub")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where a consolidation computes; 'auto' is the GPU if there is one"
    )
    cache_folder: str = Field(
        ".local/cache", description="Where the API and the runs of one machine cache models and encoded documents"
    )
    cache_bytes: int = Field(4_000_000_000, description="Maximum size of the encoded documents in the cache")
    allowed_hosts: frozenset[Annotated[str, StringConstraints(to_lower=True, pattern=r"^[\w.-]+$")]] = Field(
        frozenset(), description="Names of this installation behind a proxy on the same machine: a JSON list, no ports"
    )
    max_upload_bytes: int = Field(50_000_000, description="Maximum size of an upload")
    max_json_bytes: int = Field(8_000_000, description="Maximum size of a JSON body, such as a Label Studio export")
    max_json_values: int = Field(
        200_000, description="Maximum number of values in a JSON body, counted by its commas: each takes time to check"
    )
    max_pages: int = Field(2_000, description="Maximum number of pages of a PDF")
    max_characters: int = Field(1_000_000, description="Maximum number of characters of a document")
    max_annotations: int = Field(2_000, le=MOST_ANNOTATIONS, description="Maximum number of annotations of a document")
    max_types: int = Field(200, description="Maximum number of entity types of all approved annotations")
    max_waiting_jobs: int = Field(5_000, description="Maximum number of jobs without an answer")
    requests_per_minute: int = Field(3_000, description="Requests per minute and key that an API process answers")
    refusals_per_minute: int = Field(
        60, description="Requests without a valid key, per minute and address, that are answered 401 instead of 429"
    )
    webhook_private_addresses: bool = Field(
        False, description="Whether webhooks may be sent to private addresses, such as those of this machine"
    )
    label_studio_url: Annotated[str, StringConstraints(pattern=r"^https?://\S+$")] | None = Field(
        None, description="Label Studio's address, from which `Start training` there has its annotations read"
    )
    label_studio_token: SecretStr | None = Field(None, description="A token of a user who may read its projects")
    log_format: Literal["text", "json"] = Field("text", description="Lines of the log: text, or an object of JSON each")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        "INFO", description="The lowest level of what is logged"
    )
    pdf_seconds: float = Field(15, description="Time limit for reading a PDF")
    pdf_memory_bytes: int = Field(2_000_000_000, description="Address space limit of the process that reads a PDF")

    @property
    def mlflow_ui_url(self) -> str:
        """Return the address of the MLflow UI."""
        return (self.mlflow_public_url or self.mlflow_tracking_uri).rstrip("/")


@lru_cache
def get_settings() -> Settings:
    """Return this process's settings, read from the environment once."""
    return Settings()
