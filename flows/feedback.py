"""The flow that turns feedback into a better model: load, fine-tune, evaluate, register, promote."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from prefect import flow, get_run_logger, runtime
from prefect.client.schemas.objects import State
from prefect.deployments import run_deployment
from prefect.states import Completed
from pydantic import BaseModel, Field

from embeddinggemma_feasibility.calibration import Calibration, check_calibration
from embeddinggemma_feasibility.contract_data_trainer import FineTuningError, FineTuningResult, fine_tune_model
from embeddinggemma_feasibility.encoders import load_encoder
from embeddinggemma_feasibility.evaluation import Predictions
from embeddinggemma_feasibility.trained_model import TrainedModel
from feedback.claiming import (
    add_manual_job,
    answer_jobs,
    claim_jobs,
    is_rerun_by_hand,
    set_aside_documents,
    split_jobs,
)
from feedback.consolidation import Candidate, are_set_aside, describe_handover
from feedback.lost_versions import find_highest_number, follow_mlflow
from feedback.promotion import Comparison, Contestant, compare_models, decide, get_served
from feedback.rollback import notice_promotion
from feedback.screening import explain_objections, reads_well
from feedback.time_limits import utc_now
from feedback.training_set import TrainingSet, load_training_set
from feedback.unlearning import end_unlearning
from flows.artifacts import Progress, publish_report, publish_set_aside
from flows.run_log import log_claimed, log_outcome, log_set_aside
from flows.run_names import count_documents, describe_run, name_run
from flows.task_types import computing_task, task_with_neighbours
from registry.cache import build_representation_cache
from registry.chart import Taught
from registry.database import open_session
from registry.errors import translate_http_errors
from registry.lessons import take_lessons
from registry.lineage import Lineage
from registry.models import ModelRegistry
from registry.outcome import Decision, Outcome
from registry.settings import get_settings


class LearningRequest(BaseModel):
    """What to learn. Nothing here has to be filled in: each run learns all feedback that waits."""

    learn: Literal["feedback that waits", "everything again"] = Field(
        "feedback that waits",
        description="'everything again' starts the deployment `consolidation`, which fits a model from nothing on all "
        "documents learned so far, in the background; the fields below do not matter then",
    )
    document_ids: list[str] = Field(
        default_factory=list, title="Documents", description="Ids of documents to teach again, beside what waits"
    )
    triggered_by: str = Field("Prefect UI", description="Your name")
    job_id: str | None = Field(None, title="Job", description="Leave it empty: the API sets it in the runs it starts")


_ALL_THAT_WAITS = LearningRequest()


@dataclass(frozen=True)
class Model:
    """A trained model with its registered version or, before it is registered, its MLflow run."""

    trained: TrainedModel
    version: str | None = None
    mlflow_run_id: str | None = None


@dataclass(frozen=True)
class Evaluated:
    """Both models on the documents of the training set: what each finds, and how they compare."""

    champion: Contestant | None
    challenger: Contestant | None
    comparison: Comparison


@flow(name="learn-from-feedback")
def learn_from_feedback(request: LearningRequest = _ALL_THAT_WAITS) -> State[None]:
    """Learn from the feedback that waits; the message of the final state gives the decision and its reason.

    A retry continues where the run stopped: it neither trains nor registers twice.
    """
    flow_run_id, progress = str(runtime.flow_run.id), Progress()
    if request.learn == "everything again":
        name_run("consolidation started")
        return Completed(message=f"Started {start_consolidation(flow_run_id, request.triggered_by)}")
    training_set = load_annotations(flow_run_id, request)
    if not training_set.job_ids:
        if runtime.flow_run.run_count == 1:  # not after a retry: its name says what came of the run
            name_run("nothing left to learn")
        return Completed(message="There is no feedback to learn from: none waits, or another run has answered it")
    log_claimed(training_set)
    claimed = len(training_set.training)
    if (candidate_run := training_set.candidate) and (training_set.is_obsolete or not candidate_run.mlflow_run_id):
        outcome = hand_over_nothing(flow_run_id, training_set, candidate_run)
        name_run(describe_run(training_set, outcome))
        return Completed(message=outcome.reason)
    champion, challenger = load_models(flow_run_id, training_set)
    candidate = load_candidate(candidate_run) if candidate_run else None
    if champion and not (candidate or challenger):
        training_set = set_aside(flow_run_id, training_set, champion, screen(training_set, champion))
        if not training_set.job_ids:
            name_run(f"set aside: {count_documents(claimed)}")
            return Completed(message="Set aside: all of this contradicts what was learned before")
    if training_set.training and not challenger:
        start = candidate or champion
        try:
            tuned = fine_tune(training_set, start, progress)
        except FineTuningError as error:
            answer_failed(flow_run_id, training_set, str(error))
            raise
        get_run_logger().info(tuned.describe())
        challenger = save_challenger(flow_run_id, training_set, start, tuned, request.triggered_by)
    challenger = challenger or candidate
    evaluated = evaluate(training_set, champion, challenger, progress)
    outcome = register(flow_run_id, training_set, challenger, evaluated.comparison)
    promote(training_set, outcome)
    log_outcome(outcome, training_set.job_ids)
    report(training_set, outcome, evaluated)
    name_run(describe_run(training_set, outcome, claimed - len(training_set.training)))
    progress.reach(100)
    return Completed(message=outcome.reason)


@task_with_neighbours
def start_consolidation(flow_run_id: str, triggered_by: str) -> str:
    """Start the other deployment, once for this run, and return the name of its run."""
    name = f"consolidation by {triggered_by}"
    with translate_http_errors("Prefect"):
        run_deployment(
            get_settings().consolidation_deployment,
            flow_run_name=name,
            timeout=0,
            as_subflow=False,
            idempotency_key=f"everything {flow_run_id}",
        )
    return name


@task_with_neighbours
def load_annotations(flow_run_id: str, request: LearningRequest) -> TrainingSet:
    """Claim the waiting jobs; load what they teach, the latest annotations of their documents, and what is replayed.

    First, what MLflow has lost is to be taught again, and what the champion has not learned is set aside, if somebody
    has moved its alias in MLflow.
    """
    for done in follow_mlflow(partial(open_session, get_settings()), ModelRegistry(get_settings())):
        get_run_logger().warning(done)
    with open_session(get_settings()) as session:
        notice_promotion(session, ModelRegistry(get_settings()).find_alias())
        job_id = request.job_id
        if request.document_ids and (job_id is None or is_rerun_by_hand(session, job_id, flow_run_id)):
            job_id = add_manual_job(session, request.document_ids, request.triggered_by, flow_run_id)
        job_ids = [job.id for job in claim_jobs(session, flow_run_id, job_id)]
        take_lessons(session, job_ids, flow_run_id)
        training_set = load_training_set(session, job_ids)
        if training_set.candidate and training_set.candidate.mlflow_run_id:
            learned = ModelRegistry(get_settings()).list_lessons(training_set.candidate.mlflow_run_id)
            if are_set_aside(session, learned):
                return replace(training_set, is_obsolete=True)
        return training_set


@task_with_neighbours
def hand_over_nothing(flow_run_id: str, training_set: TrainingSet, candidate: Candidate) -> Outcome:
    """Answer for a consolidation that is obsolete, or from which no model resulted: then none is served any more."""
    outcome = Outcome(decision=Decision.NOT_PROMOTED, reason="", flow_run_id=flow_run_id, decided_at=utc_now())
    answered, retired = training_set.job_ids, None
    if training_set.is_obsolete:
        outcome.reason = f"Not promoted: it learned what was set aside or withdrawn since. {candidate.description}"
    elif training_set.training:
        outcome.reason = f"{candidate.description} Something was learned meanwhile: another consolidation follows."
    else:
        retired = ModelRegistry(get_settings()).retire_champion()
        outcome.decision = Decision.NOT_TRAINED
        outcome.reason = f"{candidate.description} No version is served until there is feedback to learn from."
        answered = [*training_set.job_ids, *training_set.unlearnings]
    with open_session(get_settings()) as session:
        answer_jobs(session, answered, outcome)
        if retired:
            end_unlearning(session, training_set.unlearnings, retired, build_representation_cache(get_settings()))
    return outcome


@task_with_neighbours
def load_models(flow_run_id: str, training_set: TrainingSet) -> tuple[Model | None, Model | None]:
    """Load the champion and, if this run was interrupted after training from it, or from the candidate, the challenger.

    What was trained from an earlier champion may have learned what the champion has unlearned.
    """
    registry = ModelRegistry(get_settings())
    version = registry.find_champion()
    trained = registry.find_challenger(flow_run_id, None if training_set.candidate else version)
    champion = Model(registry.load_model(version), version=version) if version else None
    return champion, Model(trained[1], mlflow_run_id=trained[0]) if trained else None


@task_with_neighbours
def load_candidate(candidate: Candidate) -> Model:
    """Load the consolidated model that this run hands over."""
    trained = ModelRegistry(get_settings()).load_candidate(str(candidate.mlflow_run_id))
    return Model(trained, mlflow_run_id=candidate.mlflow_run_id)


@computing_task
def screen(training_set: TrainingSet, champion: Model) -> Predictions:
    """Return what is found in each document by what of the champion is blind to it."""
    documents, calibration = training_set.training, champion.trained.served.calibration
    return champion.trained.extract_unseen(documents, calibration, build_representation_cache(get_settings()))


@task_with_neighbours
def set_aside(flow_run_id: str, training_set: TrainingSet, champion: Model, unseen: Predictions) -> TrainingSet:
    """Set aside the documents that contradict what was learned, and answer the jobs that have no others.

    Returns what remains to be learned.
    """
    with open_session(get_settings()) as session:
        known_types, is_trusted = champion.trained.served.types, reads_well(champion.trained)
        reasons = explain_objections(session, training_set, unseen, str(champion.version), known_types, is_trusted)
        job_ids = set_aside_documents(session, training_set.job_ids, reasons, flow_run_id)
        remaining = load_training_set(session, job_ids) if reasons else training_set
    if reasons:
        log_set_aside(reasons)
        publish_set_aside(reasons, training_set.lessons)
    return remaining


@computing_task
def fine_tune(training_set: TrainingSet, start: Model | None, progress: Progress) -> FineTuningResult:
    """Fine-tune the champion, or the candidate, on the training documents and the replayed ones."""
    return fine_tune_model(
        training_set.training,
        start.trained if start else None,
        training_set.replay,
        training_set.earlier_count,
        training_set.measured,
        load_encoder(get_settings().encoder),
        cache=build_representation_cache(get_settings()),
        on_progress=lambda share: progress.reach(5 + 60 * share),
    )


@task_with_neighbours
def answer_failed(flow_run_id: str, training_set: TrainingSet, reason: str) -> None:
    """Answer the jobs with a failure that every further run would repeat."""
    outcome = Outcome(decision=Decision.FAILED, reason=reason, flow_run_id=flow_run_id, decided_at=utc_now())
    with open_session(get_settings()) as session:
        answer_jobs(session, training_set.job_ids, outcome)


@task_with_neighbours
def save_challenger(
    flow_run_id: str, training_set: TrainingSet, start: Model | None, tuned: FineTuningResult, triggered_by: str
) -> Model:
    """Store the fine-tuned model in MLflow, so that no retry trains again."""
    lessons = training_set.lessons
    lineage = Lineage(
        training={data.document_id: lessons[data.document_id] for data in training_set.training},
        replay={data.document_id: lessons[data.document_id] for data in training_set.replay},
        earlier_count=training_set.earlier_count,
        parent_version=start.version if start else None,
        candidate_run_id=start.mlflow_run_id if start else None,
    )
    run_id = ModelRegistry(get_settings()).save_challenger(flow_run_id, tuned, lineage, triggered_by)
    return Model(tuned.model, mlflow_run_id=run_id)


@computing_task
def evaluate(
    training_set: TrainingSet, champion: Model | None, challenger: Model | None, progress: Progress
) -> Evaluated:
    """Extract the documents of the training set with both models, and compare the models.

    After a step from the champion, both have the challenger's calibration in the measured documents, so that only what
    they have learned differs. A consolidated model brings a calibration of its own.
    """
    calibration = challenger.trained.served.calibration if challenger and not training_set.candidate else None
    before = _extract_all(champion, training_set, calibration, lambda share: progress.reach(65 + 15 * share))
    after = _extract_all(challenger, training_set, calibration, lambda share: progress.reach(80 + 15 * share))
    reliability = check_calibration(list(challenger.trained.measurements.values())) if challenger else None
    return Evaluated(before, after, compare_models(training_set, before, after, reliability))


@task_with_neighbours
def register(flow_run_id: str, training_set: TrainingSet, challenger: Model | None, comparison: Comparison) -> Outcome:
    """Decide about the challenger, and register it in MLflow with the decision."""
    decision, reason = decide(training_set, comparison)
    if training_set.candidate:
        reason = f"{reason} {describe_handover(training_set.candidate, len(training_set.training))}"
    outcome = Outcome(
        decision=decision,
        reason=reason,
        flow_run_id=flow_run_id,
        decided_at=utc_now(),
        champion=comparison.champion,
        challenger=comparison.challenger,
        effect=comparison.effect,
        training_documents=[data.document_id for data in training_set.training],
        mlflow_run_id=challenger.mlflow_run_id if challenger else None,
    )
    if outcome.challenger and outcome.mlflow_run_id:
        with open_session(get_settings()) as session:
            used = find_highest_number(session)
        version = ModelRegistry(get_settings()).register(outcome.mlflow_run_id, outcome, above=used)
        outcome.challenger = outcome.challenger.model_copy(update={"version": version})
    return outcome


@task_with_neighbours
def promote(training_set: TrainingSet, outcome: Outcome) -> None:
    """Make the new version the champion if that was decided, and answer the jobs; refused jobs are tried in parts.

    A promoted version that unlearns answers the requests, too.

    Raises OvertakenError if another version was promoted since the new one was compared with the champion.
    """
    version = outcome.challenger.version if outcome.challenger else None
    if outcome.decision == Decision.PROMOTED and version:
        compared = outcome.champion.version if outcome.champion else None
        ModelRegistry(get_settings()).promote_after(version, compared)
    with open_session(get_settings()) as session:
        if outcome.decision == Decision.NOT_PROMOTED and len(training_set.job_ids) > 1:
            split_jobs(session, training_set.job_ids, outcome.reason)
        else:
            answer_jobs(session, [*training_set.job_ids, *training_set.unlearnings], outcome)
        if training_set.unlearnings and version:
            end_unlearning(session, training_set.unlearnings, int(version), build_representation_cache(get_settings()))


@task_with_neighbours
def report(training_set: TrainingSet, outcome: Outcome, evaluated: Evaluated) -> None:
    """Publish the report, after the promotion: nobody waits for it."""
    before, after = (get_served(training_set, model) for model in (evaluated.champion, evaluated.challenger))
    publish_report(outcome, training_set.job_ids, Taught(training_set.training, before, after))


def _extract_all(
    model: Model | None, training_set: TrainingSet, calibration: Calibration | None, on_share: Callable[[float], None]
) -> Contestant | None:
    if model is None:
        on_share(1)
        return None
    cache = build_representation_cache(get_settings())
    served = {data.document_id: model.trained.served.extract(data.text, cache) for data in training_set.training}
    on_share(0.5)
    calibration = calibration or model.trained.served.calibration
    unseen = model.trained.extract_unseen(training_set.measured, calibration, cache)
    on_share(1)
    return Contestant(model.version, served, unseen)
