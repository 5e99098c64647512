"""The flow of the installation, which kills processes once: after the call that the file $FAULT_FILE names."""

import json
import os
import pkgutil
import signal
from pathlib import Path
from typing import Any

from flows.feedback import learn_from_feedback

__all__ = ["learn_from_feedback"]


def kill_after(call: str, process_group: int, kills_itself: bool) -> None:
    """Replace a function, until it has returned once, by one that then kills a process group and perhaps this one."""
    parent, name = call.rsplit(".", 1)
    owner = pkgutil.resolve_name(parent)
    original = getattr(owner, name)

    def call_and_kill(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        setattr(owner, name, original)
        os.killpg(process_group, signal.SIGKILL)
        if kills_itself:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, call_and_kill)


fault = Path(os.environ["FAULT_FILE"])
if fault.exists():
    kill_after(**json.loads(fault.read_text()))
    fault.unlink()
