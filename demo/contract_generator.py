"""Contracts that never were, as PDFs with known entities: the demo's and the tests' material."""

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


_REPEATED = {"first", "second", "date", "amount", "duration", "number", "law", "subject"}


@dataclass(frozen=True)
class GeneratedContract:
    """A contract: `text` as written, its `spans` there, and the PDF made of it."""

    filename: str
    text: str
    spans: tuple[Span, ...]
    pdf: bytes


def generate_contract(seed: int) -> GeneratedContract:
    """Return the contract of this seed: always the same one."""
    chooser = random.Random(seed)  # noqa: S311
    wording = WORDINGS[seed % len(WORDINGS)]
    paragraphs = [_mark(paragraph) for paragraph in _write(wording, chooser)]
    text, spans = "", []
    for plain, marks in paragraphs:
        spans += [Span(len(text) + mark.start, len(text) + mark.end, mark.type) for mark in marks]
        text += plain + "\n"
    pdf = _draw([plain for plain, _ in paragraphs], chooser)
    return GeneratedContract(f"contract-{seed:04}-{wording.language}.pdf", text, tuple(spans), pdf)


def _write(wording: Wording, chooser: random.Random) -> list[str]:
    clauses = chooser.sample(wording.clauses, len(wording.clauses))
    numbering = chooser.choice(("{}. ", "{}) ", "§ {} ", ""))
    paragraphs = [f"[document_name|{chooser.choice(wording.titles)}]", chooser.choice(wording.preambles)]
    for number, (heading, sentences) in enumerate(clauses, 1):
        paragraphs += [numbering.format(number) + heading, chooser.choice(sentences)]
    paragraphs.append(chooser.choice(("{city}, {other_date}", "{person} – {other_date}", "{city}")))

    fields: dict[str, str] = {}

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name in _REPEATED and name in fields:
            return fields[name]
        fields[name] = _make(name, wording.language, chooser)
        return fields[name]

    return [re.sub(r"\{(\w+)\}", fill, paragraph) for paragraph in paragraphs]


def _make(name: str, language: str, chooser: random.Random) -> str:
    kind = name.removeprefix("other_")
    if kind in {"first", "second", "company"}:
        return _make_company(language, chooser)
    if kind.endswith("_capital"):
        made = _make(kind.removesuffix("_capital"), language, chooser)
        return made[0].upper() + made[1:]
    makers: dict[str, Callable[[], str]] = {
        "amount": lambda: _make_amount(language, chooser),
        "date": lambda: _make_date(language, chooser),
        "duration": lambda: _make_duration(language, chooser),
        "number": lambda: f"{chooser.randint(2019, 2026)}/{chooser.randint(1, 400)}",
        "person": lambda: chooser.choice(_PEOPLE),
        "city": lambda: chooser.choice(_CITIES[language]),
        "law": lambda: chooser.choice(_LAWS[language]),
        "subject": lambda: chooser.choice(_SUBJECTS[language]),
    }
    return makers[kind]()


def _make_company(language: str, chooser: random.Random) -> str:
    name = "".join(chooser.choices(_SYLLABLES, k=chooser.randint(1, 2))).capitalize() + chooser.choice(_ENDINGS)
    business = chooser.choice(_BUSINESSES[language])
    form = chooser.choice(_FORMS[language])
    return (
        f"{name} {business}, {form}"
        if business and chooser.random() < 0.5
        else f"{name} {business} {form}".replace("  ", " ")
    )


def _make_amount(language: str, chooser: random.Random) -> str:
    amount = f"{chooser.randint(3, 900) * 250:,}.{chooser.choice(('00', '00', '50'))}"
    if language == "en":
        return chooser.choice((f"EUR {amount}", f"${amount}", f"£{amount}", f"{amount[:-3]} US dollars"))
    amount = amount.translate(str.maketrans(",.", chooser.choice((".,", " ,"))))
    return chooser.choice((f"{amount} €", f"R$ {amount}", f"EUR {amount}", f"{amount[:-3]} euros"))


def _make_date(language: str, chooser: random.Random) -> str:
    day = date(2019, 1, 1) + timedelta(days=chooser.randrange(2800))
    month = chooser.choice(_MONTHS[language])
    if language == "en":
        return chooser.choice((f"{day.day} {month} {day.year}", f"{month} {day.day}, {day.year}", day.isoformat()))
    return chooser.choice((f"{day.day} de {month} de {day.year}", f"{day:%d/%m/%Y}", f"{day:%d-%m-%Y}"))


def _make_duration(language: str, chooser: random.Random) -> str:
    count = chooser.choice(list(_NUMBERS[language]))
    unit = chooser.choice(("years", "months", "weeks") if language == "en" else ("anos", "meses", "dias"))
    return chooser.choice(
        (f"{count} {unit}", f"{_NUMBERS[language][count]} {unit}", f"{_NUMBERS[language][count]} ({count}) {unit}")
    )


def _mark(paragraph: str) -> tuple[str, list[Span]]:
    """Return the paragraph without its marks, and the spans they mark."""
    plain, spans, last = "", [], 0
    for match in _MARKED.finditer(paragraph):
        plain += paragraph[last : match.start()]
        spans.append(Span(len(plain), len(plain) + len(match[2]), match[1]))
        plain += match[2]
        last = match.end()
    return plain + paragraph[last:], spans


def _draw(paragraphs: list[str], chooser: random.Random) -> bytes:
    font = chooser.choice(("Helvetica", "Times-Roman", "Courier"))
    size = chooser.choice((9, 10, 11, 12))
    alignment = chooser.choice((TA_LEFT, TA_JUSTIFY))
    margin = chooser.choice((18, 25, 35)) * mm
    body = ParagraphStyle(
        "body", fontName=font, fontSize=size, leading=1.4 * size, alignment=alignment, spaceAfter=size
    )
    title = ParagraphStyle("title", body, fontSize=size + 5, leading=1.4 * (size + 5), alignment=TA_CENTER)
    in_table = chooser.random() < 0.3
    story = [Paragraph(escape(paragraphs[0]), title), Spacer(1, chooser.choice((4, 12)) * mm)]
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
    page = chooser.choice((A4, LETTER))
    SimpleDocTemplate(buffer, pagesize=page, leftMargin=margin, rightMargin=margin, invariant=True).build(story)
    return buffer.getvalue()
