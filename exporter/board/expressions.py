"""Texts to look for, joined by AND and OR, as the filters of the Coresignal contract take them."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

DEEPEST = 20
"""Brackets in brackets."""

_PIECE = re.compile(r'"([^"]*)"?|([()])|([^\s()"]+)')
_WORD = re.compile(r"[\w+#]+")
_ACCENT = re.compile("[\u0300-\u036f]")
"""What stands behind its letter once the two are taken apart."""


class Term(NamedTuple):
    """All its words in any order; if `exact`, one behind the other."""

    text: str
    exact: bool


class Joined(NamedTuple):
    """Parts of which `every` one has to match, or one."""

    every: bool
    parts: tuple[Term | Joined, ...]


Expression = Term | Joined
_NOTHING = Joined(every=True, parts=())
"""What stands where an operator has nothing to join."""


class Wrong(ValueError):
    """The text is no expression; says why."""


@functools.lru_cache(maxsize=1_000)
def parse(text: str) -> Expression:
    """The expression that a filter's text means.

    `Data Analyst` are two words, both wanted; `"Data Analyst"` has to stand just so. AND and OR in
    capitals join terms, AND more tightly, and brackets group them, as in the vendor's examples. An
    operator with nothing to join is left out. Raises Wrong for brackets deeper than DEEPEST.
    """
    pieces = [(m[1], m[2] or m[3] or "") for m in _PIECE.finditer(text)]
    parts, at = [], 0
    while at < len(pieces):
        part, at = _either(pieces, at, 0)
        parts.append(part)
        at += 1  # a bracket too many closes nothing
    whole = _join(parts, every=True)
    return Term(text, exact=False) if whole == _NOTHING else whole


def matches(expression: Expression, has: Callable[[Term], bool]) -> bool:
    """Whether the expression holds, if a term does exactly when `has` says so."""
    if isinstance(expression, Term):
        return has(expression)
    parts = (matches(part, has) for part in expression.parts)
    return all(parts) if expression.every else any(parts)


def said(expression: Expression, text: str) -> bool:
    """Whether a text says what the expression wants, in any case and accent. Words are runs of
    letters and digits; C++ and C# are words too. `|` separates texts: no phrase goes across it."""
    folded = _folded(text)

    def has(term: Term) -> bool:
        wanted = _patterns(term)
        return bool(wanted) and all(pattern.search(folded) for pattern in wanted)

    return matches(expression, has)


@functools.lru_cache(maxsize=1_000)
def _patterns(term: Term) -> list[re.Pattern[str]]:
    """All that a folded text has to hold."""
    runs = [re.escape(word) for word in _WORD.findall(_folded(term.text))]
    if term.exact and runs:
        runs = [r"[^\w+#|]+".join(runs)]
    return [re.compile(rf"(?<![\w+#]){run}(?![\w+#])") for run in runs]


def _folded(text: str) -> str:
    folded = text.casefold()
    if folded.isascii():
        return folded
    return _ACCENT.sub("", unicodedata.normalize("NFKD", folded))


_Piece = tuple[str | None, str]
"""What stood in quotes, or None; otherwise a bracket, an operator or a word."""


def _either(pieces: list[_Piece], at: int, depth: int) -> tuple[Expression, int]:
    if depth > DEEPEST:
        raise Wrong(f"brackets stand more than {DEEPEST} deep: write it flatter")
    parts: list[Expression] = []
    part: Expression | None = None
    while part is None or (at < len(pieces) and pieces[at] == (None, "OR")):
        part, at = _every(pieces, at if part is None else at + 1, depth)
        parts.append(part)
    return _join(parts, every=False), at


def _every(pieces: list[_Piece], at: int, depth: int) -> tuple[Expression, int]:
    parts: list[Expression] = []
    loose: list[str] = []

    def gathered() -> None:
        if loose:
            parts.append(Term(" ".join(loose), exact=False))
            loose.clear()

    while at < len(pieces):
        quoted, plain = pieces[at]
        if plain in (")", "OR"):
            break
        at += 1
        if plain == "(":
            gathered()
            inner, at = _either(pieces, at, depth + 1)
            parts.append(inner)
            at += 1
        elif quoted is not None:
            gathered()
            parts.append(Term(quoted, exact=True))
        elif plain == "AND":
            gathered()
        else:
            loose.append(plain)
    gathered()
    return _join(parts, every=True), at


def _join(parts: list[Expression], *, every: bool) -> Expression:
    real = tuple(part for part in parts if part != _NOTHING)
    if not real:
        return _NOTHING
    return real[0] if len(real) == 1 else Joined(every, real)
