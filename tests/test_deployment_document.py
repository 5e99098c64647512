"""What docs/deployment.md says: the table of settings, and the commands of the trial on one machine."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.command_line import app
from tests.postgresql import find_programs, run_postgresql

PROJECT = Path(__file__).parents[1]
DOCUMENT = (PROJECT / "docs/deployment.md").read_text()
TRIAL = DOCUMENT.partition("### A trial on one machine")[2].partition("\n### ")[0]
BACK_UP, RESTORE = re.findall(r" *```bash\n(.*?)```", DOCUMENT.partition("## Back up and restore")[2], re.DOTALL)[:2]
SUPERUSER = re.compile("runuser -u postgres -- (psql|pg_dump|pg_restore)")
LOSS = """
STOPPED=$(cat api*.pid worker*.pid mlflow.pid)
kill $STOPPED 2> /dev/null || true
for PID in $STOPPED; do tail --pid=$PID --follow /dev/null; done
python -c "import s3fs; s3fs.S3FileSystem().rm(['contracts/documents', 'contracts/mlflow'], recursive=True)"
rm --recursive 127.0.1.3
python -c "import s3fs; s3fs.S3FileSystem().put('bucket/', 'contracts/', recursive=True)"
"""
START_AGAIN = """
start_mlflow
start_api 127.0.1.3
wait_for http://127.0.1.1:5000/health http://127.0.1.3:8000/ready
contract-feedback extract service.txt --api-url http://127.0.1.3:8000
"""


def test_table_of_settings_is_what_the_command_prints() -> None:
    assert DOCUMENT.partition("<!-- settings -->\n")[2] == CliRunner().invoke(app, ["settings"]).stdout


def test_environment_of_the_trial_has_an_address_for_each_server_and_no_gap(tmp_path: Path) -> None:
    (tmp_path / "deploy").symlink_to(PROJECT / "deploy")
    first = re.findall(r"```sh\n(.*?)```", TRIAL, re.DOTALL)[0]
    subprocess.run(["/bin/bash", "-ec", first], cwd=tmp_path, check=True)
    environment = (tmp_path / ".local/team/team.env").read_text()
    assert re.findall(r"@[\d.:]+/\w+|^\w+=\S*http\S+", environment, re.MULTILINE) == [
        "@127.0.0.1:5432/contract_feedback",
        "CONTRACT_FEEDBACK_MLFLOW_TRACKING_URI=http://127.0.1.1:5000",
        "CONTRACT_FEEDBACK_MLFLOW_PUBLIC_URL=http://127.0.1.1:5000",
        "CONTRACT_FEEDBACK_PUBLIC_URL=http://127.0.1.2:8000",
        "PREFECT_API_URL=http://127.0.1.1:4200/api",
        "PREFECT_UI_URL=http://127.0.1.1:4200",
        "AWS_ENDPOINT_URL=http://127.0.1.1:8333",
        "@127.0.0.1:5432/prefect",
        "PREFECT_SERVER_UI_API_URL=http://127.0.1.1:4200/api",
        "@127.0.0.1:5432/mlflow",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS=http://127.0.1.1:5000",
    ]
    assert "CHANGE_ME" not in re.sub(r"(?m)^#.*", "", environment)


@pytest.mark.slow
@pytest.mark.xdist_group("port 8333")  # SeaweedFS wants it on every address
def test_commands_of_the_trial_end_with_entities_of_the_new_version_and_so_does_a_restored_back_up(
    tmp_path: Path,
) -> None:
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    for name in ("cli", "deploy"):
        (tmp_path / name).symlink_to(PROJECT / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    with run_postgresql(programs, "127.0.1.4") as server:
        script = SUPERUSER.sub(rf"{programs}/\1 -h {server.folder} -U postgres", build_script())
        ended = subprocess.run(
            ["/bin/bash", "-c", script.replace("POSTGRES=127.0.0.1:", "POSTGRES=127.0.1.4:")],
            cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=400, check=False,
        )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert '"ok": true' in ended.stdout.partition('"database"')[0]
    assert len(re.findall(r"party\W+Norvex Ltd", ended.stdout)) == 3, ended.stdout


def build_script() -> str:
    """Return the commands that a reader pastes, but for those that install something."""
    blocks = re.findall(r"```(sh|bash)\n(.*?)```", TRIAL, re.DOTALL)
    *pasted, end = [text for kind, text in blocks if kind == "sh" or "CREATE ROLE" in text]
    trial, back_up = "".join(pasted), BACK_UP.replace("BUCKET", "contracts")
    return f"end() {{ {end} }}; set -e; trap end EXIT; {trial}{back_up}{LOSS}{RESTORE}{START_AGAIN}"
