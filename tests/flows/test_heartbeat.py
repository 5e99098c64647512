import os
import subprocess
import sys

SCRIPT = """
from prefect.settings import get_current_settings
from flows.warm.heartbeat import set_heartbeat_interval
set_heartbeat_interval()
print(get_current_settings().to_environment_variables(exclude_unset=True)["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
"""


def test_worker_passes_the_heartbeat_interval_of_the_time_limits_to_its_runs() -> None:
    environment = os.environ | {"CONTRACT_FEEDBACK_HEARTBEAT_SECONDS": "40", "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "77"}
    passed = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    assert passed.stdout == "40\n"
