"""Checks the address on which a server of this service is to listen."""

from __future__ import annotations

import socket

from exporter.errors import ConfigurationError


def check_host(host: str) -> None:
    """Raises ConfigurationError unless the host is an address or a name of this machine."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except (OSError, UnicodeError):
        raise ConfigurationError(
            f"--host {host} is not an address of this machine: give one of it, such as 127.0.0.1,"
            " or 0.0.0.0 for all of them"
        ) from None
