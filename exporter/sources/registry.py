"""The types of sources, and the class that reads each type."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from exporter.clock import Clock
from exporter.config import AnySource
from exporter.core.rates import UNLIMITED, Budget, Rate
from exporter.sources import bindbee, coresignal, hirebase, qwestly
from exporter.sources.base import Source
from exporter.sources.bindbee import BindbeeSource
from exporter.sources.coresignal import CoresignalSource
from exporter.sources.hirebase import HirebaseSource
from exporter.sources.qwestly import QwestlySource


def _sql(config: Any, clock: Clock, budget: Budget) -> Source:
    # Imported on use: SQLAlchemy takes a fifth of the start-up time of a process.
    from exporter.sources.sql.source import SqlSource

    return SqlSource(config, clock, budget)


TYPES: Mapping[str, Callable[[Any, Clock, Budget], Source]] = {
    "bindbee": BindbeeSource,
    "coresignal": CoresignalSource,
    "hirebase": HirebaseSource,
    "qwestly": QwestlySource,
    "sql": _sql,
}

RATES: Mapping[str, Rate] = {"bindbee": Rate(200, 60)}
"""The rate limit of all workers together that a vendor's contract sets, by type of source."""


FEATURES: Mapping[str, str] = {"coresignal": "bulk", "sql": "pipeline"}
"""The feature of a plan that an export from a source needs, by type; other types need `export`."""


COLUMNS: Mapping[str, Sequence[str]] = {
    "bindbee": bindbee.COLUMNS,
    "coresignal": coresignal.COLUMNS,
    "hirebase": hirebase.COLUMNS,
    "qwestly": qwestly.COLUMNS,
}
"""The fields that a vendor documents, by type of source, whichever columns the settings choose."""


def make(config: AnySource, clock: Clock, budget: Budget = UNLIMITED) -> Source:
    """Returns the source that `config` describes; each of its requests is counted in `budget`."""
    return TYPES[config.type](config, clock, budget)
