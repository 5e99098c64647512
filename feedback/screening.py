"""Screening: which documents of a run are set aside, since they contradict what was learned from other reviews.

Each document is judged alone and before it is learned, so the others of its run are promoted.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from sqlmodel import Session

from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity, Span
from embeddinggemma_feasibility.evaluation import Predictions, predicted_values
from feedback.contradictions import Contradiction, list_unmarked
from feedback.training_set import TrainingSet
from registry.annotations import count_documents_of_types
from registry.lessons import list_agreed_spans, list_learned_lessons

_LIKELY = 0.5  # confidence of the values that are compared with the annotations
_LEAST_UNMARKED, _LARGEST_SHARE_UNMARKED = 3, 3 / 4
_LEAST_TAKEN_OUT, _LARGEST_SHARE_TAKEN_OUT = 3, 1 / 2
_MOST_NAMED = 3  # pairs of types in a sentence


def explain_objections(
    session: Session, training_set: TrainingSet, unseen: Predictions, version: str
) -> dict[str, str]:
    """Return why documents are to be set aside, by their ids, in sentences for their reviewers.

    `unseen` holds what the part of the version that is blind to each document finds in it. There is no objection to
    documents that a person insists on.
    """
    documents = [data for data in training_set.training if data.document_id not in training_set.insisted]
    learned = list_learned_lessons(session)
    lessons = {data.document_id: learned[data.document_id] for data in documents if data.document_id in learned}
    agreed = list_agreed_spans(session, lessons)
    objections = dict[str, Objection]()
    for data in documents:
        found, of_document = unseen[data.document_id], agreed.get(data.document_id, set())
        if objection := find_objection(data, found, of_document):
            objections[data.document_id] = objection
    read = {each.type for objection in objections.values() for each in objection.unmarked}
    documents_of_type = count_documents_of_types(session, read)
    return {
        document_id: describe_objection(objection, version, documents_of_type)
        for document_id, objection in objections.items()
    }


class Objection(NamedTuple):
    """What speaks against learning a document.

    `unmarked` are the likely values that the champion reads in it and nobody marked, of `likely` ones; `taken_out` are
    the learned annotations of two reviewers that are not there any more, of `agreed` ones.
    """

    unmarked: list[Contradiction]
    likely: int
    taken_out: list[Span]
    agreed: int


def find_objection(data: AnnotationData, found: Sequence[Entity], agreed: Collection[Span]) -> Objection | None:
    """Return what speaks against learning a document, None if nothing does.

    `found` is what a calibrated tagger finds that has not learned from the document: of the values that it finds with a
    confidence of at least 0.5, at least three, and more than three quarters, are not marked (decision 0017). Of the
    learned annotations that two reviewers `agreed` on, at least three, and more than half, are taken out.
    """
    likely = [entity for entity in found if entity.confidence >= _LIKELY]
    unmarked, likely_count = list(list_unmarked(data, likely)), len(predicted_values(data, likely))
    if len(unmarked) < _LEAST_UNMARKED or len(unmarked) <= _LARGEST_SHARE_UNMARKED * likely_count:
        unmarked = []
    taken_out = sorted(set(agreed) - set(data.spans))
    if len(taken_out) < _LEAST_TAKEN_OUT or len(taken_out) <= _LARGEST_SHARE_TAKEN_OUT * len(agreed):
        taken_out = []
    return Objection(unmarked, likely_count, taken_out, len(agreed)) if unmarked or taken_out else None


def describe_objection(objection: Objection, version: str, documents_of_type: Mapping[str, int]) -> str:
    """Return sentences for the reviewer, who may change the annotations or insist on them.

    `documents_of_type` is the number of reviewed documents with annotations of each type.
    """
    parts = [_describe_pair(*pair, documents_of_type) for pair in _name_pairs(objection.unmarked)]
    if objection.taken_out:
        count, agreed = len(objection.taken_out), objection.agreed
        parts.append(f"it takes out {count} of {agreed} annotations that two reviewers agreed on")
    if objection.unmarked:
        count, likely = len(objection.unmarked), objection.likely
        parts.append(f"{count} of {likely} values that version {version} reads in it are not marked as it reads them")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _name_pairs(unmarked: Iterable[Contradiction]) -> list[tuple[str, str]]:
    """Return the most frequent pairs: what values are marked as, "" for nothing, and what they are read as."""
    counts = Counter((name, each.type) for each in unmarked for name in each.marked_as or ("",))
    return [pair for pair, _ in counts.most_common(_MOST_NAMED)]


def _describe_pair(marked: str, read: str, documents_of_type: Mapping[str, int]) -> str:
    documents = documents_of_type.get(read, 0)
    others = f"{documents} reviewed document{'s' * (documents != 1)} call{'s' * (documents == 1)} {read}"
    if marked == read:
        return f"it gives another extent to what {others}"
    if not marked:
        return f"it leaves out what {others}"
    return f"it marks as {marked} what {others}"
