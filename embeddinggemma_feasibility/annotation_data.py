"""The learning's input and output: annotated documents, and the entities predicted in them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A typed stretch of text.

    Offsets are Python string indices into the document's text, `end` exclusive.
    """

    start: int
    end: int
    type: str


@dataclass(frozen=True, slots=True)
class AnnotationData:
    """A document with all spans that its reviewer annotated.

    `reviewed_types` are the types that the reviewer looked for, None for all types. Text without a span of such a type
    is a negative example of it. A type that did not exist at the time of the review is neither learned nor scored here.
    """

    document_id: str
    text: str
    spans: tuple[Span, ...]
    reviewed_types: frozenset[str] | None = None

    def is_reviewed(self, type_name: str) -> bool:
        """Return whether the reviewer looked for this type."""
        return self.reviewed_types is None or type_name in self.reviewed_types


@dataclass(frozen=True, slots=True)
class Entity:
    """A predicted span: `value` is `text[start:end]`, `confidence` its posterior probability."""

    type: str
    value: str
    start: int
    end: int
    confidence: float
