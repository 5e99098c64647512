"""The flow of a consolidation, which pauses after the call that the file $PAUSE_FILE names until the file is gone."""

import os
import pkgutil
import time
from pathlib import Path
from typing import Any

from flows.consolidation import consolidate

__all__ = ["consolidate"]


def pause_after(call: str, pause: Path) -> None:
    """Have a function write this process's id beside the file when it returns, and wait."""
    parent, name = call.rsplit(".", 1)
    owner = pkgutil.resolve_name(parent)
    original = getattr(owner, name)

    def call_and_pause(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        new = pause.with_suffix(".new")
        new.write_text(str(os.getpid()))
        new.rename(pause.with_suffix(".reached"))
        while pause.exists():
            time.sleep(0.1)
        return result

    setattr(owner, name, call_and_pause)


# The worker imports this module too, without the variable, to look for the hooks of a crashed run.
file = Path(os.environ.get("PAUSE_FILE", os.devnull))
if file.is_file():
    pause_after(file.read_text(), file)
