"""A pool of connections to one upstream, opened directly or through a proxy."""

from __future__ import annotations

import base64
import threading
import time
from http import HTTPStatus
from typing import NamedTuple

import httpx

from exporter.environment import proxies
from exporter.errors import ConfigurationError
from exporter.sources.http import sockets
from exporter.sources.http.http1 import Connection, Headers
from exporter.sources.http.sockets import Waits

KEEP_ALIVE_SECONDS = 15.0
"""Idle time after which a connection is closed and not used again."""
MAX_CONNECTIONS = 100


class Connections:
    """Keeps at most MAX_CONNECTIONS connections to one origin. Thread-safe.

    An acquired connection belongs to one thread until it is released. Connections go through the
    proxy that the environment names for the origin, if there is one.
    """

    def __init__(self, url: httpx.URL) -> None:
        self._url = url
        self._proxy = _proxy(url)
        self._slots = threading.Semaphore(MAX_CONNECTIONS)
        self._lock = threading.Lock()
        self._kept: list[tuple[Connection, float]] = []
        """Idle connections with the time of their release, oldest first; the last is used first."""
        self._closed = False

    def acquire(self, waits: Waits) -> Connection:
        """Returns a connection for one request; the caller must release it.

        Raises PoolTimeout if all connections stay in use, ProxyError if the proxy fails, and the
        errors of Socket.
        """
        if not self._slots.acquire(timeout=waits.seconds("pool")):
            raise httpx.PoolTimeout(f"all {MAX_CONNECTIONS} connections stayed in use")
        try:
            connection = self._idle() or self._open(waits)
        except BaseException:
            self._slots.release()
            raise
        connection.socket.waits = waits
        return connection

    def release(self, connection: Connection, *, idle: bool) -> None:
        """Returns the connection to the pool if it is `idle`, else closes it."""
        with self._lock:
            keep = idle and not self._closed
            if keep:
                self._kept.append((connection, time.monotonic()))
        if not keep:
            connection.close()
        self._slots.release()

    def for_proxy(self, target: bytes, headers: Headers) -> tuple[bytes, Headers]:
        """Returns the target and the headers as they must be sent on a connection of this pool.

        They are changed only for http through a proxy, which opens no tunnel: the target becomes
        the full URL, and the headers that the proxy requires are added.
        """
        if self._proxy is None or self._url.scheme == "https":
            return target, headers
        origin = self._url.raw_scheme + b"://" + self._url.netloc
        return origin + target, [*headers, *self._proxy.headers]

    def close(self) -> None:
        """Closes all idle connections now, and each other connection at its release."""
        with self._lock:
            self._closed = True
            kept, self._kept = self._kept, []
        for connection, _ in kept:
            connection.close()

    def _idle(self) -> Connection | None:
        while True:
            with self._lock:
                if not self._kept:
                    return None
                connection, since = self._kept.pop()
            if time.monotonic() - since < KEEP_ALIVE_SECONDS and connection.is_idle():
                return connection
            connection.close()

    def _open(self, waits: Waits) -> Connection:
        if self._proxy is not None:
            return self._open_through_proxy(self._proxy, waits)
        return Connection(sockets.connect(self._url, waits))

    def _open_through_proxy(self, proxy: _Proxy, waits: Waits) -> Connection:
        try:
            connection = Connection(sockets.connect(proxy.url, waits))
        except httpx.ConnectError as error:
            raise httpx.ProxyError(
                f"the proxy {proxy.url.host} of {proxy.variable}: {error}"
            ) from error
        if self._url.scheme == "http":
            return connection
        try:
            return self._open_tunnel(connection, proxy)
        except BaseException:
            connection.close()
            raise

    def _open_tunnel(self, connection: Connection, proxy: _Proxy) -> Connection:
        authority = self._url.netloc + (b"" if self._url.port else b":443")
        head = connection.request(
            b"CONNECT", authority, [(b"Host", authority), *proxy.headers], b""
        ).head
        if head.status not in range(200, 300):
            # The proxy's text is left out, because proxies echo the headers that they receive.
            raise httpx.ProxyError(
                f"the proxy {proxy.url.host} answered {_status_text(head.status)}"
                f" (set by {proxy.variable})"
            )
        if not connection.is_idle():
            raise httpx.ProxyError(
                f"the proxy {proxy.url.host} of {proxy.variable} sent data in place of the upstream"
            )
        return connection.tunnel(self._url.raw_host.decode("ascii"))


class _Proxy(NamedTuple):
    url: httpx.URL
    variable: str
    headers: Headers
    """Headers that the proxy requires, such as Proxy-Authorization."""


def _proxy(url: httpx.URL) -> _Proxy | None:
    found = proxies.find(str(url.copy_with(userinfo=b"")))
    if found is None:
        return None
    proxy = httpx.URL(found.url)
    if proxy.scheme == url.scheme == "https":
        raise ConfigurationError(
            f"{found.variable}: a proxy under TLS cannot be used for a source under TLS; begin the "
            f"URL of the proxy with http://, or add {url.host} to NO_PROXY"
        )
    if not proxy.userinfo:
        return _Proxy(proxy, found.variable, [])
    token = base64.b64encode(f"{proxy.username}:{proxy.password}".encode())
    return _Proxy(proxy, found.variable, [(b"Proxy-Authorization", b"Basic " + token)])


def _status_text(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
