"""Checks of the sources that the TOML file names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from pathlib import Path

from exporter.cli.doctor import http_probe
from exporter.cli.doctor.checks import Check, Problem
from exporter.clock import SystemClock
from exporter.config import Config, load_config
from exporter.errors import ConfigurationError, SourceError
from exporter.settings import Settings
from exporter.sources.config import HttpConfig

FILE = "sources"
"""Name of the check of the file itself."""
PAGE_TIMEOUT = timedelta(seconds=5)
"""Longest time of one page with its repetitions, so that the cause is known before the deadline."""


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
    try:
        config = load_config(settings.config)
    except ConfigurationError as error:
        is_built_in = settings.config is None and not Path("exporter.toml").exists()
        raise Problem(
            str(error).rstrip("."),
            variable="EXPORTER_CONFIG",
            remedy="write your sources into a file and name it, or start `exporter up`"
            if is_built_in
            else "correct it",
        ) from error
    return f"{len(config.sources)} in {settings.config or 'the default configuration'}"


def _source(config: Config, name: str, _settings: Settings) -> str:
    own = config.sources[name]
    if isinstance(own, HttpConfig):
        own = own.model_copy(update={"page_timeout": min(own.page_timeout, PAGE_TIMEOUT)})
    try:
        source = own.make(SystemClock())
        try:
            search = source.search({}, datetime.now(UTC), user_id="doctor")
            page = source.fetch(search.query, source.start(1, 0))
        finally:
            source.close()
    except SourceError as error:
        if isinstance(own, HttpConfig):
            raise _problem(error, own, name) from error
        why = http_probe.cause(str(error))
        raise Problem(
            f"the database {why}" if why else str(error).rstrip("."),
            variable=f"sources.{name}" + (".url" if hasattr(own, "url") else ""),
            remedy="start the database, or correct the URL" if why else None,
        ) from error
    return f"answers, {'an unknown number of' if page.total is None else page.total} postings"


def _problem(error: SourceError, own: HttpConfig, name: str) -> Problem:
    where = http_probe.place(own.base_url)
    address, key = f"sources.{name}.base_url", f"sources.{name}.api_key"
    if error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return Problem(
            f"{where} refuses the key (HTTP {error.status})", variable=key, remedy="correct it"
        )
    if error.status is None and error.fault is None:
        why = http_probe.cause(str(error)) or "does not answer"
        return Problem(
            f"{where} {why}", variable=address, remedy="start the server, or correct the address"
        )
    if error.status is not None and (
        error.status == HTTPStatus.TOO_MANY_REQUESTS
        or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    ):
        return Problem(f"{where} answers HTTP {error.status}", remedy="retry later")
    what = f"HTTP {error.status}" if error.status else str(error).rstrip(".")
    return Problem(
        f"{where} answers, but not as an API of type {own.type} ({what})",
        variable=address,
        remedy="correct the address, or the type",
    )


def _surface(config: Config, _settings: Settings) -> str:
    name = config.surfaces.hirebase
    if name not in config.sources:
        raise Problem(
            f"exports from {name!r}, which is not a configured source",
            remedy="name one under [surfaces]",
        )
    return f"exports from {name}"
