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
        SecretStr("sqlite:///.local/contract-feedback.db"),
        description="SQLAlchemy URL of the database. SQLite serves one machine; several need "
        "`postgresql+psycopg://user:password@host/name`, with the extra `postgresql`",
    )
    database_connections: int = Field(
        40,
        ge=5,
        description="Requests that an API process answers at once, each with a connection to the database; the others "
        "wait. It opens up to 10 more for its threads; a worker keeps one, a run opens one. All processes together "
        "must stay below PostgreSQL's `max_connections`, 100 by default. A process has 40 threads: more has no effect",
    )
    document_store_url: str = Field(
        ".local/documents",
        description="Where original files are stored: a folder or, for several machines, `s3://bucket/folder`, with "
        "the extra `s3` and the usual `AWS_…` variables",
    )
    mlflow_tracking_uri: str = Field(
        "http://127.0.0.1:5000",
        description="MLflow's tracking server and registry, which has all models and says which one is served",
    )
    mlflow_public_url: str | None = Field(
        None, description="MLflow's address in links, if people open it at another one, for example behind a proxy"
    )
    public_url: str | None = Field(
        None,
        description="The API's address as people open it. Prefect's reports link to its pages; without it they link to "
        "none",
    )
    model_name: str = Field(
        "contract-entities",
        description="Name of the registered model in MLflow. Two installations that share MLflow need two names",
    )
    deployment: str = Field(
        "learn-from-feedback/feedback",
        description="The Prefect deployment that the API starts, `flow/name`. Two installations that share Prefect "
        "need two names",
    )
    consolidation_deployment: str = Field(
        "consolidate/consolidation",
        description="The Prefect deployment that fits a model from nothing in the background, `flow/name`",
    )
    work_pool: str = Field(
        "contract-feedback",
        description="The Prefect work pool of both deployments, which workers ask for runs and the API for workers",
    )
    encoder: str = Field(
        "packaged",
        description="Base encoder: `packaged`, a local folder, or a name on the hub. All processes need the same one; "
        "models of another are not loaded",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="Where a consolidation computes; `auto` is the GPU if there is one. Feedback is always learned on "
        "the CPU",
    )
    cache_folder: str = Field(
        ".local/cache",
        description="Where models and encoded documents are cached, best in one folder for all processes of a machine: "
        "one without them encodes a document again. It may be deleted at any time",
    )
    cache_bytes: int = Field(
        4_000_000_000,
        description="Maximum size of the encoded documents in the cache; those not used for longest are deleted",
    )
    allowed_hosts: frozenset[Annotated[str, StringConstraints(to_lower=True, pattern=r"^[\w.-]+$")]] = Field(
        frozenset(),
        description="Names of this installation behind a proxy on the same machine: a JSON list, no ports. An API on "
        "127.0.0.1 refuses all other names, since any website could use them",
    )
    max_upload_bytes: int = Field(50_000_000, description="Maximum size of an upload, which is read into memory")
    max_json_bytes: int = Field(8_000_000, description="Maximum size of a JSON body, such as a Label Studio export")
    max_json_values: int = Field(
        200_000, description="Maximum number of values in a JSON body, counted by its commas: each takes time to check"
    )
    max_pages: int = Field(2_000, description="Maximum number of pages of a PDF")
    max_characters: int = Field(
        1_000_000, description="Maximum number of characters of a document: its encoding takes time and memory"
    )
    max_annotations: int = Field(2_000, le=MOST_ANNOTATIONS, description="Maximum number of annotations of a document")
    max_types: int = Field(
        200, description="Maximum number of entity types of all approved annotations: each makes the model larger"
    )
    max_waiting_jobs: int = Field(
        5_000, description="Maximum number of jobs without an answer; further feedback is refused with 429"
    )
    requests_per_minute: int = Field(
        3_000, description="Requests per minute and key that an API process answers; two processes answer twice as many"
    )
    refusals_per_minute: int = Field(
        60, description="Requests without a valid key, per minute and address, that are answered 401 instead of 429"
    )
    webhook_private_addresses: bool = Field(
        False,
        description="Whether webhooks may be sent to private addresses, such as those of this machine: who may add a "
        "webhook could reach them",
    )
    label_studio_url: Annotated[str, StringConstraints(pattern=r"^https?://\S+$")] | None = Field(
        None, description="Label Studio's address, from which `Start training` there has its annotations read"
    )
    label_studio_token: SecretStr | None = Field(
        None, description="A token of a user of Label Studio who may read its projects"
    )
    log_format: Literal["text", "json"] = Field("text", description="Lines of the log: text, or an object of JSON each")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        "INFO", description="The lowest level of what is logged"
    )
    pdf_seconds: float = Field(15, description="Time limit for reading a PDF, in a process of its own")
    pdf_memory_bytes: int = Field(
        2_000_000_000, description="Address space limit of that process, so that no PDF takes the machine's memory"
    )

    @property
    def mlflow_ui_url(self) -> str:
        """Return the address of the MLflow UI."""
        return (self.mlflow_public_url or self.mlflow_tracking_uri).rstrip("/")


@lru_cache
def get_settings() -> Settings:
    """Return this process's settings, read from the environment once."""
    return Settings()
