"""Sends one webhook once: a POST to a checked address, within a total deadline."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata

import httpcore
import httpx

from exporter.clock import Clock
from exporter.core import retry_after
from exporter.webhooks.addresses import ForbiddenAddress, Guard, NameUnresolved, Target

TIMEOUT_SECONDS = 20.0
"""Default deadline of one attempt: name look-up, connection, TLS, request and response together."""
MAX_EXCERPT_BYTES = 20_000
"""Bytes of a response body that are read; after that the connection is closed."""
MAX_RETRY_AFTER_SECONDS = 48 * 3600.0
"""Longest Retry-After that is used; a longer value of the receiver is reduced to this."""
_MAX_WRITE_BYTES = 1024
"""Bytes in one write. The deadline is checked before each write.

A receiver that reads one byte at a time would otherwise extend a single long write beyond the
deadline.
"""
_MAX_LOCATION_CHARS = 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one attempt."""

    status: int | None
    """HTTP status of the response; None if there was no response."""
    duration: float
    """Seconds, including the name look-up."""
    excerpt: bytes = field(default=b"", repr=False)
    """Beginning of the response body, at most MAX_EXCERPT_BYTES; arbitrary bytes."""
    retry_after: float | None = None
    """Seconds from the Retry-After header, at most MAX_RETRY_AFTER_SECONDS; None without one."""
    error: str | None = None
    """Reason for the failure, written for the receiver's owner; None after a delivery.

    Contains the host, but never the path or query of the URL.
    """

    @property
    def delivered(self) -> bool:
        """True if the receiver accepted the webhook, that is, if the status is 2xx."""
        return self.status is not None and 200 <= self.status < 300


class Sender:
    """Sends webhooks to addresses that the address guard permits; threads may share a sender.

    The guard is called at each attempt, because the addresses of a name change. The connection is
    made to the addresses that the guard checked, while Host, SNI and the certificate check use the
    name. Redirects are not followed. Cookies, and proxies and passwords from the environment, are
    not used. `tls` is for receivers with private certificates; the default trusts the usual
    certificate authorities.
    """

    def __init__(
        self,
        guard: Guard,
        clock: Clock,
        *,
        timeout: float = TIMEOUT_SECONDS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._guard = guard
        self._clock = clock
        self._retry_after = retry_after.Reader(clock, longest=MAX_RETRY_AFTER_SECONDS)
        self._timeout = timeout
        self._tls = tls

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Sends the body unchanged in one POST and returns the outcome within the timeout.

        Failures of the URL, the name server, the network and the receiver are returned in the
        outcome, not raised. The content type is JSON unless `headers` contain another. Host,
        User-Agent, Content-Length, Accept-Encoding and Connection cannot be overridden.
        """
        began = self._clock.monotonic()
        answer = _Answer()
        where, error = "the URL", None
        try:
            target = self._guard.check(url)
            where = target.origin
            self._exchange(target, headers, body, began + self._timeout, answer)
        except (ForbiddenAddress, NameUnresolved) as refused:
            error = str(refused)
        except httpcore.TimeoutException:
            error = f"{where} sent no complete response within {self._timeout:g} s"
        except httpcore.NetworkError as broken:
            error = f"{where} could not be reached, or the connection broke: {broken}"
        except httpcore.RemoteProtocolError:
            # The library quotes the response, which may echo our request with its secrets.
            error = f"{where} closed the connection without a valid HTTP response"
        # A status is valid even if its body is incomplete.
        if answer.status is not None:
            error = _failure_reason(answer, where)
        return Outcome(
            answer.status,
            self._clock.monotonic() - began,
            bytes(answer.body),
            self._retry_after.read(answer.headers, where),
            error,
        )

    def _exchange(
        self,
        target: Target,
        headers: Mapping[str, str],
        body: bytes,
        deadline: float,
        answer: _Answer,
    ) -> None:
        """Sends the request and stores in `answer` the part of the response that arrives in time.

        Raises the errors of the guard and of httpcore, a timeout among them.
        """

        def seconds_left() -> float:
            seconds = deadline - self._clock.monotonic()
            if seconds <= 0:
                raise httpcore.ReadTimeout("timed out")
            return seconds

        request = _request(target, headers, body)
        answer.request_path = target.path.partition("?")[0]
        stream = _connect(self._guard.resolve(target, seconds_left()), target.port, seconds_left)
        try:
            if target.scheme == "https":
                stream = stream.start_tls(
                    self._tls or _default_tls_context(), target.host, seconds_left()
                )
            connection = httpcore.HTTP11Connection(
                request.url.origin, _Stream(stream, seconds_left)
            )
            answer.read_from(connection.handle_request(request))
        finally:
            stream.close()


class _Answer:
    """The part of a response that was received so far."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.request_path = ""
        """Path of our request. It may be secret, and the location of a redirect may repeat it."""

    def read_from(self, response: httpcore.Response) -> None:
        self.status = response.status
        self.headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in response.headers
        }
        assert isinstance(response.stream, Iterable)
        for piece in response.stream:
            self.body += piece[: MAX_EXCERPT_BYTES - len(self.body)]
            if len(self.body) == MAX_EXCERPT_BYTES:
                return


class _Stream(httpcore.NetworkStream):
    """Stream whose reads and writes all time out at the same deadline, that of the attempt."""

    def __init__(self, stream: httpcore.NetworkStream, seconds_left: Callable[[], float]) -> None:
        self._stream = stream
        self._seconds_left = seconds_left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self._stream.read(max_bytes, self._seconds_left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        for at in range(0, len(buffer), _MAX_WRITE_BYTES):
            self._stream.write(buffer[at : at + _MAX_WRITE_BYTES], self._seconds_left())

    def close(self) -> None:
        self._stream.close()


def _connect(
    addresses: tuple[str, ...], port: int, seconds_left: Callable[[], float]
) -> httpcore.NetworkStream:
    """Returns a connection to the first of the addresses that accepts one.

    Each address gets an equal share of the remaining time, so that one silent address does not use
    up the time of the next addresses. Raises the error of httpcore if the last address fails, too.
    """
    backend = httpcore.SyncBackend()
    *first, last = addresses
    for at, address in enumerate(first):
        try:
            return backend.connect_tcp(address, port, seconds_left() / (len(addresses) - at))
        except (httpcore.ConnectError, httpcore.ConnectTimeout):
            continue
    return backend.connect_tcp(last, port, seconds_left())


def _request(target: Target, headers: Mapping[str, str], body: bytes) -> httpcore.Request:
    ours = {
        "host": target.authority,
        "user-agent": f"exporter-webhooks/{metadata.version('allrows')}",
        "content-length": str(len(body)),
        "accept-encoding": "identity",
        "connection": "close",
    }
    theirs = {name.lower(): value for name, value in headers.items()}
    return httpcore.Request(
        "POST",
        httpcore.URL(
            scheme=target.scheme.encode(),
            host=target.host.encode(),
            port=target.port,
            target=target.path.encode(),
        ),
        headers=list({"content-type": "application/json", **theirs, **ours}.items()),
        content=body,
    )


@lru_cache(maxsize=1)
def _default_tls_context() -> ssl.SSLContext:
    """Returns the default TLS context, cached because reading all certificates is slow."""
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _failure_reason(answer: _Answer, where: str) -> str | None:
    """Returns the reason for which a response with this status is a failure; None for 2xx.

    `where` is the scheme, host and port of the receiver, for the text.
    """
    status = answer.status or 0
    if 200 <= status < 300:
        return None
    if status not in range(300, 400) or "location" not in answer.headers:
        return f"{where} answered {status}, but only 2xx counts as delivered"
    # Query and password of the location may be secret: remove both.
    location = re.split(r"[?#]", answer.headers["location"])[0]
    location = re.sub(r"//[^/\\]*@", "//", location)
    if len(answer.request_path) > 1:
        location = location.replace(answer.request_path, "/(the same path)")
    shown = "".join(c for c in location if c.isprintable())[:_MAX_LOCATION_CHARS]
    return (
        f"{where} answered {status} with a redirect to {shown}; redirects are not followed: "
        "register the final URL instead"
    )
