"""Which class reads which type of source."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from exporter.admission import UNLIMITED, Budget
from exporter.clock import Clock
from exporter.settings import SourceConfig
from exporter.sources.base import Source
from exporter.sources.hirebase import HirebaseSource

TYPES: Mapping[str, Callable[[SourceConfig, Clock, Budget], Source]] = {
    "hirebase": HirebaseSource,
}


def make(config: SourceConfig, clock: Clock, budget: Budget = UNLIMITED) -> Source:
    """The source that a configuration describes; each of its requests is taken from the budget."""
    return TYPES[config.type](config, clock, budget)
