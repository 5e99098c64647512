"""Screening: which documents of a run are set aside, since they contradict what was learned from other reviews.

Each document is judged alone and before it is learned, so the others of its run are promoted.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from sqlmodel import Session

from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity, Span
from embeddinggemma_feasibility.evaluation import Predictions, predicted_values
from embeddinggemma_feasibility.trained_model import TrainedModel
from feedback.contradictions import Contradiction, list_unmarked
from feedback.training_set import TrainingSet
from registry.lessons import count_learned_documents, list_agreed_spans, list_learned_lessons

_LIKELY = 0.5
_LEAST_MEASURED = 10
_MOST_NAMED = 3  # pairs of types in a sentence


def explain_objections(
    session: Session,
    training_set: TrainingSet,
    unseen: Predictions,
    version: str,
    known_types: Collection[str],
    reads_well: bool,
) -> dict[str, str]:
    """Return why documents are to be set aside, by their ids, in sentences for their reviewers.

    `unseen` holds what the part of the version that is blind to each document finds in it; `known_types` are those of
    the version; `reads_well` is as in `find_objection`. There is no objection to documents that a person insists on.
    """
    documents = [data for data in training_set.training if data.document_id not in training_set.insisted]
    lessons = list_learned_lessons(session, document_ids=[data.document_id for data in documents])
    agreed = list_agreed_spans(session, lessons)
    objections = dict[str, Objection]()
    for data in documents:
        found, of_document = unseen[data.document_id], agreed.get(data.document_id, set())
        if objection := find_objection(data, found, of_document, known_types, reads_well):
            objections[data.document_id] = objection
    read = {each.type for objection in objections.values() for each in objection.contradicted}
    documents_of_type = dict[str, int]()
    if read:
        learned = list_learned_lessons(session)
        others = {document_id: job_id for document_id, job_id in learned.items() if document_id not in lessons}
        documents_of_type = count_learned_documents(session, others, read)
    return {
        document_id: describe_objection(objection, version, documents_of_type)
        for document_id, objection in objections.items()
    }


def reads_well(model: TrainedModel) -> bool:
    """Tell whether what a model finds and nobody marked speaks against annotations.

    At least ten documents must have measured it, and at most one in twenty of them may speak so against itself.
    """
    calibration, contradicting = model.served.calibration, 0
    for measurement in model.measurements.values():
        likely = [is_right for sure, is_right in calibration.estimate_found([measurement]) if sure >= _LIKELY]
        contradicting += _are_most(likely.count(False), 3, 3 / 4, len(likely))
    return len(model.measurements) >= _LEAST_MEASURED and contradicting <= len(model.measurements) / 20


class Objection(NamedTuple):
    """What speaks against learning a document.

    `contradicted` are values that the champion reads in it, of `read` ones, and that are not marked as it reads them;
    `taken_out` are learned annotations of two reviewers that are not there any more, of `agreed` ones; `doubled` are
    annotations of types that are not known, of text that is also marked as a known one, of `marked` annotations.
    """

    contradicted: list[Contradiction]
    read: int
    taken_out: list[Span]
    agreed: int
    doubled: list[Span]
    marked: int


def find_objection(
    data: AnnotationData,
    found: Sequence[Entity],
    agreed: Collection[Span],
    known_types: Collection[str],
    reads_well: bool,
) -> Objection | None:
    """Return what speaks against learning a document, None if nothing does.

    `found` is what a calibrated tagger finds that has not learned from the document. Its values must not be marked as
    another type: two of them at least, and more than half. If the tagger `reads_well`, of the values with a confidence
    of at least 0.5, at least three, and more than three quarters, must not be unmarked. Of the learned annotations that
    two reviewers `agreed` on, at least three, and more than half, must not be taken out. Of the annotations, at least
    three, and half, must not mark text as a new type that is also marked as one of the `known_types`. Decision 0017 has
    the reasons of these numbers.
    """
    likely = [entity for entity in found if entity.confidence >= _LIKELY]
    contradicted, read = list(list_unmarked(data, likely)), len(predicted_values(data, likely))
    if not (reads_well and _are_most(len(contradicted), 3, 3 / 4, read)):
        contradicted, read = list(_list_retyped(data, found)), len(predicted_values(data, found))
        if not _are_most(len(contradicted), 2, 1 / 2, read):
            contradicted = []
    taken_out = sorted(set(agreed) - set(data.spans))
    if not _are_most(len(taken_out), 3, 1 / 2, len(agreed)):
        taken_out = []
    known = {(span.start, span.end) for span in data.spans if span.type in known_types}
    doubled = [span for span in data.spans if span.type not in known_types and (span.start, span.end) in known]
    if len(doubled) < 3 or len(doubled) < len(data.spans) / 2:
        doubled = []
    if not (contradicted or taken_out or doubled):
        return None
    return Objection(contradicted, read, taken_out, len(agreed), doubled, len(data.spans))


def _are_most(some: int, least: int, share: float, count: int) -> bool:
    return some >= least and some > share * count


def _list_retyped(data: AnnotationData, found: Sequence[Entity]) -> Iterator[Contradiction]:
    """Yield the values that are found and marked as another type only."""
    for each in list_unmarked(data, found):
        if each.marked_as and each.type not in each.marked_as:
            yield each


def describe_objection(objection: Objection, version: str, documents_of_type: Mapping[str, int]) -> str:
    """Return sentences for the reviewer, who may change the annotations or insist on them.

    `documents_of_type` is the number of other learned documents with annotations of each type.
    """
    parts = [_describe_pair(*pair, documents_of_type) for pair in _name_pairs(objection.contradicted)]
    if objection.taken_out:
        count, agreed = len(objection.taken_out), objection.agreed
        parts.append(f"it takes out {count} of {agreed} annotations that two reviewers agreed on")
    if objection.doubled:
        count, types = len(objection.doubled), len({span.type for span in objection.doubled})
        new = f"{types} new type{'s' * (types != 1)}"
        parts.append(f"{count} of {objection.marked} annotations mark as {new} what is marked as a known type, too")
    if objection.contradicted:
        count, read = len(objection.contradicted), objection.read
        parts.append(f"{count} of {read} values that version {version} reads in it are not marked as it reads them")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _name_pairs(contradicted: Iterable[Contradiction]) -> list[tuple[str, str]]:
    """Return the most frequent pairs: what values are marked as, "" for nothing, and what they are read as."""
    counts = Counter((name, each.type) for each in contradicted for name in each.marked_as or ("",))
    return [pair for pair, _ in counts.most_common(_MOST_NAMED)]


def _describe_pair(marked: str, read: str, documents_of_type: Mapping[str, int]) -> str:
    documents = documents_of_type.get(read, 0)
    others = f"{documents} learned document{'s' * (documents != 1)} call{'s' * (documents == 1)} {read}"
    if marked == read:
        return f"it gives another extent to what {others}"
    if not marked:
        return f"it leaves out what {others}"
    return f"it marks as {marked} what {others}"
