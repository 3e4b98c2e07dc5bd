"""Parses the Coresignal contract's text filters: terms, phrases, AND, OR and brackets."""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import NamedTuple

MAX_BRACKET_DEPTH = 20
"""Maximum nesting of brackets."""

_TOKEN = re.compile(r'"([^"]*)"?|([()])|([^\s()"]+)')
_WORD = re.compile(r"[\w+#]+")
_ACCENT = re.compile("[\u0300-\u036f]")
"""Combining accents, which NFKD normalization separates from their letters."""


class Term(NamedTuple):
    """A text to find: all its words in any order, or as a phrase if `exact`."""

    text: str
    exact: bool


class Joined(NamedTuple):
    """Parts joined by AND (`every` is true) or by OR (`every` is false)."""

    every: bool
    parts: tuple[Term | Joined, ...]


Expression = Term | Joined
_EMPTY = Joined(every=True, parts=())
"""Expression without any term, for example the missing operand of an operator."""


class InvalidExpression(ValueError):
    """The text is not a valid expression; the message says why."""


@functools.lru_cache(maxsize=1_000)
def parse(text: str) -> Expression:
    """Parses the text of a filter and returns its expression.

    `Data Analyst` requires both words in any order; `"Data Analyst"` requires the phrase. AND and
    OR in capitals join terms (AND binds more tightly than OR), and brackets group terms, as in the
    vendor's examples. An operator without an operand is ignored.

    Raises InvalidExpression for brackets that are nested more than MAX_BRACKET_DEPTH deep.
    """
    pieces = [(m[1], m[2] or m[3] or "") for m in _TOKEN.finditer(text)]
    parts, at = [], 0
    while at < len(pieces):
        part, at = _parse_or(pieces, at, 0)
        parts.append(part)
        at += 1  # an unmatched closing bracket is ignored
    whole = _join(parts, every=True)
    return Term(text, exact=False) if whole == _EMPTY else whole


def contained_in(expression: Expression, text: str) -> bool:
    """True if the text matches the expression; case and accents do not matter.

    Words are runs of letters, digits, `+` and `#`, so `C++` and `C#` are words. `|` separates
    texts: a phrase does not match across a `|`.
    """
    return _found(expression, _fold(text))


def _found(expression: Expression, folded: str) -> bool:
    if isinstance(expression, Term):
        wanted = _patterns(expression)
        return bool(wanted) and all(pattern.search(folded) for pattern in wanted)
    parts = (_found(part, folded) for part in expression.parts)
    return all(parts) if expression.every else any(parts)


@functools.lru_cache(maxsize=1_000)
def _patterns(term: Term) -> list[re.Pattern[str]]:
    """Returns the patterns for a term: a text contains the term if every pattern is found in it.

    The text must be folded to lower case without accents. The list is empty if the term contains no
    word.
    """
    runs = [re.escape(word) for word in _WORD.findall(_fold(term.text))]
    if term.exact and runs:
        runs = [r"[^\w+#|]+".join(runs)]
    return [re.compile(rf"(?<![\w+#]){run}(?![\w+#])") for run in runs]


def _fold(text: str) -> str:
    folded = text.casefold()
    if folded.isascii():
        return folded
    return _ACCENT.sub("", unicodedata.normalize("NFKD", folded))


_Token = tuple[str | None, str]
"""Token of a filter: quoted text and an empty text, or None and a bracket, operator or word."""


def _parse_or(pieces: list[_Token], at: int, depth: int) -> tuple[Expression, int]:
    if depth > MAX_BRACKET_DEPTH:
        raise InvalidExpression(
            f"brackets are nested more than {MAX_BRACKET_DEPTH} deep: use fewer levels"
        )
    parts: list[Expression] = []
    part: Expression | None = None
    while part is None or (at < len(pieces) and pieces[at] == (None, "OR")):
        part, at = _parse_and(pieces, at if part is None else at + 1, depth)
        parts.append(part)
    return _join(parts, every=False), at


def _parse_and(pieces: list[_Token], at: int, depth: int) -> tuple[Expression, int]:
    parts: list[Expression] = []
    words: list[str] = []

    def flush_words() -> None:
        if words:
            parts.append(Term(" ".join(words), exact=False))
            words.clear()

    while at < len(pieces):
        quoted, plain = pieces[at]
        if plain in (")", "OR"):
            break
        at += 1
        if plain == "(":
            flush_words()
            inner, at = _parse_or(pieces, at, depth + 1)
            parts.append(inner)
            at += 1
        elif quoted is not None:
            flush_words()
            parts.append(Term(quoted, exact=True))
        elif plain == "AND":
            flush_words()
        else:
            words.append(plain)
    flush_words()
    return _join(parts, every=True), at


def _join(parts: list[Expression], *, every: bool) -> Expression:
    real = tuple(part for part in parts if part != _EMPTY)
    if not real:
        return _EMPTY
    return real[0] if len(real) == 1 else Joined(every, real)
