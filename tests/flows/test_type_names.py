"""Types with odd names through the steps of a run: stored, trained, logged in MLflow, drawn, reported in Prefect."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest
from markdown_it import MarkdownIt
from mlflow import MlflowClient
from prefect.artifacts import Artifact
from pydantic import TypeAdapter, ValidationError
from sqlmodel import Session

from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.contract_data_trainer import fine_tune_model
from embeddinggemma_feasibility.encoders import Encoder
from embeddinggemma_feasibility.evaluation import evaluate
from embeddinggemma_feasibility.training_config import TrainingConfig
from feedback.claiming import answer_jobs
from flows.artifacts import publish_report
from registry.annotations import replace_annotations
from registry.chart import Taught
from registry.jobs import add_job, get_job
from registry.lessons import load_lessons, take_lessons
from registry.lineage import Lineage
from registry.models import ModelRegistry
from registry.outcome import Decision, ModelScores, Outcome
from registry.settings import Settings
from registry.tables import AnnotationBase, Document, JobType
from registry.text_types import EntityType

pytestmark = pytest.mark.usefixtures("flow_environment")

NAMED = ["http://x.org/onto#Party", "a//b", "date/", "../x", "$x_$", "a#b", "a_b", "A_b", "x" * 100, "合同金额", "<b>"]
OF_EARLIER_VERSIONS = [" ", "party ", "a\nb", "# a\n\n![b](c)", "\u202ea", "\x85", "\ufeff"]
PRINTABLE = [
    *"azZ9çßİ $_^{}\\/.~%#@!?*|`<>()[]&;:'\"+-=,", "..", "//", "](", "\u0301", "\u0940", "\u05d0", "\u0627", "\u4e2d",
    "\uff21", "\U0001f642", "\U0001f1f5", "\U0001d54f",
]  # fmt: skip
NOT_PRINTABLE = ["\n", "\x01", "\u00a0", "\u200d", "\u202e", "\ud800", "\udfff", "\ue000"]


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


def generate_names() -> list[str]:
    rng = random.Random(0)  # noqa: S311
    alphabets = [PRINTABLE, *[PRINTABLE + NOT_PRINTABLE] * 6]
    return ["".join(rng.choices(rng.choice(alphabets), k=rng.choice([1, 2, 4, 10, 40, 85]))) for _ in range(500)]


def is_accepted(name: str) -> bool:
    try:
        TypeAdapter(EntityType).validate_python(name)
    except ValidationError:
        return False
    return True


def annotate(session: Session, names: Sequence[str]) -> AnnotationData:
    """Store a document with a word of each type, and return it as models learn it."""
    words = [f"word{index}" for index in range(len(names))]
    text = " ".join(words)
    document = Document(
        filename="a", media_type="text/plain", sha256="a", size_bytes=1, page_count=1, character_count=len(text),
        text=text,
    )  # fmt: skip
    session.add(document)
    session.flush()
    starts = [text.index(word) for word in words]
    marked = [
        AnnotationBase(type=name, value=word, start=start, end=start + len(word))
        for name, word, start in zip(names, words, starts, strict=True)
    ]
    replace_annotations(session, document, marked)
    session.commit()
    job = add_job(session, JobType.FEEDBACK, [document.id], "tester")
    take_lessons(session, [job.id], "run")
    (data,) = load_lessons(session, {document.id: job.id})
    session.commit()
    return data


def read_names(report: str) -> set[str]:
    """Return the types in the report's tables as its reader sees them."""
    tokens = MarkdownIt().enable("table").parse(report)
    rows = [tokens[index + 2].children or [] for index, token in enumerate(tokens) if token.type == "tr_open"]
    assert {token.type for row in rows for token in row} == {"text"}
    return {"".join(token.content for token in row).removeprefix("value F1 ") for row in rows}


@pytest.mark.slow
def test_type_of_any_name_is_trained_logged_drawn_and_reported(
    session: Session, settings: Settings, tiny_encoder: Encoder
) -> None:
    names = {*NAMED, *OF_EARLIER_VERSIONS, *filter(is_accepted, generate_names())}
    assert len(names) > 200
    data = annotate(session, sorted(names))
    tuned = fine_tune_model([data], encoder=tiny_encoder, config=TrainingConfig(first_iterations=3))
    registry = ModelRegistry(settings)
    run_id = registry.save_challenger("run-1", tuned, Lineage(training={data.document_id: "a job"}, replay={}))
    found = {data.document_id: registry.load_candidate(run_id).served.extract(data.text)}
    scores = ModelScores(score=1, unseen=evaluate([data], found))
    outcome = Outcome(
        decision=Decision.PROMOTED, reason="It is better.", flow_run_id="run-1", champion=scores, challenger=scores,
        mlflow_run_id=run_id,
    )  # fmt: skip
    registry.register(run_id, outcome)
    job = add_job(session, JobType.FEEDBACK, [data.document_id], "tester")
    answer_jobs(session, [job.id], outcome)
    session.commit()
    publish_report(outcome, [job.id], Taught([data], {data.document_id: []}, found))

    stored = get_job(session, job.id).outcome
    assert stored
    assert stored.challenger
    assert stored.challenger.unseen.value_by_type.keys() == names
    client = MlflowClient(settings.mlflow_tracking_uri)
    metrics = client.get_run(run_id).data.metrics
    assert len([name for name in metrics if name.startswith("unseen/value_f1 ")]) == len(names)
    assert "report.png" in {artifact.path for artifact in client.list_artifacts(run_id)}
    report = str(cast("Artifact", Artifact.get("report")).data)
    assert read_names(report) >= {" ".join(name.split()) for name in names}
