"""The registries of formats and compressions, by the names that requests use.

To add a format, write a class with the methods of `base.Format` in a module of this package, and
add a line to `FORMATS`. All surfaces, the documentation, the command and the workers choose formats
by the attributes of that class, and the contract suite (tests/contract/test_formats.py) tests each
format of the registry. To add a compression, add a line to `COMPRESSIONS`.
"""

from __future__ import annotations

from collections.abc import Sequence

from exporter.core.exports import Dialect
from exporter.errors import ConfigurationError
from exporter.formats import compression
from exporter.formats.base import Format
from exporter.formats.compression import Compression
from exporter.formats.csv import Csv
from exporter.formats.envelope import Envelope
from exporter.formats.json import JsonLines

FORMATS: dict[str, type[Format]] = {
    "csv": Csv,
    "json": JsonLines,
    "json_envelope": Envelope,
}
COMPRESSIONS: dict[str, Compression] = {
    "none": compression.NONE,
    "gzip": compression.GZIP,
    "zstd": compression.ZSTD,
}


class UnknownFormat(ConfigurationError, KeyError):
    """The name is not the name of a format."""

    # The text of a KeyError is its argument in quotes; this class has a full sentence.
    __str__ = ConfigurationError.__str__


def make(name: str, dialect: Dialect, columns: Sequence[str]) -> Format:
    """Returns the format with that name for these columns; without columns it writes all fields.

    Raises the errors of `find`.
    """
    return find(name, columns)(columns, dialect)


def find(name: str, columns: Sequence[str]) -> type[Format]:
    """Returns the class of the format with that name, after checking that it can have the columns.

    Raises UnknownFormat for a name that is not in `FORMATS`, ConfigurationError for a format that
    needs columns and gets none.
    """
    found = FORMATS.get(name)
    if found is None:
        raise UnknownFormat(f"no format is called {name!r}; choose one of {', '.join(FORMATS)}")
    if found.needs_columns and not columns:
        raise ConfigurationError(
            f"a {name} file needs columns: name them in the request or in the source's settings"
        )
    return found


def extension(name: str, compression: str, instead: str | None = None) -> str:
    """Returns the file name extension, such as `csv.gz`, of a format and a compression.

    `instead` is another extension than that of the format.
    """
    return (instead or FORMATS[name].extension) + COMPRESSIONS[compression].suffix


def media_type(name: str, compression: str) -> str:
    """Returns the media type of the file of a format and a compression."""
    return COMPRESSIONS[compression].media_type or FORMATS[name].media_type


def names_with(option: str) -> list[str]:
    """Returns the names of the formats whose files a field of `Dialect` changes."""
    return [name for name, found in FORMATS.items() if option in found.options]


Described = dict[str, type[Format]] | dict[str, Compression]


def list_of(found: Described) -> str:
    """Returns the names and summaries of formats or compressions, as documentation lists them.

    >>> list_of(COMPRESSIONS).partition(" (")[0]
    '`none`, `gzip`'
    """
    *some, last = [
        f"`{name}` ({one.summary})" if one.summary else f"`{name}`" for name, one in found.items()
    ]
    return f"{', '.join(some)} or {last}"
