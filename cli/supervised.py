"""A supervised module, which is terminated when its supervisor dies.

python -m cli.supervised SUPERVISOR_PID MODULE ARGUMENTS
"""

import runpy
import signal
import sys

from flows.warm.lifetime import die_with


def main() -> None:
    """Run the module as `python -m` does."""
    _, supervisor, module, *arguments = sys.argv
    die_with(int(supervisor), signal.SIGTERM)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
