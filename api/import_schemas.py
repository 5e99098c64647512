"""What an import and an export answer."""

from enum import StrEnum

from pydantic import BaseModel, Field

LEFT_OUT = "X-Left-Out"  # header of an export: the number of annotations with another status


class ImportState(StrEnum):
    """What became of a document of an imported file."""

    ADDED = "added"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"
    KEPT = "kept"
    REFUSED = "refused"


class ImportedDocument(BaseModel):
    """A document of an imported file."""

    state: ImportState = Field(
        description="`added`: its annotations were stored; `replaced`: instead of others; `unchanged`: they are there; "
        "`kept`: the document is annotated otherwise, and remains so; `refused`: nothing was stored"
    )
    reason: str | None = Field(None, description="Why it is refused or kept, and what to do")
    document_id: str | None = Field(None, description="Null if it is refused")
    filename: str | None = None
    annotations: int = Field(0, description="The number of annotations in the file, each counted once")
    ignored: dict[str, int] = Field(default={}, description="What the file has of this document beside spans, counted")


class ImportReport(BaseModel):
    """What became of the documents of an imported file, in their order."""

    documents: list[ImportedDocument]
    to_teach: list[str] = Field(
        description="Those whose annotations no job was given yet: send them to POST /training-runs as `document_ids`"
    )
