"""An HTTP client for one upstream, with deadlines, a byte limit and one table of retries."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import lru_cache
from importlib import metadata
from itertools import count
from json import JSONEncoder
from typing import Any, TypeVar

import httpx
import structlog

from exporter.clock import Clock
from exporter.core import public_text, rates, retry_after
from exporter.core.rates import MAX_SLEEP_SECONDS, UNLIMITED, Budget
from exporter.errors import (
    REFUSED,
    UNTRUE,
    PageTooLarge,
    SourceError,
    SourceRefused,
    SourceUnavailable,
    SourceUntrue,
    StoreUnavailable,
)
from exporter.sources.http import charsets, reactions
from exporter.sources.http.http1 import Malformed
from exporter.sources.http.quoting import Redactor
from exporter.sources.http.reactions import (
    FINAL,
    QUOTA_HEADER,
    SMALLER_AT_ONCE,
    Reaction,
    TooManyBytes,
)
from exporter.sources.http.transport import DeadlineTransport, unpacked

log = structlog.get_logger()

T = TypeVar("T")

CONNECT_TIMEOUT_SECONDS = 5.0
READ_TIMEOUT_SECONDS = 20.0
"""Time without a received byte after which a request is given up.

A silent upstream blocks a worker for at most that long. A worker notices a shutdown only between
two pages.
"""
PAGE_TIMEOUT_SECONDS = 60.0
"""Time limit for one page, including retries and requests for smaller pages."""
MAX_PAGE_BYTES = 128 * 1024 * 1024
"""Maximum size of a page after decompression; a larger answer is refused."""
MAX_REFUSAL_BYTES = 64 * 1024
"""Number of bytes that are read of an answer without status 200, to quote them in an error."""
MAX_TRIES = 4
"""Number of requests for a page of one size.

If all of them fail, the export waits in phase waiting and occupies no worker.
"""
FIRST_RETRY_SECONDS = 0.25
"""Upper bound of the random wait before the first retry; each retry doubles the bound."""
REMAINING_HEADERS = ("x-ratelimit-remaining", "x-rate-limit-remaining", "ratelimit-remaining")
"""Headers whose value 0 means that a 403 is the answer to too many requests."""
MAX_RETRY_AFTER_SECONDS = 300.0
"""Maximum Retry-After that is obeyed; upstreams have sent values of days by mistake."""


_url = lru_cache(maxsize=64)(httpx.URL)
"""A function that parses a URL; it is cached, because most sources always request the same URL."""
_encode = JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
"""A function that writes JSON as httpx does."""


class Upstream:
    """Sends requests to one upstream, with retries. Thread-safe."""

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
        self._url = str(url.copy_with(userinfo=b""))
        self._host = url.netloc.decode("ascii", "replace")
        signed = f"{url.username}:{url.password}" if url.password else ""
        # For a value such as `Bearer KEY`, the key alone is a secret too.
        sent = [form for value in headers.values() for form in (value, value.rpartition(" ")[2])]
        self._redactor = Redactor([*sent, url.password, signed], url)
        self._retry_after = retry_after.Reader(
            clock, longest=MAX_RETRY_AFTER_SECONDS, redact=self._redactor.redact
        )
        self._has_odd_charset = False
        """Whether a charset that is not known was logged."""
        self._headers = httpx.Headers(
            {
                "user-agent": f"exporter/{metadata.version('allrows')}",
                "accept": "application/json",
                "accept-encoding": "gzip",
                **headers,
            }
        )
        if url.userinfo:
            token = base64.b64encode(f"{url.username}:{url.password}".encode()).decode()
            self._headers["authorization"] = f"Basic {token}"
        self._json_headers = lru_cache(maxsize=64)(self._make_json_headers)
        """A function that returns all headers of a request with a JSON body of that size.

        To let httpx make them for each request takes half of the time of the rest of the request.
        """
        # Without an httpx.Client, whose redirects, cookies and hooks no source uses, but which took
        # a quarter of the processor time of a page request.
        self._transport = DeadlineTransport(url)
        timeouts = httpx.Timeout(READ_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS)
        self._timeouts = timeouts.as_dict()

    def deadline(self) -> float:
        """Returns the monotonic time by which a page requested now must have arrived."""
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
        """Sends a request, with retries, and returns `read(body)` for the body of the answer.

        Does the same as `request_with_headers`, for answers whose headers are not needed.
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
        """Sends a request, with retries, and returns `read(body, headers)` for the answer.

        `read` must raise SourceUntrue for a body that cannot be the requested one; the request is
        then retried too. All tries end at `deadline`, by default that of a page requested now.
        Raises SourceRefused, SourceUnavailable or the last SourceUntrue; their texts are shown to
        users and never contain a header that was sent, nor the upstream's host, path or query.

        With `can_shrink`, this method also raises PageTooLarge, and the caller must then request a
        smaller page with the same deadline. Each request gets only half of the remaining time, so
        that time is left for the smaller page.
        """
        deadline = self.deadline() if deadline is None else deadline
        delay = FIRST_RETRY_SECONDS
        error: SourceError | None = None
        for attempt in count(1):
            rates.acquire(self._budget, self._clock, error)
            now = self._clock.monotonic()
            share = (deadline - now) / 2 if can_shrink else deadline - now
            try:
                return self._once(method, path, read, json, now + share)
            except _Failed as failed:
                error, reaction, asked = failed.error, failed.reaction, failed.wait or 0.0
                error.upstream = error.upstream or self._host
            if can_shrink and reaction in SMALLER_AT_ONCE:
                raise PageTooLarge(str(error))
            if reaction in FINAL:
                raise self._logged(error)
            if asked and reaction is Reaction.SLOW_DOWN:
                self._pause_all_workers(asked)
            wait = max(random.uniform(0, delay), asked)  # noqa: S311 - spreads load
            late = self._clock.monotonic() + wait >= deadline
            if late or asked > MAX_SLEEP_SECONDS or attempt == MAX_TRIES:
                if isinstance(error, SourceUntrue):
                    untrue = SourceUntrue(f"{error} (at try {attempt})")
                    untrue.upstream, untrue.fault = error.upstream, error.fault
                    raise self._logged(untrue)
                if can_shrink and attempt == MAX_TRIES and reaction is Reaction.RETRY_THEN_SMALLER:
                    raise PageTooLarge(str(error), guess=True)
                raise self._logged(error)
            log.warning("source.retry", upstream=self._host, attempt=attempt, reason=str(error))
            self._clock.sleep(wait)
            delay = min(delay * 2, MAX_SLEEP_SECONDS)
        raise AssertionError("unreachable: count never ends")

    def _logged(self, error: SourceError) -> SourceError:
        """Returns the error after logging it with the host, which its text does not name."""
        log.warning("source.failed", upstream=error.upstream, reason=str(error))
        return error

    def close(self) -> None:
        """Closes all connections."""
        self._transport.close()

    def _pause_all_workers(self, seconds: float) -> None:
        try:
            self._budget.pause_for(seconds)
        except StoreUnavailable as error:
            # The other workers get their own 429 from the upstream; this export waits in any case.
            log.warning("source.pause_not_shared", upstream=self._host, reason=str(error))

    def _once(
        self,
        method: str,
        path: str,
        read: Callable[[bytes, Mapping[str, str]], T],
        json: Mapping[str, Any] | None,
        deadline: float,
    ) -> T:
        """Sends one request and returns the result of `read`. Raises _Failed if there is none."""
        seconds = max(deadline - self._clock.monotonic(), 0)
        response: httpx.Response | None = None
        body = _Body()
        request = self._request(method, path, json)
        request.extensions = {
            "timeout": self._timeouts,
            "left": lambda: deadline - self._clock.monotonic(),
        }
        sent_at = self._clock.monotonic()
        try:
            with closing(self._transport.handle_request(request)) as response:
                _fill(body, response)
            self._budget.record(self._clock.monotonic() - sent_at, response.status_code)
            if response.status_code == 200:
                return read(self._in_utf8(body.whole(), response), response.headers)
        except (httpx.TransportError, httpx.DecodingError, TooManyBytes, SourceUntrue) as error:
            if not isinstance(error, SourceUntrue):
                self._budget.record(self._clock.monotonic() - sent_at, None)
            # With another status than 200, the status says more than the broken body.
            if response is None or response.status_code == 200:
                what = str(error) or type(error).__name__
                if isinstance(error, httpx.TimeoutException):
                    late = self._clock.monotonic() >= deadline
                    what = f"no whole answer within {seconds:.0f} s" if late else what
                wait = None if response is None else self._requested_wait(response)
                broken = _Failed(
                    reactions.to_error(error),
                    self._broken(path, what, response, body.whole()),
                    wait=wait,
                    untrue=isinstance(error, SourceUntrue),
                )
                if wait is None:
                    broken.error.fault = _fault(error, response, body.size)
                if isinstance(error, httpx.TransportError):
                    # The operator needs the hosts in it, such as that of a proxy.
                    cause = self._redactor.redact(public_text.with_hosts_only(what))
                    broken.error.upstream = f"{self._host}: {cause}"
                raise broken from None
        status, said = response.status_code, response.headers
        wait = self._requested_wait(response)
        reaction = reactions.to_status(status, said.get(QUOTA_HEADER, ""), wait)
        failed = _Failed(reaction, self._refusal(path, response, body.whole()), wait=wait)
        failed.error.status = status
        if reaction is not Reaction.SPENT and reaction in FINAL:
            failed.error.fault = REFUSED
        if status in range(300, 400):
            target = _host_of(said.get("location", "")) or self._host
            failed.error.upstream = f"{self._host}, which redirects to {target}: correct base_url"
        raise failed

    def _request(self, method: str, path: str, json: Mapping[str, Any] | None) -> httpx.Request:
        url = _url(self._url + path)
        if json is None:
            return httpx.Request(method, url, headers=self._headers)
        body = _encode(json).encode()
        headers = self._json_headers(len(body))
        return httpx.Request(method, url, headers=headers, stream=httpx.ByteStream(body))

    def _make_json_headers(self, size: int) -> httpx.Headers:
        headers = httpx.Request("POST", self._url, headers=self._headers, json={}).headers
        headers["Content-Length"] = str(size)
        return headers

    def _in_utf8(self, body: bytes, response: httpx.Response) -> bytes:
        """Returns the body in UTF-8; logs the first charset that makes this impossible."""
        try:
            return charsets.to_utf8(body, response.headers.get("content-type", ""))
        except charsets.UnknownCharset as error:
            if not self._has_odd_charset:
                self._has_odd_charset = True
                charset = self._redactor.excerpt(str(error).encode())
                log.warning("source.charset_unknown", upstream=self._host, charset=charset)
            return body

    def _requested_wait(self, response: httpx.Response) -> float | None:
        """Returns the seconds for which the upstream asks for a pause; None if it does not ask."""
        seconds = self._retry_after.read(response.headers, self._host)
        if seconds is not None or response.status_code not in (403, 429):
            return seconds
        none_left = any(response.headers.get(name, "").strip() == "0" for name in REMAINING_HEADERS)
        if none_left or response.status_code == 429:
            seconds = self._retry_after.until_reset(response.headers)
        return 0.0 if seconds is None and none_left else seconds

    def _broken(self, path: str, what: str, response: httpx.Response | None, body: bytes) -> str:
        """Returns the error text for a request without an answer, or with an unusable body."""
        what = self._redactor.excerpt(what.encode(), path)
        if response is None:
            return f"the source did not answer: {what}"
        kind = self._redactor.excerpt(
            response.headers.get("content-type", "no content type").encode(), path
        )
        coding = response.headers.get("content-encoding", "")
        if coding:
            what += f" (content-encoding: {self._redactor.excerpt(coding.encode(), path)})"
        return (
            f"the source answered 200 ({kind}) with {what}; "
            f"{len(body)} bytes were received, beginning with: {self._redactor.excerpt(body, path)}"
        )

    def _refusal(self, path: str, response: httpx.Response, body: bytes) -> str:
        excerpt = self._redactor.excerpt(body, path)
        said = f"the source answered {response.status_code}: {excerpt}"
        if response.status_code in range(300, 400):
            said += " (a redirect, which is not followed)"
        return said


class _Failed(Exception):
    """Error of one request: the upstream did not return the page."""

    def __init__(
        self, reaction: Reaction, said: str, *, wait: float | None = None, untrue: bool = False
    ) -> None:
        super().__init__(said)
        self.reaction = reaction
        self.wait = wait
        """Seconds for which the upstream asks for a pause; None if it does not ask."""
        self.error: SourceError
        """The error to raise if the request is not retried."""
        if reaction is Reaction.SPENT:
            self.error = SourceRefused(f"{said} (its plan is used up)")
        elif reaction in FINAL:
            self.error = SourceRefused(said)
        elif untrue and wait is None:
            self.error = SourceUntrue(said)
        else:
            self.error = SourceUnavailable(said, retry_after=wait)


class _Body:
    """Collects the body of an answer; a body of one piece, the usual case, is not copied."""

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
    """Reads the body of the answer into `body`.

    Of an answer without status 200, only about MAX_REFUSAL_BYTES are read. Raises TooManyBytes for
    a page of more than MAX_PAGE_BYTES.
    """
    page = response.status_code == 200
    for piece in unpacked(response):
        body.add(piece)
        if not page and body.size > MAX_REFUSAL_BYTES:
            return
        if body.size > MAX_PAGE_BYTES:
            raise TooManyBytes(f"more than {MAX_PAGE_BYTES} bytes (lower page_size)")


def _fault(error: Exception, response: httpx.Response | None, received: int) -> str | None:
    """Returns the fault of an answer with status 200, or of something else than an answer.

    A connection that breaks is not the fault of an answer. A body that is cut off may be one: if it
    is cut off at the same byte each time.
    """
    if isinstance(error, SourceUntrue | httpx.DecodingError | Malformed):
        return UNTRUE
    if response is not None and isinstance(error, httpx.RemoteProtocolError):
        return f"ended after {received} bytes"
    return None


def _host_of(location: str) -> str:
    """Returns the host of a redirect; an empty text for a relative or invalid one."""
    try:
        return httpx.URL(location).host
    except httpx.InvalidURL:
        return ""
