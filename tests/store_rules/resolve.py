"""Resolves every name below `localhost` to 127.0.0.1, in this process only."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

_real = socket.getaddrinfo


def _getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
    name = host.decode() if isinstance(host, bytes) else host
    if isinstance(name, str) and name.endswith(".localhost"):
        host = "127.0.0.1"
    return _real(host, *args, **kwargs)


@contextmanager
def localhost() -> Iterator[None]:
    """Resolves `exports.localhost` and the like as RFC 6761 asks, for as long as the block runs."""
    with mock.patch.object(socket, "getaddrinfo", _getaddrinfo):
        yield
