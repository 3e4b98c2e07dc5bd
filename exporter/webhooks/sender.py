"""One try of one webhook: a POST to a checked address, within a total deadline."""

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

TIMEOUT = 20.0
"""Seconds for one try: look-up, connection, TLS, request and answer together."""
MOST_KEPT = 20_000
"""Bytes of an answer that are kept; then the connection is closed."""
LONGEST_RETRY_AFTER = 48 * 3600.0
"""Seconds. No webhook waits longer for its next try, whatever it is told."""
_SLICE = 1024
"""Bytes written at once. The deadline is asked before each: a receiver that reads a byte now and
then would stretch the single wait of a longer write."""
_LONGEST_REASON = 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one try."""

    status: int | None
    """None: no answer came."""
    duration: float
    """Seconds, the look-up of the name included."""
    excerpt: bytes = field(default=b"", repr=False)
    """How the answer's body began, MOST_KEPT bytes at most; as it came, so it may be anything."""
    retry_after: float | None = None
    """Seconds that the receiver asked us to wait, if it did; LONGEST_RETRY_AFTER at most."""
    error: str | None = None
    """Why it is no delivery, for the receiver's owner; None: it is one. Names the host, but never
    the URL's path or query."""

    @property
    def delivered(self) -> bool:
        """Whether the receiver took it: any 2xx, and nothing else."""
        return self.status is not None and 200 <= self.status < 300


class Sender:
    """Sends webhooks to where the guard lets them go. Threads may share it.

    The guard is asked at each try, since names move; the connection is made to the addresses that
    it checked, while Host, SNI and the certificate are those of the name. No redirect is followed;
    cookies, and the environment's proxies and passwords, are not used. `tls` is for receivers with
    certificates of one's own; default: the usual authorities.
    """

    def __init__(
        self,
        guard: Guard,
        clock: Clock,
        *,
        timeout: float = TIMEOUT,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._guard = guard
        self._clock = clock
        self._timeout = timeout
        self._tls = tls

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """POST the body once, as it is, and tell what became of it within the timeout.

        Raises nothing for what URL, name server, network or receiver do: it is in the outcome.
        The body is JSON unless `headers` say otherwise; Host and User-Agent are always ours.
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
            error = f"{where} gave no whole answer within {self._timeout:g} s"
        except httpcore.NetworkError as broken:
            error = f"{where} could not be reached, or broke off: {broken}"
        except httpcore.RemoteProtocolError:
            # The library quotes what came, which may be our own request with its secrets.
            error = f"{where} closed the connection, or answered what is no HTTP"
        # A status counts, however its body ends.
        if answer.status is not None:
            error = _reason(answer, where)
        return Outcome(
            answer.status,
            self._clock.monotonic() - began,
            bytes(answer.body),
            retry_after.read(
                answer.headers.get("retry-after"), self._clock.now(), longest=LONGEST_RETRY_AFTER
            ),
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
        """Fill the answer as far as one comes."""

        def left() -> float:
            seconds = deadline - self._clock.monotonic()
            if seconds <= 0:
                raise httpcore.ReadTimeout("timed out")
            return seconds

        request = _request(target, headers, body)
        answer.own_path = target.path.partition("?")[0]
        stream = _connect(self._guard.resolve(target, left()), target.port, left)
        try:
            if target.scheme == "https":
                stream = stream.start_tls(self._tls or _authorities(), target.host, left())
            connection = httpcore.HTTP11Connection(request.url.origin, _Stream(stream, left))
            answer.read_from(connection.handle_request(request))
        finally:
            stream.close()


class _Answer:
    """What came of an answer so far."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.own_path = ""
        """What was asked for: it may be secret, and redirects repeat it."""

    def read_from(self, response: httpcore.Response) -> None:
        self.status = response.status
        self.headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in response.headers
        }
        assert isinstance(response.stream, Iterable)
        for piece in response.stream:
            self.body += piece[: MOST_KEPT - len(self.body)]
            if len(self.body) == MOST_KEPT:
                return


class _Stream(httpcore.NetworkStream):
    """Asks before each wait how many seconds are left; no other timeouts are set."""

    def __init__(self, stream: httpcore.NetworkStream, left: Callable[[], float]) -> None:
        self._stream = stream
        self._left = left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self._stream.read(max_bytes, self._left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        for at in range(0, len(buffer), _SLICE):
            self._stream.write(buffer[at : at + _SLICE], self._left())

    def close(self) -> None:
        self._stream.close()


def _connect(
    addresses: tuple[str, ...], port: int, left: Callable[[], float]
) -> httpcore.NetworkStream:
    """A connection to the first address that takes one. None may use up the time of the others."""
    backend = httpcore.SyncBackend()
    *first, last = addresses
    for at, address in enumerate(first):
        try:
            return backend.connect_tcp(address, port, left() / (len(addresses) - at))
        except (httpcore.ConnectError, httpcore.ConnectTimeout):
            continue
    return backend.connect_tcp(last, port, left())


def _request(target: Target, headers: Mapping[str, str], body: bytes) -> httpcore.Request:
    ours = {
        "host": target.authority,
        "user-agent": f"exporter-webhooks/{metadata.version('exporter')}",
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
def _authorities() -> ssl.SSLContext:
    """Made once: reading all certificates takes longer than many a request."""
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _reason(answer: _Answer, where: str) -> str | None:
    """Why an answer with this status is no delivery; None: it is one."""
    status = answer.status or 0
    if 200 <= status < 300:
        return None
    if status not in range(300, 400) or "location" not in answer.headers:
        return f"{where} answered {status}, and only 2xx is a delivery"
    # Its query may be secret, so may a password.
    pointed = re.split(r"[?#]", answer.headers["location"])[0]
    pointed = re.sub(r"//[^/\\]*@", "//", pointed)
    if len(answer.own_path) > 1:
        pointed = pointed.replace(answer.own_path, "/(the same path)")
    shown = "".join(c for c in pointed if c.isprintable())[:_LONGEST_REASON]
    return (
        f"{where} answered {status} and pointed to {shown}; redirects are not followed: register "
        "the URL that takes webhooks itself"
    )
