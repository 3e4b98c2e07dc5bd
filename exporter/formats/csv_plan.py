r"""Generates fast code that turns the rows of one source into CSV lines.

A plan is a msgspec struct with one field for each field seen so far, and one generated function
that turns pages into lines. The kind of a field so far decides how the field is read: text is
decoded to `str` at once, which gives most of the speed; numbers, lists and objects stay slices of
the source (`Raw`), so that their digits and text do not change. For a row that does not fit (an
unknown field, a number instead of a string) msgspec raises; the caller then writes that row by the
slow path, learns from the row, and makes a new plan. A plan therefore affects only the speed.

For the columns ("id", "pay", "note") of rows with another field "new", where notes are long, the
generated function is

    def lines(rows, out, careful, text, cell, extras, counts):
        nf3 = 0
        try:
            for raw in rows:
                row = decode(raw)
                slices = b"\n".join((row.f1,))
                slices = slices.replace(b'"', b'""').replace(b"\r", b"\n").decode()
                if row.f3 is not None: nf3 += 1
                slices = slices.split("\n")
                if len(slices) != 1: out.append(careful(row, counts)); continue
                v1, = slices
                v0 = row.f0
                if not v0:
                    if v0 is not None: out.append(careful(row, counts)); continue
                    v0 = NOTHING
                probe = f"{v0}"
                if '"' in probe or "\n" in probe or "\r" in probe:
                    out.append(careful(row, counts)); continue
                if "," in probe:
                    if "," in v0: v0 = f'"{v0}"'
                if not "-" <= v1 < ":":
                    v1 = NOTHING if v1 == "null" else cell(v1.replace('""', '"'), counts)
                v2 = row.f2
                qv2 = b""
                if v2 is None: v2 = NONE
                elif not v2: v2 = text(v2, counts).encode()
                else:
                    v2 = v2.encode()
                    if 34 in v2: v2 = v2.replace(b'"', b'""'); qv2 = b'"'
                    elif 44 in v2 or 10 in v2 or 13 in v2: qv2 = b'"'
                line = b"".join((f"{v0},{v1},".encode(), qv2, v2, qv2))
                out.append(line)
        finally:
            if nf3: extras[Nf3] += nf3

Cells of text that so far needed quotes for a comma only are tested together, by one search in all
of them (`probe`); slices are decoded together. The few rows that need more care go to `careful`,
which tests each cell on its own.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from exporter.core.checkpoints import Row, RowCounts

Kind = Literal["null", "flag", "number", "text", "wild", "long", "texts", "nest", "loose"]
"""The kind of a field in all rows so far, apart from nulls.

- null: always null;
- flag: true or false;
- number: a number;
- text: text that needs quotes for a comma only;
- wild: text that may need quotes, a guard or an escape for any reason;
- long: the same as wild, for long text;
- texts: a list of texts, if the cells of lists are joined;
- nest: any other value on one line;
- loose: any other value, also on several lines.
"""
Learned = dict[str, Kind]
"""Kind of each field by name, in the source's order.

The order matters for speed: msgspec looks for the next field behind the last one first.
"""
TEXTUAL: frozenset[Kind] = frozenset({"text", "wild", "long"})
"""Kinds of fields that hold text."""

SUSPECT = frozenset("=+-@ \t\n\r\v\f＝＋－＠")
"""First characters of text that may be a formula: formula signs and whitespace."""

_RUN = r'[; \t\n\r\v\f"][; \t\n\r\v\f"=+\-@＝＋－＠]'
_SPLITS = [
    # A pattern that begins with one character is searched much faster than with one of several.
    *((one, re.compile(rf"{one}(?:[=+\-@＝＋－＠]|{_RUN})")) for one in ";\t"),
    *((one, re.compile(rf"{one}(?:[=@＝＋－＠]|[+\-](?![ \xa0])|{_RUN})")) for one in "\n\r"),
]

_MAX_LEARNED = 128
"""Maximum number of fields in a plan.

Rows with further field names take the slow path: an unbounded number of names is data, and a new
plan for each name would cost more (some milliseconds) than it saves.
"""
_LONG_TEXT_CHARS = 200
"""Length above which text is tested as bytes and on its own.

Python searches bytes, and doubles quotes in bytes, faster than in text of two-byte characters.
"""

_TYPES: Mapping[Kind, Any] = {
    "null": None,
    "flag": bool | None,
    "text": str | None,
    "wild": str | None,
    "long": str | None,
    "texts": list[str] | None,
}
_NULL = msgspec.Raw(b"null")
_CAREFUL_KINDS: Mapping[Kind, Kind] = {"text": "wild", "number": "loose", "nest": "loose"}
"""For a kind of field, the kind as which `make_careful` writes it.

Cells of the other kinds are written as in the plan.
"""

Line = Callable[[Any, RowCounts], bytes]
Text = Callable[[str, RowCounts], str]


class Plan(NamedTuple):
    """Generated functions that turn rows, whose fields follow one pattern, into CSV lines."""

    lines: Callable[
        [Iterator[Row], list[bytes], Line, Text, Text, Counter[str], RowCounts],
        None,
    ]
    """Appends the lines of the rows to a list.

    Raises msgspec's error at the first row that does not fit the plan; the lines of the rows before
    that row have been appended by then.
    """
    plain: Mapping[str, str]
    """Fields that are tested together: the source's name of each, by its name in the struct."""


def learn(learned: Learned, fields: Mapping[str, str], *, joined: bool) -> bool:
    """Adds the kinds of a row's fields to `learned`; returns True if `learned` has changed.

    `fields` has the JSON text of each value by field name.
    """
    before = list(learned.values())
    for name, source in fields.items():
        if name in learned:
            learned[name] = _merged(learned[name], _kind(source, joined=joined))
        elif len(learned) < _MAX_LEARNED and _nameable(name):
            learned[name] = _kind(source, joined=joined)
    return before != list(learned.values())


def is_long(value: str) -> bool:
    """True if a field with this text must have the kind `long`."""
    return len(value) > _LONG_TEXT_CHARS


def is_wild(value: str, *, guard: bool) -> bool:
    """True if the text needs more than quotes for a comma."""
    return (
        not value
        or '"' in value
        or "\n" in value
        or "\r" in value
        or (guard and (value[0] in SUSPECT or ";" in value or "\t" in value))
    )


def splits(value: str) -> bool:
    """True for every text with a part that needs a guard, and some others (see `csv.Csv`)."""
    return any(one in value and found.search(value) for one, found in _SPLITS)


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


def _merged(one: Kind, other: Kind) -> Kind:
    if one == other or other == "null":
        return one
    if one == "null":
        return other
    if {one, other} <= TEXTUAL:
        return "long" if "long" in (one, other) else "wild"
    return "loose" if "loose" in (one, other) else "nest"


def _nameable(name: str) -> bool:
    # msgspec refuses other names of a struct's fields.
    return name.isprintable() and not {'"', "\\"} & set(name)


@functools.lru_cache(maxsize=64)
def make(
    columns: tuple[str, ...],
    learned: tuple[tuple[str, Kind], ...],
    *,
    guard: bool,
    joined: bool,
) -> Plan:
    """Returns the plan for rows that have only the learned fields; it refuses other rows."""
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
        "def lines(rows, out, careful, text, cell, extras, counts):",
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
    # Field names come from outside, so the code has only their numbers and never the names.
    exec("\n".join(code), namespace)  # noqa: S102
    kinds = dict(learned)
    plain = {names[name]: name for name in dict.fromkeys(columns) if kinds.get(name) == "text"}
    return Plan(namespace["lines"], plain)


@functools.lru_cache(maxsize=64)
def make_careful(
    columns: tuple[str, ...],
    learned: tuple[tuple[str, Kind], ...],
    *,
    guard: bool,
    joined: bool,
) -> Callable[[Any, Text, Text, RowCounts], bytes]:
    """Returns a function that writes the line of one decoded row, testing each cell separately."""
    cells = [(field, _CAREFUL_KINDS.get(kind, kind)) for field, kind in _cells(columns, learned)]
    raws, body = _body(cells, guard=guard, joined=joined)
    code = ["def line(row, text, cell, counts):", *raws, *body, "return line"]
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
        "splits": splits,
    }


def _cells(columns: Sequence[str], learned: Sequence[tuple[str, Kind]]) -> list[tuple[str, Kind]]:
    """Returns, for each column, the name of its field in the struct and the kind of the field."""
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
    """Returns the code that makes `line` from `row`, in two parts.

    The first part is all code that may refuse the row. The second part adds to `counts` only after
    it is known that the row does not need `careful`.
    """
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
                single.append(f'{v} = NOTHING if {v} == "null" else cell({v}, counts)')
            case "flag":
                single.append(f"{v} = FLAGS[row.{field}]")
            case "text":
                plains += [
                    f"{v} = row.{field}",
                    f"if not {v}:",
                    f" if {v} is not None: out.append(careful(row, counts)); continue",
                    f" {v} = NOTHING",
                ]
                if guard:
                    plains.append(
                        f"elif {v}[0] in SUSPECT: out.append(careful(row, counts)); continue"
                    )
            case "wild" | "texts":
                single += _wild(v, field, kind, guard=guard)
            case "long":
                single += _long(v, field, guard=guard)
    together = [f"v{c}" for c, (_, kind) in enumerate(cells) if kind == "text"]
    if together:
        plains += [
            "probe = f'" + "".join(f"{{{v}}}" for v in together) + "'",
            """if '"' in probe or "\\n" in probe or "\\r" in probe%s:"""
            % (""" or ";" in probe or "\\t" in probe""" if guard else ""),
            " out.append(careful(row, counts)); continue",
            'if "," in probe:',
            *(f""" if "," in {v}: {v} = f'"{{{v}}}"'""" for v in together),
        ]
    return raws, [*plains, *single, _join(cells, _nothing(len(cells)))]


def _slices(sliced: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Returns generated code that decodes the JSON texts of some fields, with doubled quotes.

    The code joins these texts and decodes them in one step, because a step costs more than the
    bytes that it handles.
    """
    if not sliced:
        return [], []
    fields = "".join(f"row.{field}, " for _, field in sliced)
    # Doubling the quotes takes two thirds of the time in bytes, compared with two-byte characters.
    doubled = """.replace(b'"', b'""').replace(b"\\r", b"\\n").decode()"""
    return [f'slices = b"\\n".join(({fields})){doubled}'], [
        'slices = slices.split("\\n")',
        # A slice with a line break has whitespace that must be dropped.
        f"if len(slices) != {len(sliced)}: out.append(careful(row, counts)); continue",
        "".join(f"{v}, " for v, _ in sliced) + "= slices",
    ]


def _number(v: str) -> list[str]:
    return [
        f'if not "-" <= {v} < ":":',
        f""" {v} = NOTHING if {v} == "null" else cell({v}.replace('""', '"'), counts)""",
    ]


def _nest(v: str, *, guard: bool, joined: bool) -> list[str]:
    # Without escapes, the JSON text of a string is its CSV cell, with or without the quotes.
    harmless = f" and {v}[2] not in SUSPECT" if guard else ""
    split = f"""elif ";" in {v} or "\\t" in {v}: {v} = cell({v}.replace('""', '"'), counts)"""
    ours = "{" if joined else "{["
    return [
        f'if {v} == "null": {v} = NOTHING',
        *([split] if guard else []),
        f"""elif {v}[0] == '"' and "\\\\" not in {v}{harmless}:""",
        f""" {v} = {v}[1:-1] if "," in {v} or {v} == '""' '""' else {v}[2:-2]""",
        f"""elif {v}[0] not in "{ours}": {v} = cell({v}.replace('""', '"'), counts)""",
        f"""elif '"' in {v} or "," in {v}: {v} = f'"{{{v}}}"'""",
    ]


def _wild(v: str, field: str, kind: Kind, *, guard: bool) -> list[str]:
    suspect = f"""or {v}[0] in SUSPECT or ";" in {v} or "\\t" in {v} """ if guard else ""
    return [
        f"{v} = row.{field}",
        f"if {v} is None: {v} = NOTHING",
        "else:",
        *([f' {v} = "; ".join({v})'] if kind == "texts" else []),
        f""" if not {v} {suspect}or '"' in {v} or "\\n" in {v} or "\\r" in {v}:""",
        f"  {v} = text({v}, counts)",
        f""" elif "," in {v}: {v} = f'"{{{v}}}"'""",
    ]


def _long(v: str, field: str, *, guard: bool) -> list[str]:
    suspect = f" or {v}[0] in SUSPECT or splits({v})" if guard else ""
    return [
        f"{v} = row.{field}",
        f'q{v} = b""',
        f"if {v} is None: {v} = NONE",
        f"elif not {v}{suspect}: {v} = text({v}, counts).encode()",
        "else:",
        f" {v} = {v}.encode()",
        # Integers, because `b"," in value` raises and clears a TypeError inside: 0.7 us per test.
        f""" if 34 in {v}: {v} = {v}.replace(b'"', b'""'); q{v} = b'"'""",
        f""" elif 44 in {v} or 10 in {v} or 13 in {v}: q{v} = b'"'""",
    ]


def _join(cells: Sequence[tuple[str, Kind]], nothing: str) -> str:
    """Returns generated code that joins the cells to a line; cells made as bytes stay bytes."""
    parts: list[str] = []
    together = ""
    for c, (_, kind) in enumerate(cells):
        together += "," if c else ""
        if kind == "long":
            parts += [f"f'{together}'.encode()"] if together else []
            parts += [f"qv{c}", f"v{c}", f"qv{c}"]  # the join adds the quotes: it copies anyway
            together = ""
        else:
            together += nothing if kind == "null" else f"{{v{c}}}"
    parts += [f"f'{together}'.encode()"] if together else []
    return f'line = b"".join(({", ".join(parts)},))' if len(parts) > 1 else f"line = {parts[0]}"
