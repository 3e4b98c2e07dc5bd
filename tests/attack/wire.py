"""Sends requests that no well-behaved client sends, and measures the answers."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 20


class Answer(NamedTuple):
    """The answer to one request."""

    status: int
    headers: list[tuple[str, str]]
    text: str
    seconds: float

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")

    def json(self) -> Any:
        return json.loads(self.text)


class Wire:
    """A connection to the service that is opened again after the service closed it."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self.host, self.port = place.hostname or "", place.port or 80
        self._connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def ask(
        self,
        method: str,
        path: str,
        *,
        key: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
    ) -> Answer:
        """Sends the request as it is; a header may occur twice."""
        started = time.monotonic()
        try:
            found = self._send(method, path, key, headers, body)
        except (http.client.RemoteDisconnected, ConnectionError):
            # A kept connection may have been closed meanwhile; a second refusal is an answer.
            self._connection.close()
            started = time.monotonic()
            found = self._send(method, path, key, headers, body)
        is_stream = (found.getheader("Content-Type") or "").startswith("text/event-stream")
        # A stream of events has no end: its first piece is the answer.
        text = (found.read1() if is_stream else found.read()).decode("utf-8", "replace")
        if found.will_close or is_stream:
            self._connection.close()
        return Answer(found.status, found.getheaders(), text, time.monotonic() - started)

    def _send(
        self,
        method: str,
        path: str,
        key: str | None,
        headers: Iterable[tuple[str, str]],
        body: bytes | None,
    ) -> http.client.HTTPResponse:
        connection = self._connection
        connection.putrequest(method, path)
        if key is not None:
            connection.putheader("X-API-Key", key)
        for name, value in headers:
            connection.putheader(name, value.encode("utf-8"))
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        try:
            connection.endheaders(body)
        except (BrokenPipeError, ConnectionResetError):
            # The service may answer before it has read all of a body that is too large.
            with contextlib.suppress(OSError):
                return connection.getresponse()
            raise
        return connection.getresponse()
