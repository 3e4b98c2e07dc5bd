"""Requests an address that callers use, and names the cause if it does not answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx

from exporter.cli.doctor.checks import Problem
from exporter.cli.remote import http_options

TIMEOUT_SECONDS = 5.0
_CAUSES: Mapping[str, str] = {
    "CERTIFICATE_VERIFY_FAILED": "has a TLS certificate that is not trusted",
    "WRONG_VERSION_NUMBER|wrong version|RECORD_LAYER|record layer": "speaks no TLS",
    "refused|Errno 111": "refuses connections",
    "not known|resolution|getaddrinfo|No address": "has an unknown host name",
    "unreachable|No route": "cannot be reached from this machine",
    "[Tt]imed out|[Tt]imeout": "does not answer",
    "disconnected|reset|closed": "closes the connection",
}
"""Causes by a pattern in the texts of libraries."""


def get(url: str, variable: str, remedy: str) -> httpx.Response:
    """Returns the answer to a GET. Raises Problem if there is none, or if it is a redirect."""
    try:
        answer = httpx.get(url, timeout=TIMEOUT_SECONDS, **http_options(url))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Problem(f"{place(url)} {_cause(error)}", variable=variable, remedy=remedy) from error
    if answer.is_redirect:
        target = place(answer.headers.get("location", ""))
        raise Problem(
            f"{place(url)} redirects to {target or 'another address'}",
            variable=variable,
            remedy="give the address that answers without a redirect",
        )
    return answer


def place(url: str) -> str:
    """Returns scheme, host and port of a URL: neither a password nor a signature."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else ""


def cause(text: str) -> str | None:
    """Returns the cause, as a predicate, that a text of a library names; None if it is unknown."""
    return next((found for pattern, found in _CAUSES.items() if re.search(pattern, text)), None)


def _cause(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return f"does not answer within {TIMEOUT_SECONDS:g} s"
    if isinstance(error, httpx.ProxyError):
        return "cannot be reached"
    return cause(f"{error} {error.__cause__ or ''}") or "does not answer as an HTTP server"
