"""The flow that turns feedback into a better model: load, fine-tune, evaluate, register, promote."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prefect import Task, flow, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed
from prefect.tasks import exponential_backoff
from pydantic import BaseModel, Field

from embeddinggemma_feasibility import evaluation
from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.contract_data_trainer import FineTuningError, FineTuningResult, fine_tune_model
from embeddinggemma_feasibility.encoders import load_encoder
from embeddinggemma_feasibility.evaluation import ENOUGH_HELD_OUT, Item, ModelScores, Predictions
from embeddinggemma_feasibility.tagger import Tagger
from embeddinggemma_feasibility.training_config import TrainingConfig
from flows.artifacts import publish_report
from flows.progress import Progress
from registry import jobs
from registry.annotations import get_latest_annotations
from registry.cache import build_representation_cache
from registry.database import open_session
from registry.errors import ContractFeedbackError, UnavailableError
from registry.models import ModelRegistry
from registry.outcome import Outcome
from registry.settings import get_settings

MEASURING_DOCUMENTS = 10  # with both models in each run: no more, so that the time of a run does not grow


class LearningRequest(BaseModel):
    """What a run is asked to learn; every run also takes along all feedback that waits."""

    job_id: str | None = Field(None, description="The job this run answers; leave empty to start a run by hand")
    document_ids: list[str] = Field(default_factory=list, description="Documents to train on again, by hand")
    triggered_by: str = Field("Prefect UI", description="Who asked for it")


@dataclass(frozen=True)
class Work:
    """What a run has claimed, and the documents that go with it, of which there are never more than so many.

    `held_out` are the newest to measure by; while those are few, the corrections of the `corrected` are, too.
    """

    job_ids: list[str]
    taught: list[AnnotationData]
    measured: list[str]
    replay: list[AnnotationData]
    held_out: list[AnnotationData]
    corrected: list[AnnotationData]
    corrections: set[Item]


@dataclass(frozen=True)
class Model:
    """A tagger with its place in MLflow: a registered version, or as yet only a run."""

    tagger: Tagger
    version: str | None = None
    mlflow_run_id: str | None = None


@dataclass(frozen=True)
class Comparison:
    """The models' scores, the values the champion and the reviewers disagree on, and what each model finds.

    Of the values that the scores are about, `lost` are those that the challenger alone gets wrong, `won` the champion.
    """

    champion: ModelScores | None
    challenger: ModelScores | None
    lost: int
    won: int
    corrections: set[Item]
    champion_predictions: Predictions
    challenger_predictions: Predictions


def _may_pass(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Tell whether a failure lies outside: what we refuse ourselves is refused again."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, UnavailableError) or not isinstance(error, ContractFeedbackError)


_outside = task(
    cache_policy=NO_CACHE,
    retries=4,
    retry_delay_seconds=exponential_backoff(2),
    retry_jitter_factor=0.2,
    retry_condition_fn=_may_pass,
)
_inside = task(cache_policy=NO_CACHE)


@flow(name="learn-from-feedback")
def learn_from_feedback(request: LearningRequest) -> State[None]:
    """Learn from the feedback that waits; the final state's message says what was decided, and why.

    Run again, it goes on where it stopped: it neither trains nor registers twice.
    """
    flow_run_id, progress = str(runtime.flow_run.id), Progress()
    work = load_annotations(flow_run_id, request)
    if not work.job_ids:
        return Completed(message="Nothing waits: a run has answered this already")
    champion, challenger = load_models(flow_run_id)
    if work.taught and not challenger:
        try:
            tuned = fine_tune(work, champion, progress)
        except FineTuningError as error:
            refuse(flow_run_id, work, str(error))
            raise
        challenger = save_challenger(flow_run_id, work, champion, tuned)
    comparison = evaluate(work, champion, challenger, progress)
    outcome = register(flow_run_id, work, challenger, comparison)
    promote(work, outcome, comparison)
    report(work, outcome, comparison)
    progress.reach(100)
    return Completed(message=outcome.reason)


@_outside
def load_annotations(flow_run_id: str, request: LearningRequest) -> Work:
    """Claim the feedback that waits; load the latest annotations of its documents, and earlier ones beside them."""
    with open_session(get_settings()) as session:
        job_id = request.job_id
        if request.document_ids and (job_id is None or jobs.is_rerun_by_hand(session, job_id, flow_run_id)):
            job_id = jobs.add_manual_run(session, request.document_ids, request.triggered_by, flow_run_id)
        claimed = [job.id for job in jobs.claim_jobs(session, flow_run_id, job_id)]
        taught = jobs.list_job_documents(session, claimed, held_out=False)
        held_out = jobs.list_held_out_documents(session, MEASURING_DOCUMENTS)
        replay = jobs.choose_replay_documents(session, taught, TrainingConfig().replay_documents)
        corrected: Sequence[str] = []
        if len(held_out) < ENOUGH_HELD_OUT:
            corrected = jobs.list_corrected_documents(session, taught, MEASURING_DOCUMENTS - len(held_out))
        return Work(
            job_ids=claimed,
            taught=get_latest_annotations(session, taught),
            measured=list(jobs.list_job_documents(session, claimed, held_out=True)),
            replay=get_latest_annotations(session, replay),
            held_out=get_latest_annotations(session, held_out),
            corrected=get_latest_annotations(session, corrected),
            corrections=jobs.list_corrections(session, [*taught, *corrected]),
        )


@_outside
def load_models(flow_run_id: str) -> tuple[Model | None, Model | None]:
    """Load the champion, and the challenger if this run trained one before it was run again."""
    registry = ModelRegistry(get_settings())
    version, trained = registry.find_champion(), registry.find_challenger(flow_run_id)
    champion = Model(registry.load_tagger(version), version=version) if version else None
    return champion, Model(trained[1], mlflow_run_id=trained[0]) if trained else None


@_inside
def fine_tune(work: Work, champion: Model | None, progress: Progress) -> FineTuningResult:
    """Teach the champion the new annotations, with earlier ones replayed."""
    return fine_tune_model(
        work.taught,
        champion.tagger if champion else None,
        work.replay,
        load_encoder(get_settings().encoder),
        cache=build_representation_cache(get_settings()),
        on_progress=lambda share: progress.reach(5 + 50 * share),
    )


@_outside
def refuse(flow_run_id: str, work: Work, reason: str) -> None:
    """Answer the jobs: another run would end as this one."""
    outcome = Outcome(flow_run_id=flow_run_id, promoted=False, failed=True, reason=reason)
    with open_session(get_settings()) as session:
        jobs.finish_jobs(session, work.job_ids, outcome, set())


@_outside
def save_challenger(flow_run_id: str, work: Work, champion: Model | None, tuned: FineTuningResult) -> Model:
    """Store the fine-tuned model in MLflow, so that no retry need train again."""
    parent = champion.version if champion else None
    run_id = ModelRegistry(get_settings()).save_challenger(flow_run_id, tuned, work.taught, work.replay, parent)
    return Model(tuned.tagger, mlflow_run_id=run_id)


@_inside
def evaluate(work: Work, champion: Model | None, challenger: Model | None, progress: Progress) -> Comparison:
    """Score champion and challenger on held-out documents and, while those are few, on corrections."""
    few = len(work.held_out) < ENOUGH_HELD_OUT
    learned = [*work.taught, *work.corrected]
    documents = [*work.held_out, *learned]

    before = _extract_all(champion, documents, lambda share: progress.reach(55 + 20 * share))
    new = evaluation.find_mistakes(work.taught, before)
    corrections = work.corrections | new
    after = _extract_all(challenger, documents, lambda share: progress.reach(75 + 20 * share))

    def list_mistakes(predictions: Predictions) -> set[Item]:
        mistakes = evaluation.find_mistakes(work.held_out, predictions)
        return mistakes | (evaluation.find_mistakes(learned, predictions) & corrections if few else set())

    def score(model: Model | None, predictions: Predictions, mistakes: set[Item]) -> ModelScores | None:
        if model is None:
            return None
        kept = evaluation.share_kept(corrections, mistakes) if few else None
        scores = evaluation.score_model(evaluation.evaluate(work.held_out, predictions), kept)
        return scores.model_copy(update={"version": model.version})

    wrong_before, wrong_after = list_mistakes(before), list_mistakes(after)
    return Comparison(
        score(champion, before, wrong_before),
        score(challenger, after, wrong_after),
        len(wrong_after - wrong_before),
        len(wrong_before - wrong_after),
        new,
        before,
        after,
    )


@_outside
def register(flow_run_id: str, work: Work, challenger: Model | None, comparison: Comparison) -> Outcome:
    """Decide, and register the challenger in MLflow as a version with that decision."""
    outcome = Outcome(
        flow_run_id=flow_run_id,
        promoted=False,
        reason=_describe_measurement(comparison.champion, len(work.measured)),
        champion=comparison.champion,
        challenger=comparison.challenger,
        taught_documents=[data.document_id for data in work.taught],
        measured_documents=work.measured,
    )
    if challenger is None or comparison.challenger is None or challenger.mlflow_run_id is None:
        return outcome
    promoted, reason = evaluation.decide(comparison.challenger, comparison.champion, comparison.lost, comparison.won)
    outcome = outcome.model_copy(
        update={"promoted": promoted, "reason": reason, "mlflow_run_id": challenger.mlflow_run_id}
    )
    version = ModelRegistry(get_settings()).register(challenger.mlflow_run_id, outcome, comparison.challenger)
    return outcome.model_copy(update={"challenger": comparison.challenger.model_copy(update={"version": version})})


@_outside
def promote(work: Work, outcome: Outcome, comparison: Comparison) -> None:
    """Make the new version the champion if that was decided, and answer the jobs."""
    if outcome.promoted and outcome.challenger and outcome.challenger.version:
        ModelRegistry(get_settings()).promote(outcome.challenger.version)
    with open_session(get_settings()) as session:
        jobs.finish_jobs(session, work.job_ids, outcome, comparison.corrections)


@_outside
def report(work: Work, outcome: Outcome, comparison: Comparison) -> None:
    """Publish what came of it, once it is served."""
    publish_report(outcome, work.taught, comparison.champion_predictions, comparison.challenger_predictions)


def _extract_all(
    model: Model | None, documents: Sequence[AnnotationData], on_share: Callable[[float], None]
) -> Predictions:
    predictions, cache = {}, build_representation_cache(get_settings())
    for number, data in enumerate(documents, 1):
        predictions[data.document_id] = model.tagger.extract(data.text, cache) if model else []
        on_share(number / len(documents))
    return predictions


def _describe_measurement(champion: ModelScores | None, count: int) -> str:
    if not count:
        return "Nothing was taught: the documents are gone."
    measured = f"Nothing was taught: feedback on held-out documents ({count}) measures models instead."
    if champion is None:
        return f"{measured} There is no model to measure yet."
    held_out = champion.held_out
    f1 = f"value F1 {held_out.value.f1:.3f} on {held_out.document_count} held out"
    return f"{measured} Version {champion.version} has {f1}."
