"""CoNLL 2003: a token in each line, its IOB2 tag in the last of four columns, a blank line after each sentence.

The format has neither blanks nor spans that overlap. Files that we write keep both in the columns for part of speech
and chunk, so that other programs read the usual four columns, and we read the same text with the same spans:

    -DOCSTART- contract-feedback:ID FILENAME O

    Norvex _ 1:company B-party
    Ltd - _ I-party
    . %0A _ O

Column 2 has the blanks after the token: `_` is one space, `-` is none. Column 3 has the spans that begin here and
overlap those of column 4: `number of tokens:type`, with `|` between them. Tokens begin and end where a span does, too.
A blank with which a span begins or ends is a token, -BLANK-. Blanks, and separators in a type, are encoded as in URLs.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from urllib.parse import quote, unquote

from pydantic import ValidationError

from intake.formats.annotated_text import AnnotatedText, Mark, describe_mistakes
from intake.formats.file_format import FileFormat
from registry.errors import InvalidInputError

_DOCUMENT, _BLANK, _OURS, _NONE = "-DOCSTART-", "-BLANK-", "contract-feedback:", "_"
_MAX_LINES = 400_000  # of a document; one of a million characters has about 250,000
_BLANKS = {"_": " ", "-": ""}
_TOKEN = re.compile(r"\w+|[^\w\s]|\s+")
_COLUMN = re.compile(r"[ \t]+")
_SEPARATOR = re.compile(r"[\s|%]")


@dataclass(slots=True)
class _Token:
    """A line of the file; `blanks` follow the text or, if that is _BLANK, are the token."""

    text: str
    blanks: str = ""
    overlapping: str = _NONE
    tag: str = "O"
    start: int = 0
    end: int = 0


def _split(content: str) -> Iterator[str]:
    """Yield each document with its line -DOCSTART-; a file without such lines is one document."""
    record: list[str] = []
    for line in content.split("\n"):
        if line.startswith(_DOCUMENT) and record:
            yield "\n".join(record)
            record = []
        if line.strip() or record:
            record.append(line.rstrip("\r"))
    if record:
        yield "\n".join(record)


def _write(document: AnnotatedText) -> str:
    tokens = _tokenise(document)
    _tag(tokens, sorted(document.marks, key=lambda mark: (mark.start, -mark.end, mark.type)))
    filename = quote(document.filename or _NONE, safe="")
    lines = [f"{_DOCUMENT} {_OURS}{document.document_id or ''} {filename} O", ""]
    encoded = {blanks: name for name, blanks in _BLANKS.items()}
    for token, following in pairwise([*tokens, _Token("")]):
        blanks = encoded.get(token.blanks) or quote(token.blanks, safe="")
        lines.append(f"{token.text} {blanks} {token.overlapping} {token.tag}")
        if "\n" in token.blanks and not following.tag.startswith("I-"):
            lines.append("")
    return "\n".join(lines)


def _tokenise(document: AnnotatedText) -> list[_Token]:
    """Return words, single other characters and, where needed, blanks; each span begins and ends with a token."""
    text, starts, ends = document.text, {mark.start for mark in document.marks}, {mark.end for mark in document.marks}
    cuts = {0, len(text), *starts, *ends, *(match.start() for match in _TOKEN.finditer(text))}
    tokens: list[_Token] = []
    for start, end in pairwise(sorted(cuts)):
        piece = text[start:end]
        if not piece.isspace():
            tokens.append(_Token(piece, start=start, end=end))
        elif not tokens or tokens[-1].text == _BLANK or start in starts or end in ends:
            tokens.append(_Token(_BLANK, piece, start=start, end=end))
        else:
            tokens[-1].blanks = piece
    return tokens


def _tag(tokens: Sequence[_Token], marks: Sequence[Mark]) -> None:
    """Write sorted spans into the tokens: the first of those that overlap as tags, the others as `overlapping`."""
    indices = {token.start: index for index, token in enumerate(tokens)}
    tagged_to, overlapping = 0, defaultdict(list)
    for mark in marks:
        first = last = indices[mark.start]
        while last + 1 < len(tokens) and tokens[last + 1].start < mark.end:
            last += 1
        name = _SEPARATOR.sub(lambda match: quote(match[0]), mark.type)
        if mark.start < tagged_to:
            overlapping[first].append(f"{last - first + 1}:{name}")
            continue
        tagged_to = mark.end
        for index in range(first, last + 1):
            tokens[index].tag = f"{'I' if index > first else 'B'}-{name}"
    for index, spans in overlapping.items():
        tokens[index].overlapping = "|".join(spans)


def _read(record: str) -> AnnotatedText:
    if record.count("\n") >= _MAX_LINES:
        raise InvalidInputError(f"The document has more than {_MAX_LINES:,} lines: split it")
    lines = record.split("\n")
    heading = _COLUMN.split(lines[0]) if lines[0].startswith(_DOCUMENT) else []
    try:
        if len(heading) == 4 and heading[1].startswith(_OURS):
            tokens = [_parse_our_line(line) for line in lines[1:] if line]
            document_id, filename = heading[1].removeprefix(_OURS) or None, unquote(heading[2])
            text = _join(tokens)
            marks = [*_read_tags(tokens, unquote), *_read_overlapping(tokens)]
            return AnnotatedText(text, tuple(marks), document_id, None if filename == _NONE else filename)
        tokens = list(_parse_lines(lines[1:] if heading else lines))
        return AnnotatedText(_join(tokens), tuple(_read_tags(tokens)))
    except ValidationError as error:
        raise InvalidInputError(describe_mistakes(error)) from error


def _parse_our_line(line: str) -> _Token:
    columns = line.split(" ")
    if len(columns) != 4:
        raise InvalidInputError(f"The line {line[:100]!r} does not have four columns")
    return _Token(columns[0], _BLANKS.get(columns[1], unquote(columns[1])), columns[2], columns[3])


def _parse_lines(lines: Sequence[str]) -> Iterator[_Token]:
    """Yield the tokens of another program's file: a space follows each, a line feed the last of a sentence."""
    for line, following in pairwise([*lines, ""]):
        columns = _COLUMN.split(line.strip())
        if len(columns) > 1:
            yield _Token(columns[0], " " if following.strip() else "\n", tag=columns[-1])
        elif columns[0]:
            raise InvalidInputError(f"The line {line[:100]!r} has one column: a token and its tag are needed")


def _join(tokens: Sequence[_Token]) -> str:
    """Return the text of the tokens, whose offsets this sets."""
    parts, offset = [], 0
    for token in tokens:
        text = token.blanks if token.text == _BLANK else token.text
        part = text if token.text == _BLANK else text + token.blanks
        token.start, token.end = offset, offset + len(text)
        parts.append(part)
        offset += len(part)
    return "".join(parts)


def _read_tags(tokens: Sequence[_Token], decode: Callable[[str], str] = str) -> list[Mark]:
    """Return the spans of the last column; a tag I- that continues none begins one, as in IOB1."""
    found: list[tuple[int, int, str]] = []
    before = "O"
    for token in tokens:
        prefix, _, name = token.tag.partition("-")
        if token.tag != "O" and (prefix not in {"B", "I"} or not name):
            raise InvalidInputError(f"The tag {token.tag[:100]!r} is not one of IOB2: O, B-type or I-type")
        if prefix == "I" and before.partition("-")[2] == name:
            found[-1] = (found[-1][0], token.end, name)
        elif name:
            found.append((token.start, token.end, name))
        before = token.tag
    return [Mark(start=start, end=end, type=decode(name)) for start, end, name in found]


def _read_overlapping(tokens: Sequence[_Token]) -> Iterator[Mark]:
    for index, token in enumerate(tokens):
        for span in token.overlapping.split("|") if token.overlapping != _NONE else ():
            count, _, name = span.partition(":")
            if not count.isdecimal() or not 0 < int(count) <= len(tokens) - index:
                raise InvalidInputError(f"The span {span[:100]!r} in the third column does not fit the tokens")
            yield Mark(start=token.start, end=tokens[index + int(count) - 1].end, type=unquote(name))


CONLL = FileFormat("text/plain", "conll", _split, _read, _write, separator="\n\n", holds_details=False)
