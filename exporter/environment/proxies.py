"""Finds the proxy that the environment names for a URL: HTTP_PROXY, NO_PROXY and their kin.

All clients of this service ask here: urllib, httpx and botocore each read these variables in
another way, and none of them leaves out this machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import urlsplit

from exporter.environment import urls
from exporter.errors import ConfigurationError

_PORTS = {"http": 80, "https": 443}
_ENTRY = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]{1,5}))?")
"""An entry of NO_PROXY that is not a bare IPv6 address: a host, and a port if there is one."""


class Proxy(NamedTuple):
    """The proxy for a URL."""

    url: str
    """URL with the scheme http or https, and perhaps with a user and a password."""
    variable: str
    """Environment variable that names the proxy."""


def find(url: str) -> Proxy | None:
    """Returns the proxy for a URL, or None if it is reached directly, as this machine always is.

    Raises ConfigurationError, which names the variable, if that proxy cannot be used.
    """
    target = urlsplit(url)
    host = (target.hostname or "").rstrip(".")
    if is_loopback(host):
        return None
    variable, value = _named(f"{target.scheme}_proxy", "all_proxy")
    port = target.port or _PORTS.get(target.scheme, 0)
    if not value or any(_matches(entry, host, port) for entry in _exceptions()):
        return None
    try:
        return Proxy(urls.proxy_url(value), variable)
    except ValueError as error:
        raise ConfigurationError(
            f"{variable}: {error}; correct {variable}, or add {host} to NO_PROXY"
        ) from None


def is_loopback(host: str) -> bool:
    """True for a name or an address of this machine itself."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback


def warnings() -> Sequence[str]:
    """Returns a text for each proxy that cannot be used and each exception that means nothing."""
    found = []
    for scheme in ("http", "https", "all"):
        variable, value = _named(f"{scheme}_proxy")
        try:
            if value:
                urls.proxy_url(value)
        except ValueError as error:
            found.append(f"{variable}: {error}")
    variable, _ = _named("no_proxy")
    found += [
        f"{variable}: {urls.shown(entry)} has no effect: write a host, such as .example.com, "
        "10.0.0.0/8 or [fd00::1]:9000"
        for entry in _exceptions()
        if not _is_readable(entry)
    ]
    return found


def _named(*names: str) -> tuple[str, str]:
    """Returns the first of the variables that has a value, in small letters or capitals."""
    for name in names:
        for spelling in (name, name.upper()):
            value = os.environ.get(spelling, "").strip()
            if value:
                return spelling, value
    return names[0].upper(), ""


def _exceptions() -> Iterator[str]:
    return (one for one in re.split(r"[,\s]+", _named("no_proxy")[1]) if one)


def _matches(entry: str, host: str, port: int) -> bool:
    """True if an entry of NO_PROXY names the host, or the domain or network that it is in."""
    if entry == "*":
        return True
    network = _network(entry)
    if network is None and (parts := _parts(entry)):
        name, only_port = parts
        if only_port not in (None, port):
            return False
        network = _network(name)
        domain = name.lower().removeprefix("*").strip(".")
        if network is None:
            return bool(domain) and (host == domain or host.endswith(f".{domain}"))
    try:
        return network is not None and ip_address(host) in network
    except ValueError:
        return False


def _parts(entry: str) -> tuple[str, int | None] | None:
    entry = entry.partition("://")[2].partition("/")[0] if "://" in entry else entry
    match = _ENTRY.fullmatch(entry)
    if match is None:
        return None
    return match["host"].strip("[]"), int(match["port"]) if match["port"] else None


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(re.sub(r"^\[(.*)\]$", r"\1", text), strict=False)
    except ValueError:
        return None


def _is_readable(entry: str) -> bool:
    parts = _parts(entry)
    is_name = parts is not None and re.fullmatch(r"(\*?\.)?[\w.-]+|\*", parts[0])
    return _network(entry) is not None or bool(is_name) or bool(parts and _network(parts[0]))
