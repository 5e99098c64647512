"""One decision instead of three booleans in a job's outcome; clearer names for the columns of a job's state."""

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

Outcome = dict[str, Any]

_COLUMNS = {"flow_run_id": "launched_run_id", "claimed_by": "claiming_run_id", "attempts": "failures"}
_FIELDS = {"taught_documents": "training_documents", "measured_documents": "held_out_documents"}
_SCORES = {"corrections_kept": "corrections_reproduced"}
_job = sa.table("job", sa.column("id", sa.String), sa.column("outcome", sa.JSON))


def upgrade() -> None:
    """Apply."""
    _rename_columns(_COLUMNS)
    _rewrite_outcomes(_upgrade_outcome)


def downgrade() -> None:
    """Undo."""
    _rewrite_outcomes(_downgrade_outcome)
    _rename_columns(_reverse(_COLUMNS))


def _rename_columns(names: Mapping[str, str]) -> None:
    for old, new in names.items():
        has_index = old not in {"attempts", "failures"}
        if has_index:
            op.drop_index(f"ix_job_{old}", "job")
        op.execute(f"ALTER TABLE job RENAME COLUMN {old} TO {new}")
        if has_index:
            op.create_index(f"ix_job_{new}", "job", [new])


def _rewrite_outcomes(rewrite: Callable[[Outcome], Outcome]) -> None:
    connection = op.get_bind()
    answered = connection.execute(sa.select(_job).where(_job.c.outcome.is_not(None))).all()
    for job_id, outcome in answered:
        connection.execute(sa.update(_job).where(_job.c.id == job_id).values(outcome=rewrite(outcome)))


def _upgrade_outcome(old: Outcome) -> Outcome:
    outcome = _rename_fields(old, _FIELDS, _SCORES)
    promoted, failed, cancelled = (outcome.pop(name, False) for name in ("promoted", "failed", "cancelled"))
    if cancelled or failed:
        decision = "cancelled" if cancelled else "failed"
    elif promoted:
        decision = "promoted"
    else:
        decision = "not_promoted" if outcome.get("challenger") else "not_trained"
    return {**outcome, "decision": decision}


def _downgrade_outcome(new: Outcome) -> Outcome:
    outcome = _rename_fields(new, _reverse(_FIELDS), _reverse(_SCORES))
    decision = outcome.pop("decision")
    return {
        **outcome,
        "promoted": decision == "promoted",
        "failed": decision in {"failed", "cancelled"},
        "cancelled": decision == "cancelled",
    }


def _rename_fields(outcome: Outcome, fields: Mapping[str, str], of_scores: Mapping[str, str]) -> Outcome:
    renamed = {fields.get(name, name): value for name, value in outcome.items()}
    for model in ("champion", "challenger"):
        if scores := renamed.get(model):
            renamed[model] = {of_scores.get(name, name): value for name, value in scores.items()}
    return renamed


def _reverse(names: Mapping[str, str]) -> dict[str, str]:
    return {new: old for old, new in names.items()}
