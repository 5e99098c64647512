from sqlmodel import Session

from embeddinggemma_feasibility.evaluation import LabelledValue
from registry.corrections import add_corrections, list_corrections
from tests.registry.test_annotations import add_document


def test_corrections_are_stored_once_and_not_for_deleted_documents(session: Session) -> None:
    document_id = add_document(session).id
    correction = LabelledValue(document_id, "party", "bell")
    for _ in range(2):
        add_corrections(session, {correction, LabelledValue("deleted", "party", "bell")})
    assert list_corrections(session, [document_id, "deleted"]) == {correction}
