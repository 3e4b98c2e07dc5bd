"""Which class reads which type of source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from exporter.clock import Clock
from exporter.config import AnySource
from exporter.core.rates import UNLIMITED, Budget, Rate
from exporter.sources.base import Source
from exporter.sources.bindbee import BindbeeSource
from exporter.sources.coresignal import CoresignalSource
from exporter.sources.hirebase import HirebaseSource
from exporter.sources.qwestly import QwestlySource


def _sql(config: Any, clock: Clock, budget: Budget) -> Source:
    # SQLAlchemy is a fifth of the time in which any process of ours starts.
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
"""The requests that a contract grants all workers together, where it says."""


def make(config: AnySource, clock: Clock, budget: Budget = UNLIMITED) -> Source:
    """The source that a configuration describes; each of its requests is taken from the budget."""
    return TYPES[config.type](config, clock, budget)
