"""Recipients as people paste and keep them: lists of all kinds, and CSV. Pure.

What is no address is kept as it is: the API's own check says what is wrong with it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipient:
    """An address and the name beside it, as they were written; written again as ``Ana <a@b.c>``."""

    email: str
    name: str | None = None

    def __str__(self) -> str:
        if self.name is None:
            # Bare, only what no separator is in is read back as it was.
            plain = re.fullmatch(r"[^\s,;<>\"']+", self.email)
            return self.email if plain else f"<{self.email}>"
        name = self.name
        if re.search(r"[\",;<>@\\']", name):
            name = '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'
        return f"{name} <{self.email}>"


def parse(text: str) -> list[Recipient]:
    """The recipients in a pasted text, each address once, in its order.

    They are separated by lines, semicolons and commas; one is an address, ``Ana <ana@example.org>``,
    ``"Roe, Ana" <…>``, ``Roe, Ana <…>`` as Outlook has it, ``Ana ana@example.org``, or cells with tabs
    between them.
    """
    sections = (section for line in text.splitlines() for section in _split(line, ";"))
    return _distinct(each for section in sections for each in _read_section(section))


_QUOTED = r'"(?:[^"\\]|\\.)*"'


def _split(text: str, separator: str) -> list[str]:
    """At each separator that is not inside quotes or angle brackets."""
    parts = re.findall(rf"(?:{_QUOTED}|<[^<>]*>|[^{separator}])+", text)
    return [part for part in parts if part.strip()]


def _read_section(section: str) -> Iterator[Recipient]:
    before: list[str] = []
    for part in _split(section, ","):
        if "<" not in part and "@" not in part and "\t" not in part:
            before.append(part.strip())
        elif "<" in part:
            yield from _read_part(", ".join([*before, part.strip()]))
            before = []
        else:
            yield from map(Recipient, before)
            yield from _read_part(part)
            before = []
    yield from map(Recipient, before)


def _read_part(part: str) -> Iterator[Recipient]:
    if found := re.fullmatch(rf"\s*({_QUOTED}\s*|[^<]*)<([^<>]*)>\s*", part):
        address, name = _address(found[2]), _name(found[1])
        if re.search(r"\S@\S", re.sub(_QUOTED, "", found[1])) and _address(name or "") != address:
            # Two people without a comma between them, or one: nobody is to be left out unasked.
            yield _unread(part)
        else:
            yield Recipient(address, name)
        return
    tabs = [cell.strip() for cell in part.split("\t") if cell.strip()]
    words = tabs if len(tabs) > 1 else part.split()
    with_at = [word for word in words if "@" in word]
    if len(with_at) == 1:
        name = " ".join(word for word in words if "@" not in word)
        yield Recipient(_address(with_at[0]), _name(name))
    elif len(with_at) == len(words):
        yield from (Recipient(_address(word)) for word in words)
    else:
        yield _unread(part)


def _unread(part: str) -> Recipient:
    """What is no address, in a form that is read again as it is written."""
    return Recipient(" ".join(re.sub("[<>]", " ", part).split()))


def _address(text: str) -> str:
    text = text.strip()
    if len(text) > 2 and text[0] == text[-1] == "'":
        text = text[1:-1]
    return text.removeprefix("mailto:")


def _name(text: str) -> str | None:
    text = text.strip()
    if re.fullmatch(_QUOTED, text):
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    elif len(text) > 2 and text[0] == text[-1] == "'":
        text = text[1:-1]
    return text.strip() or None


def _distinct(recipients: Iterable[Recipient]) -> list[Recipient]:
    """Each address once: that somebody is in two lists is no wish to write to them twice."""
    found: dict[str, Recipient] = {}
    for recipient in recipients:
        found.setdefault(recipient.email.casefold(), recipient)
    return list(found.values())


# Files

_EMAIL_COLUMN = re.compile(r"e-?mail|mail|address|recipient|correo", re.IGNORECASE)
_NAME_COLUMN = re.compile(r"name|nombre", re.IGNORECASE)


class BadFile(Exception):
    """A file that cannot be read as a list of recipients; says why, and where."""


_NO_COLUMN = "This file has no column of addresses. Take a CSV file with a column email, and name if you like."


def from_csv(data: bytes) -> list[Recipient]:
    """The recipients in a CSV file, each address once, with names where it has them.

    The delimiter is a comma, a semicolon or a tab. A first line without an address names the columns,
    else the addresses are where the first line has one and the names in the column beside. Raises
    `BadFile`, also where one row has no address: nothing disappears without a word.
    """
    rows = _rows(_decoded(data))
    if not rows:
        raise BadFile(_NO_COLUMN)
    _, first = rows[0]
    header, body = ([], rows) if any("@" in cell for cell in first) else (first, rows[1:])
    email, names = _columns(header, [row for _, row in body])
    if not body:
        raise BadFile("This file has a first line with the names of columns, and nobody below it.")

    def read(number: int, row: Sequence[str]) -> Recipient:
        cells = {index: cell for index, cell in enumerate(row) if cell}
        if email not in cells:
            raise BadFile(f"Line {number} has no address in the column of addresses.")
        name = " ".join(cells[index] for index in names if index in cells)
        return Recipient(cells[email], name or None)

    return _distinct(read(number, row) for number, row in body)


def _rows(text: str) -> list[tuple[int, list[str]]]:
    """Those that are not empty, with the number of the line in which each begins."""
    first = text.partition("\n")[0]
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True
    )
    rows, begins = [], 1
    try:
        for row in reader:
            if any(cells := [" ".join(cell.split()) for cell in row]):
                rows.append((begins, cells))
            begins = reader.line_num + 1
    except csv.Error as error:
        raise BadFile(
            f"This is no CSV from line {begins} on: {error}. Is a quote not closed?"
        ) from None
    return rows


def _columns(header: Sequence[str], body: Sequence[Sequence[str]]) -> tuple[int, list[int]]:
    """Which column has the addresses, and which have the names."""
    with_at = [index for row in body[:1] for index, cell in enumerate(row) if "@" in cell]
    named = [index for index, cell in enumerate(header) if _EMAIL_COLUMN.search(cell)]
    if not (found := named or with_at):
        raise BadFile(_NO_COLUMN)
    email = found[0]
    if header:
        names = [index for index, cell in enumerate(header) if _NAME_COLUMN.search(cell)]
        return email, [index for index in names if index != email]
    beside = [index for index in (email + 1, email - 1) if 0 <= index < len(body[0])]
    return email, beside[:1]


def _decoded(data: bytes) -> str:
    """Files are in UTF-8 mostly, in UTF-16 where they begin so, and else as Windows writes them."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")
