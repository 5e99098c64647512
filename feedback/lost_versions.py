"""An MLflow that is older than the database, since it was restored from a back-up, or emptied (decision 0026).

What the lost versions had learned is taught again, and what was unlearned stays unlearned.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from itertools import takewhile
from typing import NamedTuple

from sqlmodel import Session, col, func, not_, or_, select
from sqlmodel.sql.expression import Select

from feedback.versions import find_newest_promoted
from registry.audit import find_promotion, set_principal
from registry.errors import NotFoundError
from registry.jobs import MADE, UNANSWERED
from registry.models import ModelRegistry
from registry.outcome import Decision
from registry.tables import DeletedDocument, Job, JobType

OpenSession = Callable[[], AbstractContextManager[Session]]
_MLFLOW_RUN = col(Job.outcome)["mlflow_run_id"].as_string()
_DECIDED_AT = col(Job.outcome)["decided_at"].as_string()
_LATEST = 100  # jobs: one whose runs failed for a while has a lower number than jobs that were answered before it
_PROMOTION = timedelta(seconds=15)  # between the two records of a promotion by a person
_PRINCIPAL = "contract-feedback"
_LOST = "MLflow has lost version {}, which was made of it: it was restored from a back-up, or emptied."


class MadeVersion(NamedTuple):
    """A version as the outcome of a job names it; null times are of earlier releases."""

    number: int
    mlflow_run_id: str
    decided_at: str | None


def follow_mlflow(open_session: OpenSession, registry: ModelRegistry) -> list[str]:
    """Have taught again what MLflow has lost, and unlearned again what its champion may have learned.

    Returns what was done, in sentences. Usually that is nothing, and takes two queries and two requests to MLflow. It
    may be repeated at any point, and several processes may do it at once.
    """
    with open_session() as session:
        newest = _find_newest_made(session)
        lost = _list_lost(session, registry) if newest and not _is_known(registry, newest) else []
    champion = registry.find_alias()
    with open_session() as session:
        set_principal(session, _PRINCIPAL)
        done, withdrawals = _forget_versions(session, lost) if lost else ([], [])
        if promoted := _find_lost_promotion(session, registry, champion):
            registry.promote(promoted)
            done.append(f"MLflow has lost that version {promoted} was promoted by a person: it is promoted again.")
        if champion := promoted or champion:
            done += _unlearn_again(session, registry, int(champion), withdrawals)
    return done


def describe_loss(session: Session, registry: ModelRegistry) -> str | None:
    """Say what MLflow has lost that is not taught again yet, None if that is nothing."""
    newest = _find_newest_made(session)
    if newest and not _is_known(registry, newest):
        made = f" of {datetime.fromisoformat(newest.decided_at):%Y-%m-%d %H:%M} UTC" if newest.decided_at else ""
        return (
            f"MLflow lacks version {newest.number}{made}, which the database knows: it was restored from a back-up, or "
            "emptied, or is another. What it lacks is taught again within a minute; to prevent that, stop the API and "
            "restore a newer back-up"
        )
    lost = session.exec(select(Job.lost_version).where(UNANSWERED, col(Job.lost_version).is_not(None))).all()
    if not lost:
        return None
    numbers = _describe_numbers(sorted({number for number in lost if number is not None}))
    return (
        f"MLflow was restored from a back-up, or emptied, and lost {numbers}. "
        f"{_describe_jobs(len(lost))} taught again, as GET /jobs shows; what MLflow has serves meanwhile"
    )


def _find_newest_made(session: Session) -> MadeVersion | None:
    """Return the newest version that the database knows with its MLflow run, None if there is none."""
    query = _select_made().order_by(col(Job.number).desc()).limit(_LATEST)
    return max(_read(session, query), key=lambda made: made.number, default=None)


def find_highest_number(session: Session) -> int:
    """Return the highest number of a version that the database knows, lost ones included; 0 if there is none."""
    newest, lost = _find_newest_made(session), session.exec(select(func.max(Job.lost_version))).one()
    return max(newest.number if newest else 0, lost or 0)


def _select_made() -> Select[str, str, str | None]:
    return select(MADE, _MLFLOW_RUN, _DECIDED_AT).where(MADE.is_not(None), _MLFLOW_RUN.is_not(None))


def _read(session: Session, query: Select[str, str, str | None]) -> set[MadeVersion]:
    return {MadeVersion(int(number), run_id, decided_at) for number, run_id, decided_at in session.exec(query)}


def _is_known(registry: ModelRegistry, made: MadeVersion) -> bool:
    return registry.has_registered(str(made.number), made.mlflow_run_id)


def _list_lost(session: Session, registry: ModelRegistry) -> list[MadeVersion]:
    """Return the newest versions, down to the first that MLflow knows: it knows all that are older."""
    newest_first = sorted(_read(session, _select_made()), key=lambda made: made.number, reverse=True)
    return list(takewhile(lambda made: not _is_known(registry, made), newest_first))


def _forget_versions(session: Session, lost: Sequence[MadeVersion]) -> tuple[list[str], list[Job]]:
    """Have the jobs that lost versions had learned wait again, and take these versions out of other outcomes.

    Returns what was done, and the requests to unlearn lessons that lost versions had answered.
    """
    of_lost = _MLFLOW_RUN.in_([made.mlflow_run_id for made in lost])
    again, withdrawals = 0, list[Job]()
    for job in session.exec(select(Job).where(of_lost).with_for_update()):
        outcome = job.outcome
        if outcome is None or outcome.challenger is None or outcome.challenger.version is None:
            continue
        job.lost_version = int(outcome.challenger.version)
        teaches = job.type in {JobType.FEEDBACK, JobType.TRAINING_RUN}
        if teaches and outcome.decision == Decision.PROMOTED:
            again += 1
            _reopen(job)
        else:
            reason = f"{outcome.reason} {_LOST.format(job.lost_version)}"
            challenger = outcome.challenger.model_copy(update={"version": None})
            forgotten = {"challenger": challenger, "mlflow_run_id": None, "reason": reason}
            job.outcome = outcome.model_copy(update=forgotten)
        if job.type == JobType.CONSOLIDATION:
            job.candidate_snapshot = 0  # so that another is due
        elif job.type == JobType.UNLEARNING:
            withdrawals.append(job)
        session.add(job)
    session.flush()
    numbers = _describe_numbers(sorted(made.number for made in lost))
    return [f"MLflow lacks {numbers}, which the database knows: {_describe_jobs(again)} taught again."], withdrawals


def _describe_numbers(numbers: Sequence[int]) -> str:
    return f"version {numbers[0]}" if len(numbers) == 1 else f"versions {numbers[0]} to {numbers[-1]}"


def _describe_jobs(count: int) -> str:
    return "1 job is" if count == 1 else f"{count} jobs are"


def _reopen(job: Job) -> None:
    job.outcome = job.claiming_run_id = job.launched_run_id = job.last_failure = job.paused_until = None
    job.failures = 0


def _find_lost_promotion(session: Session, registry: ModelRegistry, champion: str | None) -> str | None:
    """Return the version that a person promoted last, if it is not the champion since MLflow has lost that."""
    latest = find_newest_promoted(session)
    if champion is None or latest is None or champion == latest:
        return None
    promoted_at = find_promotion(session, latest)
    if promoted_at is None:
        return None
    try:
        known = registry.get_version(latest).promoted_at
    except NotFoundError:  # a person has deleted it in MLflow
        return None
    return latest if known is None or known < promoted_at - _PROMOTION else None


def _unlearn_again(session: Session, registry: ModelRegistry, champion: int, withdrawals: Sequence[Job]) -> list[str]:
    """Open the requests again whose documents the champion may have learned, and these requests."""
    learned = col(DeletedDocument.learned_from) <= champion
    not_unlearned = or_(col(DeletedDocument.unlearned_from).is_(None), col(DeletedDocument.unlearned_from) > champion)
    query = select(DeletedDocument, Job).join(Job, col(DeletedDocument.unlearning_job_id) == Job.id)
    found = session.exec(query.where(learned, not_unlearned, not_(UNANSWERED)).with_for_update()).all()
    if found and registry.find_alias() != str(champion):
        return []  # the version that unlearns was promoted at this moment
    of_deleted = {job.id: job for _, job in found}
    for deleted, _ in found:
        deleted.unlearned_from = None
        session.add(deleted)
    others = [job for job in withdrawals if not _has_deleted(session, job)]
    jobs = [*of_deleted.values(), *others]
    for job in jobs:
        failures = job.failures + 1  # Prefect starts another run
        _reopen(job)
        job.failures, job.last_failure = failures, f"Version {champion} serves, which may have learned it"
        session.add(job)
    if not jobs:
        return []
    return [f"Version {champion} may have learned what was unlearned: unlearned again for {len(jobs)} requests."]


def _has_deleted(session: Session, job: Job) -> bool:
    query = select(DeletedDocument.id).where(DeletedDocument.unlearning_job_id == job.id).limit(1)
    return session.exec(query).first() is not None
