"""Connects the commands to a running service by the client library, and reports its errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from exporter.cli import local_stack
from exporter.client import ClientError, ConnectionFailed, Exporter
from exporter.environment import proxies
from exporter.errors import ExporterError
from exporter.formats.registry import FORMATS

TIMEOUT_SECONDS = 60.0


class ServiceError(ExporterError):
    """The service refused, failed or did not answer; the message quotes its answer."""


@contextmanager
def connected(url: str | None, api_key: str | None) -> Iterator[Exporter]:
    """Yields a client of the service; default: that of the local stack here, and its key.

    Errors of the client become ServiceError, with the proxy that was used. Raises
    ConfigurationError if the environment names a proxy that cannot be used.
    """
    found = local_stack.service_url(url)
    with open_client(found, api_key or local_stack.api_key(found)) as exporter:
        yield exporter


@contextmanager
def open_client(url: str, api_key: str) -> Iterator[Exporter]:
    """Yields a client of the service at a URL, with the errors of `connected`."""
    try:
        exporter = Exporter(url, api_key, connect=_connect)
    except ValueError as error:
        raise ServiceError(str(error)) from None
    with exporter:
        try:
            yield exporter
        except ClientError as error:
            silent = error if isinstance(error, ConnectionFailed) else error.__cause__
            way = proxy_text(silent.url) if isinstance(silent, ConnectionFailed) else ""
            raise ServiceError(f"{error}{way}") from None


def http_options(url: str) -> dict[str, Any]:
    """Returns the options of an httpx.Client for a URL: the proxy, and trust in certificates.

    Raises ConfigurationError if the environment names a proxy that cannot be used.
    """
    proxy = proxies.find(url)
    # httpx itself would ask a proxy for this machine, too, and fails on networks in NO_PROXY.
    return {
        "proxy": proxy.url if proxy else None,
        "trust_env": False,
        "verify": httpx.create_ssl_context(),
    }


def proxy_text(url: str) -> str:
    """Returns the end of a sentence that names the proxy of a URL; empty without a proxy."""
    proxy = proxies.find(url)
    return f", through the proxy of {proxy.variable}" if proxy else ""


def count_rows(file: Path, format: str) -> int:  # noqa: A002
    """Returns the number of rows in a downloaded file, counted by reading all of it.

    Memory use does not grow with the file. Raises ServiceError for a file that was cut off, and for
    a format that only the service knows.
    """
    if format not in FORMATS:
        raise ServiceError(
            f"{file} is downloaded, but its rows are not counted: this command is older than the"
            f" service and does not know the format {format}"
        )
    try:
        return FORMATS[format].count(file)
    except ValueError as error:
        raise ServiceError(str(error)) from None


def _connect(url: str) -> httpx.Client:
    timeout = httpx.Timeout(TIMEOUT_SECONDS, connect=10)
    return httpx.Client(timeout=timeout, **http_options(url))
