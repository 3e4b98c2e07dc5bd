"""Checks of the sources that the TOML file names."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from exporter.cli.doctor.checks import Check, Problem
from exporter.clock import SystemClock
from exporter.config import Config, load_config
from exporter.errors import ConfigurationError, SourceError
from exporter.settings import Settings
from exporter.sources import registry

FILE = "sources"
"""Name of the check of the file itself."""


def checks(settings: Settings) -> list[Check]:
    """Returns the check of the file, of each source in it, and of each surface."""
    variables = ["EXPORTER_CONFIG"]
    file = Check(FILE, _file, variables=variables)
    try:
        config = load_config(settings.config)
    except ConfigurationError:
        return [file]
    sources = (
        Check(f"source {name}", partial(_source, config, name), variables=variables)
        for name in sorted(config.sources)
    )
    return [
        file,
        *sources,
        Check("surface hirebase", partial(_surface, config), variables=variables),
    ]


def _file(settings: Settings) -> str:
    config = load_config(settings.config)
    return f"{len(config.sources)} in {settings.config or 'the default configuration'}"


def _source(config: Config, name: str, _settings: Settings) -> str:
    source = registry.make(config.sources[name], SystemClock())
    try:
        search = source.search({}, datetime.now(UTC), user_id="doctor")
        page = source.fetch(search.query, source.start(1, 0))
    except SourceError as error:
        # The text, which users see, too, does not name the host.
        asked = f" (asked: {error.upstream})" if error.upstream else ""
        raise Problem(f"{error}{asked}", remedy=f"correct [sources.{name}]") from error
    finally:
        source.close()
    return f"answers, {'an unknown number of' if page.total is None else page.total} postings"


def _surface(config: Config, _settings: Settings) -> str:
    name = config.surfaces.hirebase
    if name not in config.sources:
        raise Problem(
            f"exports from {name!r}, which is not a configured source",
            remedy="name one under [surfaces]",
        )
    return f"exports from {name}"
