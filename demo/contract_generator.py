"""Synthetic contracts as PDFs with known entities, for the demo, the benchmarks and the tests."""

import io
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from xml.sax.saxutils import escape

from reportlab.lib.enums import TA_CENTER, TA_JUSTIFY, TA_LEFT
from reportlab.lib.pagesizes import A4, LETTER
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer, Table

from demo.wording import WORDINGS, Wording
from embeddinggemma_feasibility.annotation_data import Span

_MARKED = re.compile(r"\[(\w+)\|([^\]]+)\]")
_SYLLABLES = (
    "al",
    "bra",
    "cor",
    "den",
    "el",
    "fan",
    "gor",
    "lis",
    "mar",
    "nor",
    "or",
    "pra",
    "quin",
    "ro",
    "ser",
    "tav",
)
_ENDINGS = ("dis", "ex", "gal", "ia", "lux", "mar", "on", "tec", "um", "via")
_BUSINESSES = {
    "en": ("Systems", "Logistics", "Partners", "Data", "Works", "Consulting", "Holdings", "", ""),
    "pt": ("Sistemas", "Logística", "Consultores", "Dados", "Engenharia", "Serviços", "Participações", "", ""),
}
_FORMS = {
    "en": ("Ltd", "Limited", "Inc.", "LLC", "plc", "GmbH"),
    "pt": ("Lda.", "S.A.", "Ltda.", "Unipessoal, Lda.", "SGPS"),
}
_PEOPLE = ("Ana Reis", "Rui Prado", "Marta Vale", "João Serra", "Helen Marsh", "Tom Birch", "Inês Couto", "Paul Stone")
_CITIES = {"en": ("Leeds", "Dublin", "Boston", "Bristol"), "pt": ("Braga", "Évora", "Recife", "Coimbra")}
_LAWS = {
    "en": ("the laws of England and Wales", "the law of Ireland", "the laws of the State of Delaware", "Swiss law"),
    "pt": ("lei portuguesa", "lei brasileira", "legislação da República de Angola", "lei espanhola"),
}
_SUBJECTS = {
    "en": ("a payroll interface", "cabling of two floors", "the supplier portal", "a data migration", "fleet reports"),
    "pt": ("uma interface salarial", "a cablagem de dois pisos", "o portal de fornecedores", "a migração de dados"),
}
_MONTHS = {
    "en": ("January", "March", "April", "June", "July", "September", "October", "December"),
    "pt": ("janeiro", "março", "abril", "junho", "julho", "setembro", "outubro", "dezembro"),
}
_NUMBERS = {"en": {2: "two", 3: "three", 4: "four", 5: "five"}, "pt": {2: "dois", 3: "três", 4: "quatro", 5: "cinco"}}
# Fields that have one value throughout a contract; the others are drawn anew at each occurrence.
_REPEATED = {"first", "second", "date", "amount", "duration", "number", "law", "subject"}


@dataclass(frozen=True)
class GeneratedContract:
    """A contract: its text as written, the entities' spans in it, and its PDF."""

    filename: str
    text: str
    spans: tuple[Span, ...]
    pdf: bytes


def generate_contract(seed: int) -> GeneratedContract:
    """Return a contract that depends only on the seed."""
    rng = random.Random(seed)  # noqa: S311
    wording = WORDINGS[seed % len(WORDINGS)]
    paragraphs = [_mark(paragraph) for paragraph in _write(wording, rng)]
    text, spans = "", []
    for plain, marks in paragraphs:
        spans += [Span(len(text) + mark.start, len(text) + mark.end, mark.type) for mark in marks]
        text += plain + "\n"
    pdf = _draw([plain for plain, _ in paragraphs], rng)
    return GeneratedContract(f"contract-{seed:04}-{wording.language}.pdf", text, tuple(spans), pdf)


def _write(wording: Wording, rng: random.Random) -> list[str]:
    clauses = rng.sample(wording.clauses, len(wording.clauses))
    numbering = rng.choice(("{}. ", "{}) ", "§ {} ", ""))
    paragraphs = [f"[document_name|{rng.choice(wording.titles)}]", rng.choice(wording.preambles)]
    for number, (heading, sentences) in enumerate(clauses, 1):
        paragraphs += [numbering.format(number) + heading, rng.choice(sentences)]
    paragraphs.append(rng.choice(("{city}, {other_date}", "{person} – {other_date}", "{city}")))

    fields: dict[str, str] = {}

    def fill_in(match: re.Match[str]) -> str:
        name = match[1]
        if name in _REPEATED and name in fields:
            return fields[name]
        fields[name] = _generate_value(name, wording.language, rng)
        return fields[name]

    return [re.sub(r"\{(\w+)\}", fill_in, paragraph) for paragraph in paragraphs]


def _generate_value(name: str, language: str, rng: random.Random) -> str:
    kind = name.removeprefix("other_")
    if kind in {"first", "second", "company"}:
        return _generate_company(language, rng)
    if kind.endswith("_capital"):
        value = _generate_value(kind.removesuffix("_capital"), language, rng)
        return value[0].upper() + value[1:]
    generators: dict[str, Callable[[], str]] = {
        "amount": lambda: _generate_amount(language, rng),
        "date": lambda: _generate_date(language, rng),
        "duration": lambda: _generate_duration(language, rng),
        "number": lambda: f"{rng.randint(2019, 2026)}/{rng.randint(1, 400)}",
        "person": lambda: rng.choice(_PEOPLE),
        "city": lambda: rng.choice(_CITIES[language]),
        "law": lambda: rng.choice(_LAWS[language]),
        "subject": lambda: rng.choice(_SUBJECTS[language]),
    }
    return generators[kind]()


def _generate_company(language: str, rng: random.Random) -> str:
    name = "".join(rng.choices(_SYLLABLES, k=rng.randint(1, 2))).capitalize() + rng.choice(_ENDINGS)
    business = rng.choice(_BUSINESSES[language])
    form = rng.choice(_FORMS[language])
    return (
        f"{name} {business}, {form}"
        if business and rng.random() < 0.5
        else f"{name} {business} {form}".replace("  ", " ")
    )


def _generate_amount(language: str, rng: random.Random) -> str:
    amount = f"{rng.randint(3, 900) * 250:,}.{rng.choice(('00', '00', '50'))}"
    if language == "en":
        return rng.choice((f"EUR {amount}", f"${amount}", f"£{amount}", f"{amount[:-3]} US dollars"))
    amount = amount.translate(str.maketrans(",.", rng.choice((".,", " ,"))))
    return rng.choice((f"{amount} €", f"R$ {amount}", f"EUR {amount}", f"{amount[:-3]} euros"))


def _generate_date(language: str, rng: random.Random) -> str:
    day = date(2019, 1, 1) + timedelta(days=rng.randrange(2800))
    month = rng.choice(_MONTHS[language])
    if language == "en":
        return rng.choice((f"{day.day} {month} {day.year}", f"{month} {day.day}, {day.year}", day.isoformat()))
    return rng.choice((f"{day.day} de {month} de {day.year}", f"{day:%d/%m/%Y}", f"{day:%d-%m-%Y}"))


def _generate_duration(language: str, rng: random.Random) -> str:
    count = rng.choice(list(_NUMBERS[language]))
    unit = rng.choice(("years", "months", "weeks") if language == "en" else ("anos", "meses", "dias"))
    return rng.choice(
        (f"{count} {unit}", f"{_NUMBERS[language][count]} {unit}", f"{_NUMBERS[language][count]} ({count}) {unit}")
    )


def _mark(paragraph: str) -> tuple[str, list[Span]]:
    """Return a paragraph without its `[type|value]` marks, and the spans of the values."""
    plain, spans, last = "", [], 0
    for match in _MARKED.finditer(paragraph):
        plain += paragraph[last : match.start()]
        spans.append(Span(len(plain), len(plain) + len(match[2]), match[1]))
        plain += match[2]
        last = match.end()
    return plain + paragraph[last:], spans


def _draw(paragraphs: list[str], rng: random.Random) -> bytes:
    font = rng.choice(("Helvetica", "Times-Roman", "Courier"))
    size = rng.choice((9, 10, 11, 12))
    alignment = rng.choice((TA_LEFT, TA_JUSTIFY))
    margin = rng.choice((18, 25, 35)) * mm
    body = ParagraphStyle(
        "body", fontName=font, fontSize=size, leading=1.4 * size, alignment=alignment, spaceAfter=size
    )
    title = ParagraphStyle("title", body, fontSize=size + 5, leading=1.4 * (size + 5), alignment=TA_CENTER)
    in_table = rng.random() < 0.3
    story = [Paragraph(escape(paragraphs[0]), title), Spacer(1, rng.choice((4, 12)) * mm)]
    story.append(Paragraph(escape(paragraphs[1]), body))
    clauses, ending = paragraphs[2:-1], paragraphs[-1]
    rows = [
        [Paragraph(escape(text), body) for text in clauses[index : index + 2]] for index in range(0, len(clauses), 2)
    ]
    if in_table:
        story.append(Table(rows, colWidths=("30%", "70%"), style=[("VALIGN", (0, 0), (-1, -1), "TOP")]))
    else:
        story += [cell for row in rows for cell in row]
    story.append(Paragraph(escape(ending), body))
    buffer = io.BytesIO()
    page = rng.choice((A4, LETTER))
    SimpleDocTemplate(buffer, pagesize=page, leftMargin=margin, rightMargin=margin, invariant=True).build(story)
    return buffer.getvalue()
