"""A type of source in one file: rows that stand in their table of the TOML file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field

from exporter.clock import Clock
from exporter.core.rates import UNLIMITED, Budget
from exporter.sources.base import Source
from exporter.sources.config import Secret, SourceConfig
from exporter.sources.memory import MemorySource


class RowsConfig(SourceConfig):
    """The rows of the table itself."""

    type: Literal["rows"] = "rows"
    rows: Annotated[tuple[dict[str, Any], ...], Field(min_length=1)]
    """The rows; the keys of the first are the columns."""
    password: Secret = ""
    """Something that no error shows."""

    def make(self, clock: Clock, budget: Budget = UNLIMITED) -> Source:
        rows = [msgspec.json.encode(row) for row in self.rows]
        columns = self.columns or tuple(self.rows[0])
        return MemorySource(rows, page_size=self.page_size, columns=columns)
