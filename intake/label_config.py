"""Label Studio's labelling configuration: which labels, under which names, mark which text of a task."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, ParseError  # types only; defusedxml parses

from defusedxml.ElementTree import fromstring
from pydantic import TypeAdapter, ValidationError

from registry.errors import InvalidInputError
from registry.text_types import EntityType, Text

MAX_CONFIG = 200_000  # characters
_MOST_LABELS = 1_000
_VARIABLE = re.compile(r"\$([\w.-]+)")
_TYPE, _TEXT = TypeAdapter[str](EntityType), TypeAdapter[str](Text)


@dataclass(frozen=True)
class Label:
    """A label as results name it, and its control."""

    name: str
    from_name: str


@dataclass(frozen=True)
class LabelConfig:
    """The labels on the text of a task.

    `text_name` is what results refer to, `text_key` where the text is in the task's data. `labels` are by our types: a
    label's alias or, without one, its value.
    """

    text_name: str
    text_key: str
    labels: Mapping[str, Label]
    values: Mapping[str, str]

    def find_label(self, type_name: str) -> Label | None:
        """Return the label whose alias or value is a type."""
        return self.labels.get(type_name) or self.labels.get(self.values.get(type_name, ""))

    def read_text(self, data: Mapping[str, Any]) -> str:
        """Return the text of a task; raises InvalidInputError."""
        text = data.get(self.text_key)
        if not isinstance(text, str):
            raise InvalidInputError(f"The task's data has no text {self.text_key!r}")
        try:
            return _TEXT.validate_python(text)
        except ValidationError as error:
            raise InvalidInputError(f"The text {self.text_key!r}: {error.errors()[0]['msg']}") from error


def read_label_config(xml: str) -> LabelConfig:
    """Read a labelling configuration.

    Raises InvalidInputError if it is not XML, is too large, or has no labels on a text that is in the task.
    """
    if len(xml) > MAX_CONFIG:
        raise InvalidInputError(f"The labelling configuration has more than {MAX_CONFIG} characters")
    try:
        root = fromstring(xml, forbid_dtd=True)
    except (ParseError, ValueError) as error:  # the latter for what is forbidden, and half surrogates
        raise InvalidInputError(f"The labelling configuration is not XML that is accepted: {error}") from error
    elements = list(root.iter())
    texts = {each.get("name"): each for each in elements if each.tag == "Text"}
    controls = [each for each in elements if each.tag == "Labels"]
    if any(each.find(".//Labels") is not None for each in controls):  # its labels would be read once for each
        raise InvalidInputError("The labelling configuration has a <Labels> inside another: close the first")
    text_name = next((name for each in controls for name in _list_targets(each) if name in texts), None)
    if text_name is None:
        raise InvalidInputError("The labelling configuration has no <Labels> on a <Text>: add both")
    of_text = [each for each in controls if text_name in _list_targets(each)]
    labels, values = _read_labels(of_text)
    return LabelConfig(text_name, _read_key(texts[text_name]), labels, values)


def _list_targets(control: Element) -> list[str]:
    return control.get("toName", "").split(",")


def _read_labels(controls: list[Element]) -> tuple[dict[str, Label], dict[str, str]]:
    """Return the labels by their types, and the types of their values."""
    labels, values = dict[str, Label](), dict[str, str]()
    for control in controls:
        for element in control.iter("Label"):
            value = element.get("value", "")
            name = element.get("alias") or value
            try:
                labels.setdefault(_TYPE.validate_python(name), Label(name, control.get("name", "")))
            except ValidationError as error:
                raise InvalidInputError(f"The label {name[:100]!r}: {error.errors()[0]['msg']}") from error
            values.setdefault(value, name)
    if not 0 < len(labels) <= _MOST_LABELS:
        raise InvalidInputError(f"The text has {len(labels)} labels: write 1 to {_MOST_LABELS} <Label> into <Labels>")
    return labels, values


def _read_key(text: Element) -> str:
    """Return where in the task's data the text is; raises InvalidInputError if it is not there itself."""
    if text.get("valueType", "text") != "text":
        raise InvalidInputError(
            'The labelling configuration has valueType="url", and the backend fetches nothing: put the text itself '
            'into the tasks, and write valueType="text"'
        )
    if text.get("encoding", "none") != "none":
        raise InvalidInputError("The labelling configuration has an encoding: put plain text into the tasks")
    variable = _VARIABLE.fullmatch(text.get("value", ""))
    if variable is None:
        raise InvalidInputError('The <Text> of the labelling configuration needs a variable: value="$text"')
    return variable[1]
