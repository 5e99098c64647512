"""Where things are."""

from functools import lru_cache

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read from environment variables that start with `CONTRACT_FEEDBACK_`.

    Prefect's address is Prefect's own setting, `PREFECT_API_URL`.
    """

    model_config = SettingsConfigDict(env_prefix="CONTRACT_FEEDBACK_", frozen=True)

    database_url: SecretStr = Field(
        SecretStr("sqlite:///.local/contract-feedback.db"), description="SQLAlchemy URL: SQLite or postgresql+psycopg"
    )
    document_store_url: str = Field(".local/documents", description="Where original files lie: a folder or fsspec URL")
    mlflow_tracking_uri: str = Field("http://127.0.0.1:5000", description="MLflow's tracking server and registry")
    mlflow_public_url: str | None = Field(None, description="MLflow's address for links, where it differs")
    model_name: str = Field("contract-entities", description="Name of the registered model in MLflow")
    deployment: str = Field("learn-from-feedback/feedback", description="The Prefect deployment to start")
    work_pool: str = Field("contract-feedback", description="The Prefect work pool of that deployment")
    encoder: str = Field("packaged", description="Base encoder: 'packaged', a local folder, or a name on the hub")
    cache_folder: str = Field(
        ".local/cache", description="Where API and runs keep models, and what the encoder has read"
    )
    cache_bytes: int = Field(4_000_000_000, description="Size at most of what the encoder has read")
    max_upload_bytes: int = Field(50_000_000, description="Largest file that can be uploaded")
    max_pages: int = Field(2_000, description="Pages of a PDF at most")
    max_characters: int = Field(1_000_000, description="Characters of a document at most")
    max_annotations: int = Field(2_000, description="Annotations of a document at most")
    max_waiting_jobs: int = Field(5_000, description="Jobs without an answer at most")
    requests_per_minute: int = Field(3_000, description="Requests with one key that an API process answers in a minute")
    pdf_seconds: float = Field(15, description="How long reading a PDF may take")
    pdf_memory_bytes: int = Field(2_000_000_000, description="Address space of the process that reads a PDF")

    @property
    def mlflow_ui_url(self) -> str:
        """Return the address a person opens MLflow at."""
        return (self.mlflow_public_url or self.mlflow_tracking_uri).rstrip("/")


@lru_cache
def get_settings() -> Settings:
    """Return this process's settings, read from the environment once."""
    return Settings()
