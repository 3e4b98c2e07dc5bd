r"""How the rows of one source become CSV lines quickly: code written from the rows seen so far.

A plan is a msgspec struct with one field for each field seen, and one function that turns pages
into lines. What a field was so far decides how it is read: text is decoded to `str` on the spot,
which is most of the speed; numbers, lists and objects stay slices of the source (`Raw`), so that
they keep its digits and its text. A row that does not fit (an unknown field, a number where
strings were) makes msgspec raise; the caller then takes its slow path for that row, learns from
it, and asks for a new plan. So a plan is only ever a matter of speed.

For the columns ("id", "pay", "note") of rows with a further field "new", where notes are long,
the function written is

    def lines(rows, out, careful, text, cell, extras, tally):
        nf3 = 0
        try:
            for raw in rows:
                row = decode(raw)
                slices = b"\n".join((row.f1,))
                slices = slices.replace(b'"', b'""').replace(b"\r", b"\n").decode()
                if row.f3 is not None: nf3 += 1
                slices = slices.split("\n")
                if len(slices) != 1: out.append(careful(row, tally)); continue
                v1, = slices
                v0 = row.f0
                if not v0:
                    if v0 is not None: out.append(careful(row, tally)); continue
                    v0 = NOTHING
                probe = f"{v0}"
                if '"' in probe or "\n" in probe or "\r" in probe:
                    out.append(careful(row, tally)); continue
                if "," in probe:
                    if "," in v0: v0 = f'"{v0}"'
                if not "-" <= v1 < ":":
                    v1 = NOTHING if v1 == "null" else cell(v1.replace('""', '"'), tally)
                v2 = row.f2
                qv2 = b""
                if v2 is None: v2 = NONE
                elif not v2: v2 = text(v2, tally).encode()
                else:
                    v2 = v2.encode()
                    if 34 in v2: v2 = v2.replace(b'"', b'""'); qv2 = b'"'
                    elif 44 in v2 or 10 in v2 or 13 in v2: qv2 = b'"'
                line = b"".join((f"{v0},{v1},".encode(), qv2, v2, qv2))
                out.append(line)
        finally:
            if nf3: extras[Nf3] += nf3

Cells of text that needed no quotes so far, but for a comma, are tested together, by one search in
all of them (`probe`); slices are made text together. The few rows with a surprise go to
`careful`, which writes each cell alone.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from exporter.core.checkpoints import Row, RowCounts

Kind = Literal["null", "flag", "number", "text", "wild", "long", "texts", "nest", "loose"]
"""What a field was in all rows so far, nulls apart: never anything; true or false; a number; text
that needs no quotes but for a comma; text that may need any care; long such text; a list of texts,
where cells of lists are joined; anything else; anything else over several lines."""
Learned = dict[str, Kind]
"""Field name -> what it was, in the source's order (msgspec looks for a field first where the
last one ended)."""
TEXTUAL: frozenset[Kind] = frozenset({"text", "wild", "long"})

SUSPECT = frozenset("=+-@ \t\n\r\v\f＝＋－＠")
"""First characters of text that may be a formula: the marks and blanks."""

_MAX_LEARNED = 128
"""Rows with field names beyond this go the slow way: names without end are data, and a new plan
for each would cost more (some milliseconds) than it saves."""
_LONG = 200
"""Characters from which text is worth a test of its own on bytes, which are searched and doubled
faster than characters of two bytes."""

_TYPES: Mapping[Kind, Any] = {
    "null": None,
    "flag": bool | None,
    "text": str | None,
    "wild": str | None,
    "long": str | None,
    "texts": list[str] | None,
}
_NULL = msgspec.Raw(b"null")
_ALONE: Mapping[Kind, Kind] = {"text": "wild", "number": "loose", "nest": "loose"}
"""As what a cell is written that is tested alone."""

Line = Callable[[Any, RowCounts], bytes]
Text = Callable[[str, RowCounts], str]


class Plan(NamedTuple):
    """How to write rows."""

    lines: Callable[
        [Iterator[Row], list[bytes], Line, Text, Text, Counter[str], RowCounts],
        None,
    ]
    """Appends the lines of the rows to a list; stops at a row that does not fit by raising what
    msgspec raises, the rows before it appended."""
    plain: Mapping[str, str]
    """The fields tested together: their names in the struct, and in the source."""


def learn(learned: Learned, fields: Mapping[str, str], *, joined: bool) -> bool:
    """Whether a row taught anything new; `fields` are the texts of its values."""
    before = list(learned.values())
    for name, source in fields.items():
        if name in learned:
            learned[name] = _both(learned[name], _kind(source, joined=joined))
        elif len(learned) < _MAX_LEARNED and _nameable(name):
            learned[name] = _kind(source, joined=joined)
    return before != list(learned.values())


def is_long(value: str) -> bool:
    """Whether text is so long that its field should be learned as such."""
    return len(value) > _LONG


def is_wild(value: str, *, guard: bool) -> bool:
    """Whether text needs more care than quotes for a comma."""
    return (
        not value
        or '"' in value
        or "\n" in value
        or "\r" in value
        or (guard and value[0] in SUSPECT)
    )


def _kind(source: str, *, joined: bool) -> Kind:
    first = source[0]
    if first == '"':
        return "long" if is_long(source) else "text"
    if first in "tf":
        return "flag"
    if source == "null":
        return "null"
    if first == "[" and joined and _is_texts(source):
        return "texts"
    if "\n" in source or "\r" in source:
        return "loose"
    return "nest" if first in "[{NI" else "number"


def _is_texts(source: str) -> bool:
    try:
        msgspec.json.decode(source, type=list[str])
    except (ValueError, RecursionError):
        return False
    return True


def _both(one: Kind, other: Kind) -> Kind:
    if one == other or other == "null":
        return one
    if one == "null":
        return other
    if {one, other} <= TEXTUAL:
        return "long" if "long" in (one, other) else "wild"
    return "loose" if "loose" in (one, other) else "nest"


def _nameable(name: str) -> bool:
    # msgspec takes no such name for a struct's field.
    return name.isprintable() and not {'"', "\\"} & set(name)


@functools.lru_cache(maxsize=64)
def make(
    columns: tuple[str, ...],
    learned: tuple[tuple[str, Kind], ...],
    *,
    guard: bool,
    joined: bool,
) -> Plan:
    """The plan for rows whose fields are all among those learned; any other row is refused."""
    names = {name: f"f{i}" for i, (name, _) in enumerate(learned)}
    row_type = msgspec.defstruct(
        "Row",
        [_field(names[name], kind, column=name in columns) for name, kind in learned],
        rename={field: name for name, field in names.items()},
        forbid_unknown_fields=True,
        gc=False,
    )
    cells = _cells(columns, learned)
    extras = {field: name for name, field in names.items() if name not in columns}
    raws, body = _body(cells, guard=guard, joined=joined)
    namespace = _namespace(columns)
    namespace["decode"] = msgspec.json.Decoder(row_type).decode
    namespace |= {f"N{field}": name for field, name in extras.items()}
    code = [
        "def lines(rows, out, careful, text, cell, extras, tally):",
        *(f" n{field} = 0" for field in extras),
        " try:",
        "  for raw in rows:",
        "   row = decode(raw)",
        *(f"   {line}" for line in raws),
        *(f"   if row.{field} is not None: n{field} += 1" for field in extras),
        *(f"   {line}" for line in body),
        "   out.append(line)",
        " finally:",
        *(f"  if n{field}: extras[N{field}] += n{field}" for field in extras),
        "  pass",
    ]
    # Only numbers are put into the text: names of fields, which come from outside, are not in it.
    exec("\n".join(code), namespace)  # noqa: S102
    kinds = dict(learned)
    plain = {names[name]: name for name in dict.fromkeys(columns) if kinds.get(name) == "text"}
    return Plan(namespace["lines"], plain)


@functools.lru_cache(maxsize=64)
def alone(
    columns: tuple[str, ...],
    learned: tuple[tuple[str, Kind], ...],
    *,
    guard: bool,
    joined: bool,
) -> Callable[[Any, Text, Text, RowCounts], bytes]:
    """What writes the line of one row that a plan has read, each cell tested alone."""
    cells = [(field, _ALONE.get(kind, kind)) for field, kind in _cells(columns, learned)]
    raws, body = _body(cells, guard=guard, joined=joined)
    code = ["def line(row, text, cell, tally):", *raws, *body, "return line"]
    namespace = _namespace(columns)
    exec("\n ".join(code), namespace)  # noqa: S102 - as above
    line: Callable[[Any, Text, Text, RowCounts], bytes] = namespace["line"]
    return line


def _nothing(columns: int) -> str:
    return '""' if columns == 1 else ""


def _namespace(columns: Sequence[str]) -> dict[str, Any]:
    nothing = _nothing(len(columns))
    return {
        "NOTHING": nothing,
        "NONE": nothing.encode(),
        "FLAGS": {True: "true", False: "false", None: nothing},
        "SUSPECT": SUSPECT,
    }


def _cells(columns: Sequence[str], learned: Sequence[tuple[str, Kind]]) -> list[tuple[str, Kind]]:
    """For each column its field in the struct, and the kind of it."""
    found = {name: (f"f{i}", kind) for i, (name, kind) in enumerate(learned)}
    return [found.get(name, ("", "null")) for name in columns]


def _field(field: str, kind: Kind, *, column: bool) -> tuple[str, Any, Any]:
    if not column:
        return field, msgspec.Raw, None
    if kind in _TYPES:
        return field, _TYPES[kind], None
    return field, msgspec.Raw, _NULL


def _body(
    cells: Sequence[tuple[str, Kind]], *, guard: bool, joined: bool
) -> tuple[list[str], list[str]]:
    """Code that makes `line` of a `row`: first all that may refuse the row, then the rest, in
    which nothing is counted into the tally before it is known that the row needs no more care."""
    sliced = [(f"v{c}", f) for c, (f, kind) in enumerate(cells) if kind in ("number", "nest")]
    raws, plains = _slices(sliced)
    single: list[str] = []
    for c, (field, kind) in enumerate(cells):
        v = f"v{c}"
        match kind:
            case "number":
                single += _number(v)
            case "nest":
                single += _nest(v, guard=guard, joined=joined)
            case "loose":
                raws.append(f'{v} = str(row.{field}, "utf-8")')
                single.append(f'{v} = NOTHING if {v} == "null" else cell({v}, tally)')
            case "flag":
                single.append(f"{v} = FLAGS[row.{field}]")
            case "text":
                plains += [
                    f"{v} = row.{field}",
                    f"if not {v}:",
                    f" if {v} is not None: out.append(careful(row, tally)); continue",
                    f" {v} = NOTHING",
                ]
                if guard:
                    plains.append(
                        f"elif {v}[0] in SUSPECT: out.append(careful(row, tally)); continue"
                    )
            case "wild" | "texts":
                single += _wild(v, field, kind, guard=guard)
            case "long":
                single += _long(v, field, guard=guard)
    together = [f"v{c}" for c, (_, kind) in enumerate(cells) if kind == "text"]
    if together:
        plains += [
            "probe = f'" + "".join(f"{{{v}}}" for v in together) + "'",
            """if '"' in probe or "\\n" in probe or "\\r" in probe:""",
            " out.append(careful(row, tally)); continue",
            'if "," in probe:',
            *(f""" if "," in {v}: {v} = f'"{{{v}}}"'""" for v in together),
        ]
    return raws, [*plains, *single, _join(cells, _nothing(len(cells)))]


def _slices(sliced: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Code that makes texts of slices of the source, with quotes doubled: all in one, because
    each step costs more than the bytes that it is about."""
    if not sliced:
        return [], []
    fields = "".join(f"row.{field}, " for _, field in sliced)
    # As bytes, whose quotes are doubled in two thirds of the time of characters of two bytes.
    doubled = """.replace(b'"', b'""').replace(b"\\r", b"\\n").decode()"""
    return [f'slices = b"\\n".join(({fields})){doubled}'], [
        'slices = slices.split("\\n")',
        # A line break within a slice: blanks to be dropped.
        f"if len(slices) != {len(sliced)}: out.append(careful(row, tally)); continue",
        "".join(f"{v}, " for v, _ in sliced) + "= slices",
    ]


def _number(v: str) -> list[str]:
    return [
        f'if not "-" <= {v} < ":":',
        f""" {v} = NOTHING if {v} == "null" else cell({v}.replace('""', '"'), tally)""",
    ]


def _nest(v: str, *, guard: bool, joined: bool) -> list[str]:
    # Without escapes, JSON's text is a CSV cell: in its quotes, or freed of them.
    harmless = f" and {v}[2] not in SUSPECT" if guard else ""
    ours = "{" if joined else "{["
    return [
        f'if {v} == "null": {v} = NOTHING',
        f"""elif {v}[0] == '"' and "\\\\" not in {v}{harmless}:""",
        f""" {v} = {v}[1:-1] if "," in {v} or {v} == '""' '""' else {v}[2:-2]""",
        f"""elif {v}[0] not in "{ours}": {v} = cell({v}.replace('""', '"'), tally)""",
        f"""elif '"' in {v} or "," in {v}: {v} = f'"{{{v}}}"'""",
    ]


def _wild(v: str, field: str, kind: Kind, *, guard: bool) -> list[str]:
    suspect = f"or {v}[0] in SUSPECT " if guard else ""
    return [
        f"{v} = row.{field}",
        f"if {v} is None: {v} = NOTHING",
        "else:",
        *([f' {v} = "; ".join({v})'] if kind == "texts" else []),
        f""" if not {v} {suspect}or '"' in {v} or "\\n" in {v} or "\\r" in {v}:""",
        f"  {v} = text({v}, tally)",
        f""" elif "," in {v}: {v} = f'"{{{v}}}"'""",
    ]


def _long(v: str, field: str, *, guard: bool) -> list[str]:
    suspect = f" or {v}[0] in SUSPECT" if guard else ""
    return [
        f"{v} = row.{field}",
        f'q{v} = b""',
        f"if {v} is None: {v} = NONE",
        f"elif not {v}{suspect}: {v} = text({v}, tally).encode()",
        "else:",
        f" {v} = {v}.encode()",
        # Integers, because `b"," in value` first raises and clears a TypeError: 0.7 us a test.
        f""" if 34 in {v}: {v} = {v}.replace(b'"', b'""'); q{v} = b'"'""",
        f""" elif 44 in {v} or 10 in {v} or 13 in {v}: q{v} = b'"'""",
    ]


def _join(cells: Sequence[tuple[str, Kind]], nothing: str) -> str:
    """Code that joins the cells; those that are bytes already are not encoded again."""
    parts: list[str] = []
    together = ""
    for c, (_, kind) in enumerate(cells):
        together += "," if c else ""
        if kind == "long":
            parts += [f"f'{together}'.encode()"] if together else []
            parts += [f"qv{c}", f"v{c}", f"qv{c}"]  # quoted by the join, which copies anyway
            together = ""
        else:
            together += nothing if kind == "null" else f"{{v{c}}}"
    parts += [f"f'{together}'.encode()"] if together else []
    return f'line = b"".join(({", ".join(parts)},))' if len(parts) > 1 else f"line = {parts[0]}"
