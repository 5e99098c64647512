"""Every format: what goes out comes in again, from generated contracts and from those of ../shared/data."""

import json
import random
from pathlib import Path

import pytest

from benchmarks.corpus import SHARED_DATA, read_corpus
from embeddinggemma_feasibility.annotation_data import AnnotationData
from intake.formats.annotated_text import AnnotatedText, Mark
from intake.formats.file_format import FileFormat
from intake.formats.names import FORMATS, FormatName
from registry.errors import InvalidInputError
from registry.tables import AnnotationStatus

TEXT = "\n Norvex  Ltd, 😀 e\u0301 100\u00a0%\t\u2028Lda.\r\n-DOCSTART- %20 \\n\n\nÉ"
CORPORA = [
    pytest.param(SHARED_DATA / "cuad/train.jsonl.xz", marks=pytest.mark.slow, id="cuad"),
    pytest.param(SHARED_DATA / "lener_br/train.jsonl.xz", id="lener_br"),
]


@pytest.fixture(params=list(FormatName))
def file_format(request: pytest.FixtureRequest) -> FileFormat:
    return FORMATS[request.param]


def annotate(data: AnnotationData) -> AnnotatedText:
    marks = tuple(Mark(start=span.start, end=span.end, type=span.type) for span in sorted(data.spans))
    return AnnotatedText(data.text, marks, data.document_id, f"{data.document_id}.txt")


def write(file_format: FileFormat, documents: list[AnnotatedText]) -> str:
    return file_format.join(map(file_format.write, documents))


def read(file_format: FileFormat, content: str) -> list[AnnotatedText]:
    return [file_format.read(record) for record in file_format.split(content)]


def list_spans(document: AnnotatedText) -> list[tuple[int, int, str]]:
    return sorted((mark.start, mark.end, mark.type) for mark in document.marks)


def check_round_trip(file_format: FileFormat, documents: list[AnnotatedText]) -> None:
    again = read(file_format, write(file_format, documents))
    assert len(again) == len(documents)
    for before, after in zip(documents, again, strict=True):
        assert (after.text, after.document_id, after.filename) == (before.text, before.document_id, before.filename)
        assert list_spans(after) == list_spans(before)


def test_generated_contracts_come_back_as_they_were(file_format: FileFormat, contracts: list[AnnotationData]) -> None:
    check_round_trip(file_format, [annotate(data) for data in contracts])


@pytest.mark.parametrize("path", CORPORA)
def test_real_documents_come_back_as_they_were(file_format: FileFormat, path: Path) -> None:
    if not path.exists():
        pytest.skip(f"{path} is not there")
    check_round_trip(file_format, [annotate(data) for data in read_corpus(path)])


@pytest.mark.parametrize("seed", range(30))
def test_any_spans_of_a_text_with_odd_characters_come_back(file_format: FileFormat, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311
    offsets = [sorted(rng.sample(range(len(TEXT) + 1), 2)) for _ in range(rng.randrange(12))]
    types = ("party", "a b|c%20", "__x:2", "I-party")
    spans = {(start, end, rng.choice(types)) for start, end in offsets}
    marks = tuple(Mark(start=start, end=end, type=name) for start, end, name in sorted(spans))
    check_round_trip(file_format, [AnnotatedText(TEXT, marks, "1", "a b.pdf"), AnnotatedText(TEXT, ())])


def test_reviewer_notes_and_status_come_back_where_the_format_holds_them(file_format: FileFormat) -> None:
    marks = (
        Mark(start=0, end=4, type="party", reviewer="Ana", notes="two\nlines", status=AnnotationStatus.REJECTED),
        Mark(start=0, end=4, type="buyer", status=AnnotationStatus.DRAFT),
        Mark(start=5, end=8, type="party"),
    )
    (again,) = read(file_format, write(file_format, [AnnotatedText("Acme Ltd", marks)]))
    assert (sorted(again.marks, key=str) == sorted(marks, key=str)) == file_format.holds_details


def test_file_without_documents_is_read(file_format: FileFormat) -> None:
    assert read(file_format, write(file_format, [])) == []


BROKEN = ("{", "[1", '{"text": 1}',
          '[{"data": {}}]', '{"data": [1]}', "[" * 100_000, '"\\ud800"', "a b c d e\nf", "a X-b",
          '{"text": "\\u0000", "label": [[0, 1, ""]]}', '{"data": [{"paragraphs": [{"context": 5}]}]}',
          "-DOCSTART- contract-feedback:1 _ O\n\na _ 3:x O", "-DOCSTART- contract-feedback:1 _ O\n\na _ O")  # fmt: skip


@pytest.mark.parametrize("content", BROKEN)
def test_broken_file_is_refused_with_the_reason(file_format: FileFormat, content: str) -> None:
    with pytest.raises(InvalidInputError, match=r"\w"):
        read(file_format, content)


def test_one_broken_line_does_not_hide_the_others() -> None:
    content = '{"text": "a"}\n{"text": \n\n{"text": "b\u2028c"}\n'
    records = list(FORMATS[FormatName.DOCCANO].split(content))
    assert [FORMATS[FormatName.DOCCANO].read(records[index]).text for index in (0, 2)] == ["a", "b\u2028c"]


def test_label_studio_takes_the_latest_annotation_and_counts_the_rest() -> None:
    label = {"type": "labels", "value": {"start": 0, "end": 4, "labels": ["party", "buyer"]}}
    other = {"type": "choices", "value": {"choices": ["good"]}}
    relation = {"type": "relation", "from_id": "1", "to_id": "2"}
    annotations = [
        {"result": [], "updated_at": "2026-01-01T00:00:00Z"},
        {"result": [label, other, relation], "updated_at": "2026-01-02T00:00:00Z", "completed_by": {"email": "a@b.c"}},
    ]
    content = json.dumps([{"id": 1, "data": {"text": "Acme Ltd", "document_id": 5}, "annotations": annotations}])
    (document,) = read(FORMATS[FormatName.LABEL_STUDIO], content)
    assert [(mark.type, mark.reviewer) for mark in document.marks] == [("party", "a@b.c"), ("buyer", "a@b.c")]
    assert document.ignored == {"results that are not labels": 2, "annotations that are not the latest": 1}
    assert document.document_id == "5"


def test_conll_of_other_programs_is_read_with_iob1_and_iob2() -> None:
    content = (
        "-DOCSTART- -X- -X- O\r\n\r\nEU NNP B-NP I-ORG\r\nrejects VBZ B-VP O\r\nGerman JJ B-NP I-MISC\r\n\r\n"
        "Peter\tB-PER\nBlackburn\tI-PER\nRui\tB-PER\n\n-DOCSTART- -X- O O\n\nBrussels B-LOC\n"
    )
    first, second = read(FORMATS[FormatName.CONLL], content)
    assert first.text == "EU rejects German\nPeter Blackburn Rui\n"
    assert [(first.text[mark.start : mark.end], mark.type) for mark in first.marks] == [
        ("EU", "ORG"), ("German", "MISC"), ("Peter Blackburn", "PER"), ("Rui", "PER"),
    ]  # fmt: skip
    assert (second.text, list_spans(second)) == ("Brussels\n", [(0, 8, "LOC")])


def test_conll_document_of_very_many_tokens_is_refused_and_the_next_is_read() -> None:
    conll = FORMATS[FormatName.CONLL]
    many, allowed = conll.split("-DOCSTART- -X- -X- O\n" + "a O\n" * 400_000 + "-DOCSTART- -X- -X- O\n\nBell O\n")
    with pytest.raises(InvalidInputError, match="more than 400,000 lines: split it"):
        conll.read(many)
    assert conll.read(allowed).text == "Bell\n"


def test_conll_has_four_columns_whose_last_is_the_longest_of_spans_that_overlap() -> None:
    marks = [Mark(start=0, end=10, type="party"), Mark(start=0, end=6, type="company"), Mark(start=7, end=9, type="x")]
    lines = FORMATS[FormatName.CONLL].write(AnnotatedText("Norvex Ltd\nsells", tuple(marks), "7", "a.pdf")).split("\n")
    assert lines == [
        "-DOCSTART- contract-feedback:7 a.pdf O", "",
        "Norvex _ 1:company B-party", "Lt - 1:x I-party", "d %0A _ I-party", "",
        "sells - _ O",
    ]  # fmt: skip


def test_task_that_prodigy_rejects_has_rejected_annotations_and_one_ignored_is_refused() -> None:
    task = {
        "text": "Acme",
        "spans": [{"start": 0, "end": 4, "label": "party", "token_start": 0}],
        "_annotator_id": "ana",
    }
    (document,) = read(FORMATS[FormatName.PRODIGY], json.dumps({**task, "answer": "reject"}))
    assert document.marks == (Mark(start=0, end=4, type="party", reviewer="ana", status=AnnotationStatus.REJECTED),)
    with pytest.raises(InvalidInputError, match="ignored"):
        read(FORMATS[FormatName.PRODIGY], json.dumps({**task, "answer": "ignore"}))


def test_cuad_has_its_types_after_the_title_and_squad_in_the_question() -> None:
    def ask(question_id: str, question: str, start: int) -> dict[str, object]:
        return {"id": question_id, "question": question, "answers": [{"text": "Acme", "answer_start": start}]}

    questions = [ask("A_B__Parties", 'Highlight the parts related to "Parties"', 0), ask("5a", "Who sells?", 0)]
    paragraphs = [{"context": "Acme", "qas": questions}, {"context": "b", "qas": []}]
    content = {"version": "1", "data": [{"title": "A_B", "paragraphs": paragraphs}]}
    first, second = read(FORMATS[FormatName.CUAD], json.dumps(content))
    assert (first.filename, list_spans(first)) == ("A_B", [(0, 4, "Parties"), (0, 4, "Who sells?")])
    assert (second.text, second.marks) == ("b", ())
    questions[0] = ask("1", "party", 1)
    with pytest.raises(InvalidInputError, match="is not the text at 1"):
        read(FORMATS[FormatName.CUAD], json.dumps(content))


def test_cuad_entry_of_very_many_paragraphs_is_not_copied_for_each() -> None:
    paragraphs: list[dict[str, object]] = [{"context": str(number)} for number in range(1_000)]
    entry = {"title": "A" * 10_000, "notes": "B" * 10_000, "paragraphs": paragraphs}
    records = list(FORMATS[FormatName.CUAD].split(json.dumps({"data": [entry]})))
    assert sum(map(len, records)) < 400_000
    assert [FORMATS[FormatName.CUAD].read(record).text for record in records] == [
        each["context"] for each in paragraphs
    ]


def test_doccano_with_relations_is_read(contracts: list[AnnotationData]) -> None:
    entity = {"id": 3, "label": "party", "start_offset": 0, "end_offset": 4}
    row = {"id": 1, "text": "Acme", "entities": [entity], "relations": [{"id": 1, "from_id": 3, "to_id": 3}]}
    (document,) = read(FORMATS[FormatName.DOCCANO], json.dumps(row))
    assert (list_spans(document), document.ignored) == ([(0, 4, "party")], {"relations": 1})
