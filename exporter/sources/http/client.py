"""Asking an upstream over HTTP: deadlines, a byte cap, and one table of what to do on a failure."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Callable, Mapping
from contextlib import closing
from enum import Enum, auto
from functools import lru_cache
from importlib import metadata
from itertools import count
from typing import Any, TypeVar

import httpx
import structlog

from exporter.clock import Clock
from exporter.core import retry_after
from exporter.core.rates import MAX_SLEEP_SECONDS, UNLIMITED, Budget
from exporter.errors import (
    PageTooLarge,
    SourceError,
    SourceRefused,
    SourceUnavailable,
    SourceUntrue,
    StoreUnavailable,
)
from exporter.sources.http.quoting import Redactor
from exporter.sources.http.transport import DeadlineTransport, unpacked

log = structlog.get_logger()

T = TypeVar("T")

CONNECT_TIMEOUT_SECONDS = 5.0
READ_TIMEOUT_SECONDS = 20.0
"""Seconds without a single byte: the longest that one request holds a worker for an upstream
that says nothing. A worker that shuts down hears of it between two pages only."""
PAGE_TIMEOUT_SECONDS = 60.0
"""Seconds for one page, all its tries and sizes together."""
MAX_PAGE_BYTES = 128 * 1024 * 1024
"""A page larger than this, after decompression, is not a page."""
MAX_REFUSAL_BYTES = 64 * 1024
"""Bytes read of an answer that is no page: enough to quote it."""
MAX_TRIES = 4
"""Requests per page and size before the export lets its worker go and waits."""
FIRST_RETRY_SECONDS = 0.25
"""Seconds; doubled at each further try, the wait is drawn from zero up to it."""
MAX_RETRY_AFTER_SECONDS = 300.0
"""Seconds: upstreams have been seen to ask for days by mistake."""


_url = lru_cache(maxsize=64)(httpx.URL)
"""Most sources ask the same address for page after page."""


class TooManyBytes(Exception):
    """A page is larger than MOST_BYTES."""


class Reaction(Enum):
    """What to do about an answer that is not the page.

    To ask again is to ask soon, or when the upstream's Retry-After says; if that is long, or the
    tries run out, the export waits without a worker.
    """

    ACCEPT = auto()
    RETRY = auto()
    """Ask again."""
    SLOW_DOWN = auto()
    """Ask again, and let all workers of this source wait as long as it asks."""
    SMALLER_OR_RETRY = auto()
    """It may have been too much at once: ask for less, or again if there is no less."""
    RETRY_THEN_SMALLER = auto()
    """Ask again; if it fails each time, ask for less, once."""
    SMALLER = auto()
    """It is too much at once: ask for less, or give up if there is no less."""
    GIVE_UP = auto()
    """Asking again cannot help: fail the export with what the upstream said."""
    SPENT = auto()
    """Waiting is useless until somebody pays: fail the export."""


QUOTA_HEADER = "x-billing-code"
QUOTA_SPENT = "limit_exceeded"
"""A 429 with this header at this value says that the plan is used up, not that we are too fast
(the vendor's official client tells the two apart so)."""

REACTIONS: Mapping[int | tuple[int, str] | type[Exception], Reaction] = {
    200: Reaction.ACCEPT,
    408: Reaction.RETRY,
    413: Reaction.SMALLER,
    421: Reaction.RETRY,
    423: Reaction.RETRY,
    425: Reaction.RETRY,
    429: Reaction.SLOW_DOWN,
    (429, QUOTA_SPENT): Reaction.SPENT,
    # Also what some upstreams answer when a query takes them too long; but mostly it passes by
    # itself, and a page once made smaller stays small to the end of the export.
    500: Reaction.RETRY_THEN_SMALLER,
    502: Reaction.RETRY,
    503: Reaction.RETRY,
    504: Reaction.SMALLER_OR_RETRY,
    507: Reaction.RETRY,
    509: Reaction.RETRY,
    520: Reaction.RETRY,
    521: Reaction.RETRY,
    522: Reaction.RETRY,
    523: Reaction.RETRY,
    524: Reaction.SMALLER_OR_RETRY,
    529: Reaction.RETRY,
    # Connections that fail or break, and answers that are no HTTP.
    httpx.TransportError: Reaction.RETRY,
    # Silence for READ_TIMEOUT, or an answer that does not end in time.
    httpx.ReadTimeout: Reaction.SMALLER_OR_RETRY,
    httpx.UnsupportedProtocol: Reaction.GIVE_UP,
    # A key with a line break in it, for instance.
    httpx.LocalProtocolError: Reaction.GIVE_UP,
    httpx.DecodingError: Reaction.RETRY,
    TooManyBytes: Reaction.SMALLER,
    SourceUntrue: Reaction.RETRY,
}
"""By status, status and billing code, or error; an error without a row has that of its base, a
status without one is GIVE_UP."""

_FINAL = (Reaction.GIVE_UP, Reaction.SPENT, Reaction.SMALLER)
_SMALLER_AT_ONCE = (Reaction.SMALLER, Reaction.SMALLER_OR_RETRY)


class Upstream:
    """One upstream's connections. Threads may share it."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        clock: Clock,
        *,
        budget: Budget = UNLIMITED,
        timeout: float = PAGE_TIMEOUT_SECONDS,
    ) -> None:
        self._clock = clock
        self._budget = budget
        self._timeout = timeout
        url = httpx.URL(base_url.rstrip("/"))
        self._name = str(url.copy_with(userinfo=b""))
        signed = f"{url.username}:{url.password}" if url.password else ""
        # Of `Bearer KEY`, also the key.
        sent = [form for value in headers.values() for form in (value, value.rpartition(" ")[2])]
        self._redactor = Redactor([*sent, url.password, signed])
        self._headers = httpx.Headers(
            {
                "user-agent": f"exporter/{metadata.version('exporter')}",
                "accept": "application/json",
                "accept-encoding": "gzip",
                **headers,
            }
        )
        if url.userinfo:
            token = base64.b64encode(f"{url.username}:{url.password}".encode()).decode()
            self._headers["authorization"] = f"Basic {token}"
        self._transport = DeadlineTransport(url)
        timeouts = httpx.Timeout(READ_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS)
        self._extensions = {"timeout": timeouts.as_dict()}

    def deadline(self) -> float:
        """When a page asked for now must be there, on the clock's monotonic time."""
        return self._clock.monotonic() + self._timeout

    def request(
        self,
        method: str,
        path: str,
        read: Callable[[bytes], T],
        *,
        json: Mapping[str, Any] | None = None,
        deadline: float | None = None,
        can_shrink: bool = False,
    ) -> T:
        """What `read` makes of the answer's body, after some tries if need be.

        As `request_with_headers`, where the headers say nothing that matters.
        """
        return self.request_with_headers(
            method,
            path,
            lambda body, _: read(body),
            json=json,
            deadline=deadline,
            can_shrink=can_shrink,
        )

    def request_with_headers(
        self,
        method: str,
        path: str,
        read: Callable[[bytes, Mapping[str, str]], T],
        *,
        json: Mapping[str, Any] | None = None,
        deadline: float | None = None,
        can_shrink: bool = False,
    ) -> T:
        """What `read` makes of the answer's body and headers, after some tries if need be.

        `read` raises SourceUntrue for a body that cannot be what was asked for; then, too, the
        upstream is asked again. Raises SourceRefused, SourceUnavailable, or the last SourceUntrue,
        each with a text that users may read: none quotes a header that we send. All ends at the
        deadline, by default that of a page asked for now.

        Whoever `can_shrink` a page must catch PageTooLarge and ask for less by the same deadline;
        each request has half of the time that is left then.
        """
        deadline = self.deadline() if deadline is None else deadline
        delay = FIRST_RETRY_SECONDS
        error: SourceError | None = None
        for attempt in count(1):
            self._wait_for_budget(error)
            now = self._clock.monotonic()
            share = (deadline - now) / 2 if can_shrink else deadline - now
            try:
                return self._once(method, path, read, json, now + share)
            except _Failed as failed:
                error, reaction, asked = failed.error, failed.reaction, failed.wait or 0.0
            if can_shrink and reaction in _SMALLER_AT_ONCE:
                raise PageTooLarge(str(error))
            if reaction in _FINAL:
                raise error
            if asked and reaction is Reaction.SLOW_DOWN:
                self._pause_all_workers(asked)
            wait = max(random.uniform(0, delay), asked)  # noqa: S311 - spreads load
            late = self._clock.monotonic() + wait >= deadline
            if late or asked > MAX_SLEEP_SECONDS or attempt == MAX_TRIES:
                if isinstance(error, SourceUntrue):
                    raise SourceUntrue(f"{error} (at try {attempt})")
                if can_shrink and attempt == MAX_TRIES and reaction is Reaction.RETRY_THEN_SMALLER:
                    raise PageTooLarge(str(error), guess=True)
                raise error
            log.warning("source.retry", upstream=self._name, attempt=attempt, reason=str(error))
            self._clock.sleep(wait)
            delay = min(delay * 2, MAX_SLEEP_SECONDS)
        raise AssertionError("unreachable: count never ends")

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def _wait_for_budget(self, failure: SourceError | None) -> None:
        """Sleep until the budget lets a request start. Raises SourceUnavailable if that is long,
        which tells the failure because of which the upstream is asked again."""
        try:
            wait = self._budget.reserve()
        except StoreUnavailable as error:
            raise SourceUnavailable(
                f"{self._name} is not asked while its rate budget cannot be read: {error}"
            ) from None
        if wait > MAX_SLEEP_SECONDS:
            before = "" if failure is None else f"; before that: {failure}"
            raise SourceUnavailable(
                f"{self._name} takes no further request for {wait:.1f} s: its rate is used up, or "
                f"it asked for a pause{before}",
                retry_after=wait,
            )
        if wait > 0:
            self._clock.sleep(wait)

    def _pause_all_workers(self, seconds: float) -> None:
        try:
            self._budget.pause_for(seconds)
        except StoreUnavailable as error:
            # The others will hear it from the upstream; this export waits in any case.
            log.warning("source.hold_untold", upstream=self._name, reason=str(error))

    def _once(
        self,
        method: str,
        path: str,
        read: Callable[[bytes, Mapping[str, str]], T],
        json: Mapping[str, Any] | None,
        deadline: float,
    ) -> T:
        """One request. Raises _Failed."""
        seconds = max(deadline - self._clock.monotonic(), 0)
        response: httpx.Response | None = None
        body = _Body()
        # A client of httpx adds a third of a millisecond to each page: cookies, redirects, and
        # addresses merged anew.
        request = httpx.Request(
            method,
            _url(self._name + path),
            headers=self._headers,
            json=json,
            extensions=self._extensions,
        )
        try:
            with (
                self._transport.with_deadline(lambda: deadline - self._clock.monotonic()),
                closing(self._transport.handle_request(request)) as response,
            ):
                _fill(body, response)
            if response.status_code == 200:
                return read(body.whole(), response.headers)
        except (httpx.TransportError, httpx.DecodingError, TooManyBytes, SourceUntrue) as error:
            # Of a failure its status tells more than the end of its text would.
            if response is None or response.status_code == 200:
                what = str(error) or type(error).__name__
                if isinstance(error, httpx.TimeoutException):
                    late = self._clock.monotonic() >= deadline
                    what = f"no whole answer within {seconds:.0f} s" if late else what
                raise _Failed(
                    _reaction(error),
                    self._broken(path, what, response, body.whole()),
                    untrue=isinstance(error, SourceUntrue),
                ) from None
        status, said = response.status_code, response.headers
        reaction = REACTIONS.get((status, said.get(QUOTA_HEADER, ""))) or REACTIONS.get(status)
        failed = _Failed(
            reaction or Reaction.GIVE_UP,
            self._refusal(path, response, body.whole()),
            wait=retry_after.read(
                said.get("retry-after"), self._clock.now(), longest=MAX_RETRY_AFTER_SECONDS
            ),
        )
        failed.error.status = status
        raise failed

    def _broken(self, path: str, what: str, response: httpx.Response | None, body: bytes) -> str:
        """What came instead of a whole page, as far as it came."""
        path = path.partition("?")[0]
        what = self._redactor.excerpt(what.encode())
        if response is None:
            return f"{self._name} did not answer: {what}"
        kind = self._redactor.excerpt(
            response.headers.get("content-type", "no content type").encode()
        )
        return (
            f"{self._name}{path} answered 200 ({kind}) with {what}; "
            f"{len(body)} bytes came, which began: {self._redactor.excerpt(body)}"
        )

    def _refusal(self, path: str, response: httpx.Response, body: bytes) -> str:
        path = path.partition("?")[0]  # a query may hold hundreds of ids
        said = f"{self._name}{path} answered {response.status_code}: {self._redactor.excerpt(body)}"
        if response.status_code in range(300, 400):
            target = self._redactor.excerpt(response.headers.get("location", "").encode())
            said += f" (redirect to {target}: mend base_url)"
        return said


class _Failed(Exception):
    """One request did not give the page."""

    def __init__(
        self, reaction: Reaction, said: str, *, wait: float | None = None, untrue: bool = False
    ) -> None:
        super().__init__(said)
        self.reaction = reaction
        self.wait = wait
        """Seconds that the upstream asked us to wait, if it did."""
        self.error: SourceError
        """What to raise if the upstream is not asked again."""
        if reaction is Reaction.SPENT:
            self.error = SourceRefused(f"{said} (its plan is used up)")
        elif reaction in _FINAL:
            self.error = SourceRefused(said)
        elif untrue:
            self.error = SourceUntrue(said)
        else:
            self.error = SourceUnavailable(said, retry_after=wait)


class _Body:
    """What has come of an answer. One piece, which most pages are, is not copied."""

    def __init__(self) -> None:
        self.size = 0
        self._bytes = io.BytesIO()

    def add(self, piece: bytes) -> None:
        if self.size:
            self._bytes.write(piece)
        else:
            self._bytes = io.BytesIO(piece)  # shares the piece until more is written
            self._bytes.seek(0, io.SEEK_END)
        self.size += len(piece)

    def whole(self) -> bytes:
        return self._bytes.getvalue()


def _fill(body: _Body, response: httpx.Response) -> None:
    """Read the answer; of one that is no page, only the beginning."""
    page = response.status_code == 200
    for piece in unpacked(response):
        body.add(piece)
        if not page and body.size > MAX_REFUSAL_BYTES:
            return
        if body.size > MAX_PAGE_BYTES:
            raise TooManyBytes(f"more than {MAX_PAGE_BYTES} bytes (lower page_size)")


def _reaction(error: Exception) -> Reaction:
    return next(REACTIONS[kind] for kind in type(error).__mro__ if kind in REACTIONS)
