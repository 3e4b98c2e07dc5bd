"""The blocking client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack, cast

import httpx

from exporter.client import calls, events, files, listening, operations, steps
from exporter.client.errors import ConnectionFailed
from exporter.client.files import Count
from exporter.client.models import (
    Activity,
    Delivery,
    Export,
    FirstRows,
    Listener,
    Preview,
    Source,
    TakenWebhook,
)
from exporter.client.operations import ExportOptions, Watch
from exporter.client.steps import Emit, Reply, Request, Sleep, Steps

Value = TypeVar("Value")
Connect = Callable[[str], httpx.Client]
"""Makes the HTTP client for requests to a URL; it is called once for each host."""

TIMEOUT = httpx.Timeout(60, connect=5)


class Exporter:
    """Exports of one API key; threads may share it.

    Errors are those of `exporter.client.errors`; a request is tried again where that is safe. The
    package begins with an example.
    """

    def __init__(
        self, url: str, api_key: str, *, max_retries: int = 2, connect: Connect | None = None
    ) -> None:
        """Stores the address of the service; nothing is sent yet.

        `connect` makes the HTTP client of a host, for proxies or certificates of one's own. Raises
        ValueError for a malformed URL or key.
        """
        self._service = calls.service(url, api_key, max_retries)
        self._connect = connect or (lambda _: httpx.Client(timeout=TIMEOUT))
        self._clients: dict[str, httpx.Client] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes all connections."""
        while self._clients:
            self._clients.popitem()[1].close()

    def create(
        self,
        source: str,
        query: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[ExportOptions],
    ) -> Export:
        """Creates one export, however many tries that takes, and returns it.

        Without `idempotency_key` a new one is made; with one of yours, a second call returns the
        export of the first.
        """
        return self._run(operations.create(self._service, source, query, options, idempotency_key))

    def get(self, export_id: str) -> Export:
        """Returns an export, with a download link signed now if it is finished."""
        return self._run(operations.get(self._service, export_id))

    def list(self, *, page_size: int = 100, **filters: Any) -> Iterator[Export]:
        """Yields the exports of the key's user, newest first; asks for a page when it is needed.

        `filters` are query parameters of `GET /v1/exports`.
        """
        return self._iterate(operations.list_(self._service, page_size, filters))

    def wait(
        self, export_id: str, *, timeout: float | None = None, watch: Watch | None = None
    ) -> Export:
        """Returns the export when it has ended, in whatever state.

        `watch` is called with each record on the way. Raises WaitExpired after `timeout` seconds.
        """
        return self._run(operations.wait(self._service, export_id, timeout, watch))

    def download(self, export: Export | str, path: Path, *, count: Count | None = None) -> Path:
        """Downloads the file of a finished export to `path`, whole or not at all.

        Goes on where an earlier call has stopped. `count` is called with the number of bytes that
        are there. Raises ExportFailed and DownloadFailed.
        """
        return self._run(files.download(self._service, export, path, count))

    def read(self, export: Export | str) -> Iterator[bytes]:
        """Yields the bytes of a finished file; raises DownloadFailed if they end too soon."""
        return self._iterate(files.read_bytes(self._service, export))

    def rows(self, export: Export | str) -> Iterator[dict[str, Any]]:
        """Yields each row of a finished CSV or JSON Lines file, without storing the file."""
        return self._iterate(files.rows(self._service, export))

    def first_rows(self, export_id: str) -> FirstRows:
        """Returns the first 100 rows of an export, also while it runs; 256 KB at most.

        Raises Conflict while no rows are stored, and after they were deleted.
        """
        return self._run(files.first_rows(self._service, export_id))

    def cancel(self, export_id: str) -> Export:
        """Cancels an export: at once if it is queued, before its next page if it is processed."""
        return self._run(operations.act(self._service, export_id, "cancel"))

    def retry(self, export_id: str, *, idempotency_key: str | None = None) -> Export:
        """Creates a new export with the request of one that failed or was canceled."""
        return self._run(operations.act(self._service, export_id, "retry", idempotency_key))

    def delete(self, export_id: str) -> None:
        """Deletes an export with its file."""
        self._run(operations.delete(self._service, export_id))

    def events(self, export_id: str | None = None, **filters: Any) -> Iterator[Export]:
        """Yields an export now and after each of its changes, until its end.

        Without an id: those of the key's user that have not ended, and then each that changes, for
        ever; `filters` are query parameters of `GET /v1/events`. A lost connection is opened again.
        Raises NotFound if the export is deleted.
        """
        if export_id is None:
            return self._iterate(events.of_user(self._service, filters))
        return self._iterate(events.of_export(self._service, export_id))

    def activity(self, export_id: str) -> Sequence[Activity]:
        """Returns what happened to an export and who did it, oldest first."""
        return self._run(operations.activity(self._service, export_id))

    def sources(self) -> Sequence[Source]:
        """Returns the sources of the service, without their filters and columns."""
        return self._run(operations.sources(self._service))

    def source(self, name: str) -> Source:
        """Returns a source with its filters and columns."""
        return self._run(operations.source(self._service, name))

    def preview(self, source: str, query: Mapping[str, Any] | None = None) -> Preview:
        """Returns the first rows that an export of this query would have now. Free."""
        return self._run(operations.preview(self._service, source, query))

    def create_listener(
        self, *, events: Sequence[str] | None = None, ttl: int = 60, description: str = ""
    ) -> Listener:
        """Creates an endpoint whose webhooks are taken; by default of all events but progress."""
        return self._run(listening.create(self._service, events, ttl, description))

    def take_webhook(self, listener_id: str, *, wait: int = 30) -> TakenWebhook | None:
        """Returns the due webhook of a listener, None after so many seconds without one.

        It is tried once: raises ConnectionFailed and ServerFailed while the service restarts, and
        NotFound when the time of the listener is over.
        """
        return self._run(listening.take(self._service, listener_id, wait))

    def acknowledge(
        self,
        taken: TakenWebhook,
        status: int | None,
        *,
        ms: float = 0,
        excerpt: str = "",
        error: str = "",
        retry_after: float | None = None,
    ) -> Delivery:
        """Reports what the receiver of a taken webhook answered; None: it did not answer.

        Any status but 2xx is a failed attempt, which is repeated later. Raises Conflict if the
        report comes too late.
        """
        texts = excerpt, error
        return self._run(
            listening.acknowledge(self._service, taken, status, ms, texts, retry_after)
        )

    def delete_listener(self, listener_id: str) -> None:
        """Deletes a listener with the webhooks that wait for it."""
        self._run(listening.delete(self._service, listener_id))

    def _run(self, work: Steps[Value]) -> Value:
        ran = _Performer(self._http).perform(work)
        while True:
            try:
                next(ran)
            except StopIteration as ended:
                return cast("Value", ended.value)

    def _iterate(self, work: Steps[None]) -> Iterator[Any]:
        yield from _Performer(self._http).perform(work)

    def _http(self, url: str) -> httpx.Client:
        host = url.split("?", 1)[0].split("/")[2]
        with self._lock:
            if host not in self._clients:
                self._clients[host] = self._connect(url)
            return self._clients[host]


class _Performer:
    """Performs the steps of one operation."""

    def __init__(self, http: Connect) -> None:
        self._http = http
        self._opened: httpx.Response | None = None
        self._body: Iterator[bytes] = iter(())

    def perform(self, work: Steps[Any]) -> Generator[Any, None, Any]:
        """Yields what the operation emits; the generator returns what the operation returns."""
        try:
            step = next(work)
            while True:
                if isinstance(step, Emit):
                    yield step.value
                    step = work.send(None)
                    continue
                try:
                    result = self._do(step)
                except httpx.RequestError as error:
                    step = work.throw(connection_failed(error))
                else:
                    step = work.send(result)
        except StopIteration as ended:
            return ended.value
        finally:
            work.close()
            self._close()

    def _do(self, step: steps.Step) -> Any:
        if isinstance(step, Sleep):
            time.sleep(step.seconds)
            return None
        if isinstance(step, steps.Read):
            return next(self._body, b"")
        assert not isinstance(step, Emit)
        self._close()
        http = self._http(step.request.url)
        response = http.send(made(http, step.request), stream=True)
        if isinstance(step, steps.Open):
            self._opened, self._body = response, response.iter_raw()
            return reply(response)
        try:
            return reply(response, response.read())
        finally:
            response.close()

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None


def made(http: httpx.Client | httpx.AsyncClient, request: Request) -> httpx.Request:
    """Returns the request as httpx sends it."""
    return http.build_request(
        request.method, request.url, headers=dict(request.headers), content=request.body
    )


def reply(response: httpx.Response, body: bytes = b"") -> Reply:
    """Returns the answer in the form of the operations."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Reply(response.status_code, headers, body)


def connection_failed(error: httpx.RequestError) -> ConnectionFailed:
    """Returns the error of the client for one of httpx."""
    place = error.request.url
    host = f"{place.scheme}://{place.netloc.decode()}"
    return ConnectionFailed(host, str(error) or type(error).__name__)
