"""What Label Studio sends: requests built for the tests, and those that were recorded from a real one."""

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parents[2] / "shared" / "label_studio" / "payloads.json"
CONFIG = (
    '<View><Labels name="label" toName="text"><Label value="Party" alias="party"/><Label value="date"/></Labels>'
    '<Text name="text" value="$text"/></View>'
)
TEXT = "😀 Acme Ltd pays\n  Bell on 1 May 2024."
TIME = "2026-01-01T12:00:{:02}Z"


def build_project(config: str = CONFIG, number: int = 3) -> dict[str, Any]:
    return {"id": number, "created_at": "2026-01-01T00:00:00.5Z", "label_config": config, "title": "ours"}


def build_task(text: str = TEXT, number: int = 1, **data: object) -> dict[str, Any]:
    return {"id": number, "data": {"text": text, **data}, "meta": {}}


def mark(value: str, label: str, text: str = TEXT) -> dict[str, Any]:
    start = text.index(value)
    span = {"start": start, "end": start + len(value), "text": value.replace("\n", "\\n"), "labels": [label]}
    return {"id": label, "from_name": "label", "to_name": "text", "type": "labels", "value": span}


def build_annotation(*result: dict[str, Any], number: int = 1, second: int = 0, **fields: object) -> dict[str, Any]:
    return {"id": number, "result": result, "updated_at": TIME.format(second), "completed_by": 1, **fields}


def build_webhook(annotation: dict[str, Any], task: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    sent = {"annotation": annotation, "task": task or build_task(), "project": build_project()}
    return {"action": "ANNOTATION_CREATED", **sent, **fields}


def build_deletion(*numbers: int, **fields: Any) -> dict[str, Any]:
    deleted = [{"id": number} for number in numbers]
    return {"action": "ANNOTATIONS_DELETED", "annotations": deleted, "project": build_project(), **fields}


def basic(key: str) -> dict[str, str]:
    return {"Authorization": f"Basic {b64encode(f'anyone:{key}'.encode()).decode()}"}


def load_recorded() -> list[dict[str, Any]]:
    recorded: list[dict[str, Any]] = json.loads(RECORDED.read_text())
    return recorded
