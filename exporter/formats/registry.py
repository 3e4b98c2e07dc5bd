"""The registry of formats and compressions, by the names that requests use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from exporter.core.exports import Dialect
from exporter.errors import ConfigurationError
from exporter.formats.base import Format
from exporter.formats.csv import Csv
from exporter.formats.envelope import Envelope
from exporter.formats.json import JsonLines

_MAKERS: Mapping[str, Callable[[Dialect, Sequence[str]], Format]] = {
    "csv": lambda dialect, columns: Csv(
        columns, guard=dialect.guard, joined=dialect.joined, bom=dialect.bom
    ),
    "json": lambda _, columns: JsonLines(columns),
    "json_envelope": lambda dialect, columns: Envelope(columns, exported_at=dialect.exported_at),
}

NAMES: tuple[str, ...] = tuple(_MAKERS)
"""Names of all formats."""


class UnknownFormat(ConfigurationError, KeyError):
    """The name is not the name of a format."""

    # The text of a KeyError is its argument in quotes; this class has a full sentence.
    __str__ = ConfigurationError.__str__


def make(name: str, dialect: Dialect, columns: Sequence[str]) -> Format:
    """Returns the format with that name for these columns; without columns it writes all fields.

    Raises UnknownFormat for a name that is not in `NAMES`, ConfigurationError for a CSV without
    columns.
    """
    maker = _MAKERS.get(name)
    if maker is None:
        raise UnknownFormat(f"no format is called {name!r}; choose one of {', '.join(NAMES)}")
    return maker(dialect, columns)


COMPRESSIONS = ("none", "gzip", "zstd")
"""Names of all compressions."""
SUFFIXES = {"none": "", "gzip": ".gz", "zstd": ".zst"}
"""File name suffix of each compression."""
CONTENT_TYPES = {"gzip": "application/gzip", "zstd": "application/zstd"}
"""Media type of each compression."""
