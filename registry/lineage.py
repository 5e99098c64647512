"""What a version was made from: enough to make it again."""

import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import AliasChoices, BaseModel, Field

from embeddinggemma_feasibility.training_config import TrainingConfig

if TYPE_CHECKING:  # it imports torch, which clients of the API do not wait for
    from embeddinggemma_feasibility.contract_data_trainer import FineTuningResult

_PACKAGE = "contract-feedback"
_ROOT = Path(__file__).parents[1]
_GIT_SECONDS = 5


class Origin(BaseModel):
    """What a version's training depended on, beside the documents; null in versions of earlier releases."""

    earlier_count: int | None = Field(None, description="Number of earlier documents that the replayed ones stand for")
    parent_version: str | None = Field(None, description="The version from which the training started")
    candidate_run_id: str | None = Field(
        None, description="The MLflow run of the consolidated model from which the training started instead"
    )
    adapter_version: str | None = Field(
        None, description="The champion during a consolidation, whose adapter is kept unless it is trained anew"
    )
    encoder: str | None = None
    encoder_sha256: str | None = None
    device: str | None = Field(None, description="Where the encoder computed: cpu or cuda")
    code_version: str | None = Field(None, description="The release and, in a git checkout, the commit")
    config: TrainingConfig | None = Field(None, description="All hyperparameters, the seed included")


class TaughtSpan(BaseModel):
    """An annotation as earlier releases stored it with a version."""

    type: str
    start: int
    end: int


class Lineage(Origin):
    """What a version was made from, as it is stored with the version.

    By the ids of the documents that were learned, and of those replayed, in the order of the training: the job whose
    lesson was read, or the annotations themselves in a version of an earlier release. A document that was deleted since
    may be missing.
    """

    training: dict[str, str | list[TaughtSpan]] = Field(validation_alias=AliasChoices("training", "taught"))
    replay: dict[str, str | list[TaughtSpan]] = Field(validation_alias=AliasChoices("replay", "replayed"))

    def complete(self, fine_tuning: "FineTuningResult") -> "Lineage":
        """Return the lineage with the encoder, the hyperparameters and the code of a training in this process."""
        tagger = fine_tuning.model.served
        of_training = {
            "encoder": tagger.encoder.name,
            "encoder_sha256": tagger.encoder.sha256,
            "device": tagger.encoder.model.device.type,
            "code_version": get_code_version(),
            "config": tagger.config,
        }
        return self.model_copy(update=of_training)


def get_requirement() -> str:
    """Return what a requirements file says to install this release."""
    release = _find_release()
    return f"{_PACKAGE}=={release}" if release else _PACKAGE


def get_code_version() -> str:
    """Return this installation's release and, in a git checkout, its commit, with `-dirty` if files were changed."""
    release, commit = _find_release() or "unknown", find_commit()
    return f"{release} ({commit})" if commit else release


@cache
def find_commit() -> str | None:
    """Return the commit of this git checkout, with `-dirty` if files were changed; None where it is no checkout."""
    if not (_ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty"]
    with suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_GIT_SECONDS)  # noqa: S603
        return found.stdout.strip()
    return None


def _find_release() -> str | None:
    with suppress(PackageNotFoundError):
        return version(_PACKAGE)
    return None
