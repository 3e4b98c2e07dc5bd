"""The settings of a SQL source; importing them does not import SQLAlchemy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator

from exporter.clock import Clock
from exporter.contracts.described import Filter
from exporter.contracts.pipeline import FILTERS, TYPES
from exporter.core.rates import UNLIMITED, Budget
from exporter.sources.base import Source
from exporter.sources.config import Name, PageSize, Secret, SourceConfig


def _database_url(value: str) -> str:
    value = value.strip()
    match = re.match(r"[a-z][a-z0-9_]*(\+[a-z0-9_]+)?://(?P<place>.*)", value, re.DOTALL)
    place = re.split(r"[/?]", match["place"].rpartition("@")[2])[0] if match else ""
    port = re.search(r":([^:\]]*)$", place)
    if not match or (port and not re.fullmatch(r"[0-9]{1,5}", port[1])):
        raise ValueError(
            "this is not the URL of a database: write it like "
            "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE or sqlite:///FILE"
        )
    return value


class SqlConfig(SourceConfig):
    """A table of postings in which each row has an owner; users read only their own rows."""

    documented_types: ClassVar[Mapping[str, str]] = TYPES
    filters: ClassVar[tuple[Filter, ...]] = FILTERS

    type: Literal["sql"] = "sql"
    url: Annotated[Secret, AfterValidator(_database_url)]
    """SQLAlchemy's URL of the database, such as `postgresql+psycopg://USER:PASSWORD@HOST/DB`."""
    table: Name = "jobs"
    """Name of the table or view."""
    key: Name = "id"
    """Column with a unique value in each row; rows are read in the order of this column."""
    owner: Name = "user_id"
    """Column with the id of the user who owns the row; a user's exports read only these rows."""
    page_size: PageSize = 1_000
    """Maximum number of rows that one statement reads; they are in memory at the same time."""

    def feature(self, search: Mapping[str, Any]) -> str:  # noqa: ARG002
        return "pipeline"

    def make(self, clock: Clock, budget: Budget = UNLIMITED) -> Source:
        # Imported on use: SQLAlchemy takes a fifth of the start-up time of a process.
        from exporter.sources.sql.source import SqlSource

        return SqlSource(self, clock, budget)
