"""A table of all settings, from their own descriptions."""

import re
from collections.abc import Iterator
from importlib.resources import files

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from feedback.time_limits import TimeLimits
from registry.settings import Settings

Row = tuple[str, str, str]


def build_settings_table() -> str:
    """Return a Markdown table of the environment variables: name, default, description."""
    rows = [*_list_fields(Settings), *_list_fields(TimeLimits), *_list_installation_variables()]
    lines = ["| variable | default | description |", "|---|---|---|"]
    lines += [f"| `{name}` | {f'`{default}`' if default else ''} | {text} |" for name, default, text in rows]
    return "\n".join(lines)


def _list_fields(settings: type[BaseSettings]) -> Iterator[Row]:
    prefix = settings.model_config["env_prefix"]
    for name, field in settings.model_fields.items():
        yield (prefix + name).upper(), _show(field.default), field.description or ""


def _show(default: object) -> str:
    if isinstance(default, SecretStr):
        return default.get_secret_value()  # a default is no secret
    if isinstance(default, frozenset):
        return "[]"
    return "" if default is None else str(default).lower() if isinstance(default, bool) else str(default)


def _list_installation_variables() -> Iterator[Row]:
    """Yield the assignments of `installation.env`, each with the comment of its paragraph."""
    for paragraph in (files("cli") / "installation.env").read_text().split("\n\n")[1:]:
        reason = " ".join(re.findall(r"^# (.*)", paragraph, re.MULTILINE)).removesuffix(".")
        for name, value in re.findall(r"^(\w+)=(.*)", paragraph, re.MULTILINE):
            yield name, value, reason
