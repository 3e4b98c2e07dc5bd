"""How the rows of one source become CSV cells quickly: code written from the rows seen so far.

A plan is a msgspec struct with one field for each field seen, and one function that turns it
into a line. A field that was only ever a string or null is decoded to `str` on the spot, which
is most of the speed; any other stays a slice of the source (`Raw`), so that numbers keep their
digits and lists their text. A row that does not fit (an unknown field, a number where strings
were) makes msgspec raise; the caller then takes its slow path for that row, learns from it, and
asks for a new plan. So a plan is only ever a matter of speed.

For the columns ("id", "pay") of rows with a further field "new", the function written is

    def line(row, text, cell, nothing, extras, tally):
        v0 = row.f0
        if v0 is None:
            v0 = nothing
        else:
            v0 = v0.encode()
            if not v0 or 44 in v0 or 34 in v0 or 10 in v0 or 13 in v0:
                v0 = text(v0, tally)
        v1 = row.f1
        if v1 is None:
            v1 = nothing
        else:
            v1 = bytes(v1)
            if v1[0] in ODD:
                v1 = cell(str(v1, "utf-8"), tally)
        line = b",".join((v0, v1,))
        if row.f2 is not None: extras[N2] += 1
        return line

Measured on postings of 26 columns, one such function costs half of a loop over the columns.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from exporter.checkpoints import Tally
from exporter.formats.base import Row

Learned = dict[str, bool]
"""Field name -> whether it was only ever a string or null, in the source's order (msgspec looks
for a field first where the last one ended)."""

SUSPECT = frozenset(b"=+-@ \t\n\r\v\f\xef")
"""First bytes of UTF-8 text that may be a formula: the marks, blanks, and the byte with which the
full-width marks begin."""

_MAX_LEARNED = 128
"""Rows with field names beyond this go the slow way: names without end are data, and a new plan
for each would cost more (some milliseconds) than it saves."""

# What a JSON value begins with when its text may not be its cell as it stands.
_ODD = frozenset(b'"[{n')

_LineOf = Callable[
    [
        Any,
        Callable[[bytes, Tally], bytes],
        Callable[[str, Tally], bytes],
        bytes,
        "Counter[str]",
        Tally,
    ],
    bytes,
]


class Plan(NamedTuple):
    """How to read a row, and how to write what was read."""

    decode: Callable[[Row], Any]
    line: _LineOf


def learn(learned: Learned, fields: Mapping[str, str]) -> bool:
    """Whether a row taught anything new; `fields` are the texts of its values."""
    before = len(learned), sum(learned.values())
    for name, source in fields.items():
        textual = source[0] == '"' or source == "null"
        if name in learned:
            learned[name] = learned[name] and textual
        elif len(learned) < _MAX_LEARNED and _nameable(name):
            learned[name] = textual
    return before != (len(learned), sum(learned.values()))


def _nameable(name: str) -> bool:
    # msgspec takes no such name for a struct's field.
    return name.isprintable() and not {'"', "\\"} & set(name)


@functools.lru_cache(maxsize=64)
def make(columns: tuple[str, ...], learned: tuple[tuple[str, bool], ...], guard: bool) -> Plan:
    """The plan for rows whose fields are all among those learned; any other row is refused."""
    names = [name for name, _ in learned]
    row_type = msgspec.defstruct(
        "Row",
        [
            (f"f{i}", str | None if textual and name in columns else msgspec.Raw, None)
            for i, (name, textual) in enumerate(learned)
        ],
        rename={f"f{i}": name for i, name in enumerate(names)},
        forbid_unknown_fields=True,
        gc=False,
    )
    namespace: dict[str, Any] = {"ODD": _ODD, "SUSPECT": SUSPECT}
    code = ["def line(row, text, cell, nothing, extras, tally):"]
    for c, column in enumerate(columns):
        if column not in names:
            code.append(f" v{c} = nothing")
            continue
        f = names.index(column)
        code += [f" v{c} = row.f{f}", f" if v{c} is None: v{c} = nothing", " else:"]
        if learned[f][1]:
            suspect = f" or v{c}[0] in SUSPECT" if guard else ""
            special = "".join(f" or {byte} in v{c}" for byte in b',"\n\r')
            code += [
                f"  v{c} = v{c}.encode()",
                f"  if not v{c}{suspect}{special}: v{c} = text(v{c}, tally)",
            ]
        else:
            code += [
                f"  v{c} = bytes(v{c})",
                f'  if v{c}[0] in ODD: v{c} = cell(str(v{c}, "utf-8"), tally)',
            ]
    cells = "".join(f"v{c}, " for c in range(len(columns)))
    code.append(f' line = b",".join(({cells}))')
    for f, name in enumerate(names):
        if name not in columns:
            namespace[f"N{f}"] = name
            code.append(f" if row.f{f} is not None: extras[N{f}] += 1")
    code.append(" return line")
    # Only numbers are put into the text: names of fields, which come from outside, are not in it.
    exec("\n".join(code), namespace)  # noqa: S102
    return Plan(msgspec.json.Decoder(row_type).decode, namespace["line"])
