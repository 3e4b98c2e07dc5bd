"""Which formats there are, by the name that a request uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from exporter.core.exports import Dialect
from exporter.errors import ConfigurationError
from exporter.formats.base import Format
from exporter.formats.csv import Csv
from exporter.formats.envelope import Envelope
from exporter.formats.json import JsonLines

_MAKERS: Mapping[str, Callable[[Dialect, Sequence[str]], Format]] = {
    "csv": lambda dialect, columns: Csv(columns, guard=dialect.guard, joined=dialect.joined),
    "json": lambda _, columns: JsonLines(columns),
    "json_envelope": lambda dialect, columns: Envelope(columns, exported_at=dialect.exported_at),
}

NAMES: tuple[str, ...] = tuple(_MAKERS)
"""The names that `make` knows."""


class UnknownFormat(ConfigurationError, KeyError):
    """No format has this name."""

    # KeyError alone would show its message in quotes, as if it were a key.
    __str__ = ConfigurationError.__str__


def make(name: str, dialect: Dialect, columns: Sequence[str]) -> Format:
    """The format of that name, writing these columns; no columns means whole rows.

    Raises UnknownFormat, a KeyError, for a name that is not in `NAMES`, and ConfigurationError
    for a CSV without columns.
    """
    maker = _MAKERS.get(name)
    if maker is None:
        raise UnknownFormat(f"no format is called {name!r}; choose one of {', '.join(NAMES)}")
    return maker(dialect, columns)


COMPRESSIONS = ("none", "gzip", "zstd")
"""Names of compressions that a request may ask for."""
SUFFIXES = {"none": "", "gzip": ".gz", "zstd": ".zst"}
CONTENT_TYPES = {"gzip": "application/gzip", "zstd": "application/zstd"}
