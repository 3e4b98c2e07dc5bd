"""Removes addresses of the deployment from texts that are shown to tenants.

Error texts quote libraries and upstream answers, which name hosts, ports, paths and queries of the
upstream, the object store and Redis. Tenants must not see them: such an address tells how the
deployment is built, and its path or query may hold a secret.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

HIDDEN = "(address)"
"""Replaces each address."""

_TOP_DOMAINS = (
    *("com", "net", "org", "io", "dev", "app", "cloud", "ai", "co", "eu", "de", "uk", "fr", "ch"),
    *("us", "info", "biz", "tech", "internal", "intern", "local", "localdomain", "lan", "home"),
    *("corp", "private", "svc", "consul", "cluster", "example", "test", "invalid", "arpa"),
    *("localhost", "onion"),
)
_LABEL = r"[a-z0-9_-]++"
_PORT = r"(?::[0-9]{1,5}(?![0-9]))?"
# JSON written by PHP escapes each slash.
_URL = re.compile(
    r"\b[a-z][a-z0-9+.-]{0,20}:(?:\\?/){2}[^\s\"'<>(){}\[\]|^`]*(?<![.,;:!?])", re.IGNORECASE
)
_ARN = re.compile(r"\barn:[a-z0-9-]+:[^\s\"'<>,;]+", re.IGNORECASE)
_QUOTED = re.compile(
    r"\b(host(?: ?name)?|server at|server|socket|endpoint|address|proxy|upstream|resolve|valid for)"
    r" (?:\"[^\"]*\"|'[^']*')(?: \([^)]*\))?(?:,? port [0-9]+)?",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"\b(connect(?:ing|ion)?(?: (?:to|from|with|refused by))|(?:reading|writing) (?:from|to)"
    rf"|host(?:name)?|proxy|resolv(?:e|ing)) ({_LABEL}(?:\.{_LABEL})*:[0-9]{{1,5}})\b",
    re.IGNORECASE,
)
_DOMAIN = re.compile(
    rf"(?<![\w.@/+-])(?:[\w.+-]++@)?(?:{_LABEL}\.)+(?:{'|'.join(_TOP_DOMAINS)}){_PORT}(?![\w-])"
    r"(?:\\?/[^\s\"'<>]*)?",
    re.IGNORECASE,
)
_LOOPBACK = re.compile(rf"\blocalhost\b{_PORT}(?:/[^\s\"'<>]*)?", re.IGNORECASE)
_IPV4 = re.compile(rf"(?<![\w.])(?:[0-9]{{1,3}}\.){{3}}[0-9]{{1,3}}{_PORT}(?![\w.]*\w)")
_IPV6 = re.compile(
    rf"\[?(?<![\w:])([0-9a-f:]*:[0-9a-f:.]*)(?:%\w+)?(?![\w:])\]?{_PORT}", re.IGNORECASE
)


def without_addresses(text: str) -> str:
    """Returns the text with every URL, host with a port, host name and IP address replaced.

    >>> without_addresses("Error 111 connecting to redis.internal:6379. Connection refused.")
    'Error 111 connecting to (address). Connection refused.'
    """
    for pattern in (_URL, _ARN):
        text = pattern.sub(HIDDEN, text)
    for pattern in (_QUOTED, _NAMED):
        text = pattern.sub(rf"\1 {HIDDEN}", text)
    for pattern in (_DOMAIN, _LOOPBACK, _IPV4):
        text = pattern.sub(HIDDEN, text)
    return _IPV6.sub(_hide_ipv6, text)


def with_hosts_only(text: str) -> str:
    """Returns the text with every URL cut to its host and port, for operators.

    User, password, path and query are dropped, because they may hold secrets.

    >>> with_hosts_only('Could not connect to "http://key:pw@minio:9000/exports/a?uploadId=1"')
    'Could not connect to "minio:9000"'
    """

    def host(found: re.Match[str]) -> str:
        rest = found[0].replace("\\/", "/").partition("://")[2]
        return re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2] or HIDDEN

    return _URL.sub(host, text)


def _hide_ipv6(found: re.Match[str]) -> str:
    try:
        ip_address(found[1])
    except ValueError:
        return found[0]
    return HIDDEN if any(map(str.isalnum, found[1])) else found[0]
