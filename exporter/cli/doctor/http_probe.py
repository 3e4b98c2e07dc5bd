"""Requests an address that callers use, and names the cause if it does not answer."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import httpx

from exporter.cli.client import http_options
from exporter.cli.doctor.checks import Problem

TIMEOUT_SECONDS = 5.0


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


def _cause(error: Exception) -> str:
    text = f"{error} {error.__cause__ or ''}"
    causes = {
        "CERTIFICATE_VERIFY_FAILED": "has a TLS certificate that is not trusted",
        "WRONG_VERSION_NUMBER|RECORD_LAYER": "speaks no TLS",
        "refused|111": "refuses connections",
        "not known|resolution|getaddrinfo|No address": "has an unknown host name",
        "unreachable|No route": "cannot be reached from this machine",
        "disconnected|reset|closed": "closes the connection",
    }
    if isinstance(error, httpx.TimeoutException):
        return f"does not answer within {TIMEOUT_SECONDS:g} s"
    if isinstance(error, httpx.ProxyError):
        return "cannot be reached"
    found = (cause for pattern, cause in causes.items() if re.search(pattern, text))
    return next(found, "does not answer as an HTTP server")
