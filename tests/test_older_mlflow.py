"""MLflow is restored from a back-up while everything else goes on: what came after it is taught again by itself."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from tests.faults import BreakableInstallation, kill, start_again, wait_until


@pytest.mark.slow
def test_feedback_from_after_the_back_up_is_taught_again_though_nobody_does_anything(
    breakable: BreakableInstallation,
) -> None:
    mlflow, back_up = breakable.folder / "mlflow.db", breakable.folder / "back-up.db"
    with closing(sqlite3.connect(mlflow)) as source, closing(sqlite3.connect(back_up)) as target:
        source.backup(target)
    document = breakable.upload()
    job_id = breakable.feed_back(document)
    breakable.check_learned(job_id)
    lost = breakable.reviewer.read_job(job_id)["live_version"]
    kill(breakable.stack, "mlflow")
    for file in breakable.folder.glob("mlflow.db-*"):
        file.unlink()
    shutil.copy(back_up, mlflow)
    start_again(breakable.stack, "mlflow")
    wait_until(lambda: breakable.reviewer.read_job(job_id)["lost_version"] == int(lost))
    breakable.check_learned(job_id)
    live = breakable.reviewer.read_job(job_id)["live_version"]
    assert int(live) > int(lost)
    answer = breakable.http.get(f"/documents/{document.id}/entities", params={"min_version": live})
    assert answer.json()["model_version"] == live
    assert breakable.http.get("/system-status").json()["mlflow"]["ok"]
