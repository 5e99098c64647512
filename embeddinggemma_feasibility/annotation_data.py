"""What is learned from and what is predicted: spans over a contract's text."""

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
    """One document with everything its reviewer marked.

    Of the types in `reviewed_types` (None: of all types) whatever is not marked is no entity; other types did not
    exist yet when the document was reviewed, and nothing is learned or scored about them.
    """

    document_id: str
    text: str
    spans: tuple[Span, ...]
    reviewed_types: frozenset[str] | None = None

    def is_reviewed(self, type_name: str) -> bool:
        """Tell whether the reviewer knew of this type."""
        return self.reviewed_types is None or type_name in self.reviewed_types


@dataclass(frozen=True, slots=True)
class Entity:
    """A predicted span: `value` is `text[start:end]`, `confidence` its posterior probability."""

    type: str
    value: str
    start: int
    end: int
    confidence: float
