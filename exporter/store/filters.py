"""Filters of lists of exports, and the values by which stores index an export."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from exporter.core import canonical
from exporter.core.exports import Export, Spec, State

_WORD = re.compile(r"\w+")
_INDEXED_CHARS = 2
"""Beginning of each word of a name by which it is indexed; the rest is compared."""


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Conditions that all exports of a list meet, and its order."""

    states: tuple[State, ...] = ()
    """Any of these states; empty: every state."""
    source: str | None = None
    format: str | None = None
    outcome: str | None = None
    """Value of `Outcome`."""
    created_from: datetime | None = None
    created_to: datetime | None = None
    """Created before this time."""
    metadata: dict[str, str] = {}
    """Pairs that the export's metadata has."""
    text: str = ""
    """Beginnings of words of the name, in any order; case does not matter."""
    oldest_first: bool = False

    @property
    def tag(self) -> str:
        """Short name of the conditions and the order, for cursors; empty without any."""
        if self == NO_FILTERS:
            return ""
        return canonical.digest(msgspec.to_builtins(self))[:16]

    @property
    def words(self) -> list[str]:
        """The folded words of the text."""
        return words(self.text)

    @property
    def values(self) -> list[str]:
        """The indexed values that a matching export has, apart from its state."""
        given = {"source": self.source, "format": self.format, "outcome": self.outcome}
        found = [f"{name}:{value}" for name, value in given.items() if value is not None]
        found += [_pair(name, value) for name, value in self.metadata.items()]
        found += [f"word:{word[:_INDEXED_CHARS]}" for word in self.words if len(word) > 1]
        return sorted(set(found))

    def match(self, export: Export) -> bool:
        """True if the export meets all conditions: what the indexes compute, in plain words."""
        spec, result = export.spec, export.result
        outcome = str(result.completeness.outcome) if result else None
        conditions = (
            (self.states, export.state in self.states),
            (self.source is not None, spec.source == self.source),
            (self.format is not None, spec.format == self.format),
            (self.outcome is not None, outcome == self.outcome),
            (self.created_from, self.created_from and export.created_at >= self.created_from),
            (self.created_to, self.created_to and export.created_at < self.created_to),
            (self.metadata, self.metadata.items() <= spec.metadata.items()),
            (self.text, _has_words(spec.name, self.words)),
        )
        return all(met for given, met in conditions if given)


NO_FILTERS = Filters()


class StateCounts(msgspec.Struct, frozen=True):
    """Number of exports in each state."""

    counts: Mapping[State, int]
    exact: bool = True
    """False if there are more, because counting was stopped."""


def words(text: str) -> list[str]:
    """Returns the words of a text, folded for comparisons without regard to case.

    >>> words("Nightly: Straße, ÄRZTE")
    ['nightly', 'strasse', 'ärzte']
    """
    return _WORD.findall(text.casefold())


def indexed_values(spec: Spec) -> list[str]:
    """Returns the values by which a new export is indexed, besides its state."""
    pairs: Sequence[str] = [_pair(name, value) for name, value in spec.metadata.items()]
    beginnings = {f"word:{word[:_INDEXED_CHARS]}" for word in words(spec.name) if len(word) > 1}
    return [f"source:{spec.source}", f"format:{spec.format}", *pairs, *sorted(beginnings)]


def _pair(name: str, value: str) -> str:
    # The length keeps apart a name that contains the separator.
    return f"meta:{len(name)}:{name}={value}"


def _has_words(name: str, wanted: Sequence[str]) -> bool:
    own = words(name)
    return all(any(one.startswith(word) for one in own) for word in wanted)
