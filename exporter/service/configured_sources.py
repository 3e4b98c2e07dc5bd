"""The sources of the configuration, each opened on first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from exporter.clock import Clock
from exporter.config import Config
from exporter.core import rates
from exporter.errors import ConfigurationError
from exporter.sources.base import Source
from exporter.sources.config import SourceConfig


class ConfiguredSources:
    """Opens each source of the configuration once; also knows what its configuration says."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        budgets: rates.OpenBudget,
        meters: Callable[[str], rates.Meter] | None = None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._budgets = budgets
        self._meters = meters
        self.opened: dict[str, Source] = {}
        """The sources that are in use, by name."""

    def __contains__(self, name: str) -> bool:
        return name in self._config.sources

    def get(self, name: str) -> Source:
        """Returns the source with that name; raises ConfigurationError if it is not configured."""
        if name not in self.opened:
            if name not in self:
                raise ConfigurationError(self.unknown(name))
            config = self._config.sources[name]
            rate = config.rate
            budget = self._budgets(name, rate) if rate is not None else rates.UNLIMITED
            if self._meters is not None:
                budget = rates.Metered(budget, self._meters(name))
            self.opened[name] = config.make(self._clock, budget)
        return self.opened[name]

    def names(self) -> Sequence[str]:
        """Returns the names of all sources, in the order of the configuration."""
        return tuple(self._config.sources)

    def config(self, name: str) -> SourceConfig:
        """Returns the settings of a source."""
        return self._config.sources[name]

    def unknown(self, name: str) -> str:
        """Returns the text of the error for a name that is not configured."""
        known = ", ".join(sorted(self._config.sources)) or "none"
        return f"source {name!r} is not configured; configured: {known}"

    def columns(self, name: str) -> Sequence[str]:
        """Returns the columns of a CSV file for which the caller chose no columns."""
        return self._config.sources[name].names or self.get(name).columns

    def declared(self, name: str) -> Sequence[str]:
        """Returns all columns that a caller may choose: the configured and the vendor's fields."""
        vendor = self._config.sources[name].documented_columns
        return tuple(dict.fromkeys((*self.get(name).columns, *vendor)))

    def types(self, name: str) -> Mapping[str, str]:
        """Returns the declared types of the fields; a field that is missing has no known type."""
        config = self._config.sources[name]
        return {**config.documented_types, **config.types}

    def feature(self, name: str, search: Mapping[str, Any], *, by_ids: bool = False) -> str:
        """Returns the feature of a plan that an export needs, by its source and kind of search."""
        config = self._config.sources.get(name)
        found = config.feature({} if by_ids else search) if config else "export"
        return "bulk" if found == "export" and by_ids else found
