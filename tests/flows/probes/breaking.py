"""The flow, in which processes are killed once: after the call that the file $BREAKING_ORDER names."""

import json
import os
import pkgutil
import signal
from pathlib import Path
from typing import Any

from flows.feedback import learn_from_feedback

__all__ = ["learn_from_feedback"]


def break_after(call: str, process_group: int, dies_itself: bool) -> None:
    parent, name = call.rsplit(".", 1)
    owner = pkgutil.resolve_name(parent)
    original = getattr(owner, name)

    def call_and_break(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        setattr(owner, name, original)
        os.killpg(process_group, signal.SIGKILL)
        if dies_itself:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, call_and_break)


order = Path(os.environ["BREAKING_ORDER"])
if order.exists():
    break_after(**json.loads(order.read_text()))
    order.unlink()
