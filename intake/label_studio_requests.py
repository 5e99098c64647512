"""What Label Studio sends to a backend, and what its API returns: tasks, annotations, projects; and predictions."""

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AwareDatetime, BaseModel, Field

from embeddinggemma_feasibility.annotation_data import Entity
from intake.label_config import LabelConfig
from intake.label_studio import LabelStudioAnnotation
from registry.errors import InvalidInputError

_MOST_AT_ONCE = 5_000  # Label Studio's WEBHOOK_BATCH_SIZE
UNTRAINED = "untrained"  # the version before the first: Label Studio asks again for predictions of another one

_Item = TypeVar("_Item")
_Many = Annotated[list[_Item], Field(max_length=_MOST_AT_ONCE, fail_fast=True)]
Id = Annotated[int, Field(ge=0, lt=2**63)]


class TaskRequest(BaseModel):
    """A task, or what concerns a backend of it."""

    id: Id
    data: dict[str, Any]


class StoredAnnotation(LabelStudioAnnotation):
    """An annotation that Label Studio has stored."""

    id: Id
    updated_at: AwareDatetime


class AnnotatedTask(TaskRequest):
    """A task with its annotations, as the API returns it."""

    annotations: list[StoredAnnotation]

    @property
    def latest(self) -> StoredAnnotation | None:
        """The finished annotation that was changed last."""
        finished = [each for each in self.annotations if not each.was_cancelled]
        return max(finished, key=lambda each: each.updated_at, default=None)


class Project(BaseModel):
    """A project; the ids of two installations' projects may be the same, their times of creation are not."""

    id: Id
    created_at: AwareDatetime
    label_config: str

    @property
    def key(self) -> str:
        """The name of the project, as Label Studio itself joins it."""
        return f"{self.id}.{int(self.created_at.timestamp())}"


class Reference(BaseModel):
    """The id of a deleted annotation."""

    id: Id


class WebhookRequest(BaseModel):
    """What a webhook sends; `annotation` and `task` are lists for the action ANNOTATIONS_CREATED."""

    action: str
    project: Project | None = None
    annotation: (
        StoredAnnotation | Annotated[list[StoredAnnotation], Field(max_length=_MOST_AT_ONCE, fail_fast=True)] | None
    ) = None
    task: TaskRequest | Annotated[list[TaskRequest], Field(max_length=_MOST_AT_ONCE, fail_fast=True)] | None = None
    annotations: Annotated[list[Reference], Field(max_length=_MOST_AT_ONCE, fail_fast=True)] = Field(
        default_factory=list
    )

    def get_project(self) -> Project:
        """Return the project; raises InvalidInputError for a webhook that sends only the action."""
        if self.project is None:
            raise InvalidInputError("The webhook sends no payload: turn on `Send payload` in its settings")
        return self.project

    def list_annotated(self) -> list[tuple[StoredAnnotation, TaskRequest]]:
        """Return the annotations with their tasks; raises InvalidInputError if some have none."""
        annotations, tasks = _as_list(self.annotation), _as_list(self.task)
        if len(annotations) != len(tasks):
            raise InvalidInputError(f"There are {len(annotations)} annotations of {len(tasks)} tasks")
        return list(zip(annotations, tasks, strict=True))


class RegionValue(BaseModel):
    """A labelled span; offsets count code points."""

    start: int
    end: int
    text: str
    labels: list[str]


class Region(BaseModel):
    """One predicted entity."""

    id: str = Field(description="Unique in its prediction: Label Studio takes two regions with one id for one")
    from_name: str
    to_name: str
    type: str = "labels"
    value: RegionValue
    score: float


class Prediction(BaseModel):
    """What one version finds in one task."""

    result: list[Region]
    score: float = Field(description="The mean of the regions' scores; 0 without any")
    model_version: str


def build_prediction(config: LabelConfig, entities: Sequence[Entity], version: str) -> Prediction:
    """Return the entities of the configuration's labels, as a prediction for a task."""
    found = [(entity, label) for entity in entities if (label := config.find_label(entity.type))]
    regions = [
        Region(
            id=f"{version}-{index}-{entity.start}-{entity.end}",
            from_name=label.from_name,
            to_name=config.text_name,
            value=RegionValue(start=entity.start, end=entity.end, text=entity.value, labels=[label.name]),
            score=entity.confidence,
        )
        for index, (entity, label) in enumerate(found)
    ]
    score = sum(region.score for region in regions) / max(len(regions), 1)
    return Prediction(result=regions, score=score, model_version=version)


def _as_list(value: _Item | list[_Item] | None) -> list[_Item]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
