"""Asking an upstream over HTTP: deadlines, a byte cap, and one table of what to do on a failure."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Any, TypeVar

import httpx
import structlog

from exporter.clock import Clock
from exporter.errors import SourceRefused, SourceUnavailable, SourceUntrue

log = structlog.get_logger()

T = TypeVar("T")

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 20.0
"""Seconds without a single byte."""
TOTAL_TIMEOUT = 60.0
"""Seconds for one page, all its tries together: httpx's own timeouts never end a body that drips,
and a slice that hangs on its upstream hears no cancel and is killed in the end."""
MOST_BYTES = 128 * 1024 * 1024
"""A page larger than this, after decompression, is not a page."""
TRIES = 4
"""Requests per page before the export lets its worker go and waits."""
FIRST_DELAY = 0.25
"""Seconds; doubled at each further try, the wait is drawn from zero up to it."""
LONGEST_DELAY = 2.0
"""Seconds that a worker sleeps on an upstream; a longer wait is a state of the export."""
LONGEST_RETRY_AFTER = 300.0
"""Seconds: upstreams have been seen to ask for days by mistake."""
EXCERPT = 300
"""Characters of the upstream's answer that an error quotes."""


class Reaction(Enum):
    """What to do about an answer that is not the page."""

    ACCEPT = auto()
    RETRY = auto()
    """Ask again soon; when tries run out, let the export wait."""
    GIVE_UP = auto()
    """Asking again cannot help: fail the export with what the upstream said."""


REACTIONS: Mapping[int, Reaction] = {
    200: Reaction.ACCEPT,
    408: Reaction.RETRY,
    421: Reaction.RETRY,
    423: Reaction.RETRY,
    425: Reaction.RETRY,
    429: Reaction.RETRY,
    500: Reaction.RETRY,
    502: Reaction.RETRY,
    503: Reaction.RETRY,
    504: Reaction.RETRY,
    507: Reaction.RETRY,
    509: Reaction.RETRY,
    520: Reaction.RETRY,
    521: Reaction.RETRY,
    522: Reaction.RETRY,
    523: Reaction.RETRY,
    524: Reaction.RETRY,
    529: Reaction.RETRY,
}
"""By status; any other one is GIVE_UP."""

QUOTA_HEADER = "x-billing-code"
QUOTA_SPENT = "limit_exceeded"
"""A 429 with this header at this value says that the plan is used up, not that we are too fast:
waiting is useless until its owner pays (the vendor's official client tells the two apart so)."""


class Upstream:
    """One upstream's connections. Threads may share it."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        clock: Clock,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._clock = clock
        url = httpx.URL(base_url.rstrip("/"))
        self._name = str(url.copy_with(userinfo=b""))
        # Of `Bearer KEY`, the key.
        sent = [value.rpartition(" ")[2] for value in headers.values()]
        self._secrets = [secret for secret in (*sent, url.password) if secret]
        self._client = httpx.Client(
            base_url=url,
            headers={"accept": "application/json", "accept-encoding": "gzip", **headers},
            timeout=httpx.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT),
            transport=transport,
            trust_env=transport is None,
        )

    def ask(
        self,
        method: str,
        path: str,
        read: Callable[[bytes], T],
        *,
        json: Mapping[str, Any] | None = None,
    ) -> T:
        """What `read` makes of the answer's body, after some tries if need be.

        `read` raises SourceUntrue for a body that cannot be what was asked for; then, too, the
        upstream is asked again. Raises SourceRefused, SourceUnavailable, or the last SourceUntrue,
        each with a text that users may read: none quotes a header that we send.
        """
        delay = FIRST_DELAY
        deadline = self._clock.monotonic() + TOTAL_TIMEOUT
        for attempt in range(1, TRIES + 1):
            wait = random.uniform(0, delay)  # noqa: S311 - spreads load, hides nothing
            try:
                return self._once(method, path, read, json, deadline)
            except SourceUnavailable as error:
                wait = max(wait, error.retry_after or 0)
                late = self._clock.monotonic() + wait >= deadline
                if attempt == TRIES or late or (error.retry_after or 0) > LONGEST_DELAY:
                    raise
                reason = str(error)
            except SourceUntrue as error:
                if attempt == TRIES or self._clock.monotonic() + wait >= deadline:
                    raise SourceUntrue(f"{error} (at try {attempt})") from None
                reason = str(error)
            log.warning("source.retry", upstream=self._name, attempt=attempt, reason=reason)
            self._clock.sleep(wait)
            delay = min(delay * 2, LONGEST_DELAY)
        raise AssertionError("unreachable: the last try returns or raises")

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def _once(
        self,
        method: str,
        path: str,
        read: Callable[[bytes], T],
        json: Mapping[str, Any] | None,
        deadline: float,
    ) -> T:
        try:
            with self._client.stream(method, path, json=json) as response:
                body = self._body(response, deadline)
        except httpx.UnsupportedProtocol as error:
            raise SourceRefused(f"{self._name}{path} cannot be asked: {error}") from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            what = str(error) or type(error).__name__
            raise SourceUnavailable(f"{self._name} did not answer: {what}") from None
        reaction = REACTIONS.get(response.status_code, Reaction.GIVE_UP)
        if reaction is Reaction.ACCEPT:
            try:
                return read(body)
            except SourceUntrue as error:
                kind = response.headers.get("content-type", "no content type")
                raise SourceUntrue(
                    f"{self._name}{path} answered 200 ({kind}) with {error}; "
                    f"it began: {self._excerpt(body)}"
                ) from None
        said = f"{self._name}{path} answered {response.status_code}: {self._excerpt(body)}"
        if response.status_code in range(300, 400):
            target = self._excerpt(response.headers.get("location", "").encode())
            said += f" (redirect to {target}: mend base_url)"
        spent = response.status_code == 429 and response.headers.get(QUOTA_HEADER) == QUOTA_SPENT
        if reaction is Reaction.GIVE_UP or spent:
            raise SourceRefused(said)
        raise SourceUnavailable(
            said, retry_after=retry_after(response.headers.get("retry-after"), self._clock.now())
        )

    def _body(self, response: httpx.Response, deadline: float) -> bytes:
        """The decoded body. The deadline and the cap hold whatever the upstream sends."""
        chunks: list[bytes] = []
        size = 0
        for chunk in response.iter_bytes():
            size += len(chunk)
            if size > MOST_BYTES:
                raise SourceRefused(
                    f"{self._name} sent more than {MOST_BYTES} bytes for one page: lower page_size"
                )
            if self._clock.monotonic() > deadline:
                raise SourceUnavailable(
                    f"{self._name} did not finish within {TOTAL_TIMEOUT:.0f} s: {size} bytes came"
                )
            chunks.append(chunk)
        return b"".join(chunks)

    def _excerpt(self, body: bytes) -> str:
        """How an answer begins, on one printable line; upstreams were seen to echo the key."""
        text = body[: EXCERPT * 4].decode("utf-8", "replace")
        for secret in self._secrets:
            text = text.replace(secret, "(the API key)")
        shown = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        if not shown:
            return "(an empty body)" if not body else "(nothing that can be shown)"
        return shown[:EXCERPT] + ("…" if len(shown) > EXCERPT else "")


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds to wait, from seconds or an HTTP date; a past one is 0, nonsense is None.

    >>> retry_after("120", datetime(2026, 1, 1, tzinfo=UTC))
    120.0
    >>> retry_after("Thu, 01 Jan 2026 00:00:07 GMT", datetime(2026, 1, 1, tzinfo=UTC))
    7.0
    >>> retry_after("soon", datetime(2026, 1, 1, tzinfo=UTC))
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text)
    else:
        try:
            date = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        seconds = (date - now).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
