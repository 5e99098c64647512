"""The command of a run in the background: a process of low priority that starts cold, since a fork cannot use CUDA."""

import contextlib
import os
import signal
import sys

from flows.warm.lifetime import die_with
from flows.warm.parent import lower_priority

_NICENESS = 10  # a third of the weight of a run on feedback, a ninth of that of an extraction


def main() -> None:
    """Become `python -m prefect.engine` in a session of its own, which the kernel kills when the worker dies."""
    die_with(os.getppid(), signal.SIGKILL)
    with contextlib.suppress(PermissionError):  # it leads a session or a process group already
        os.setsid()
    lower_priority(_NICENESS)
    os.execv(sys.executable, [sys.executable, "-m", "prefect.engine"])  # noqa: S606


if __name__ == "__main__":
    main()
