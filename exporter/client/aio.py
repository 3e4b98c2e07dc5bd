"""The asynchronous client: the same operations, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack

import httpx

from exporter.client import calls, events, files, listening, operations, steps
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
from exporter.client.steps import Emit, Sleep, Steps
from exporter.client.sync import TIMEOUT, connection_failed, made, reply

Value = TypeVar("Value")
Connect = Callable[[str], httpx.AsyncClient]
"""Makes the HTTP client for requests to a URL; it is called once for each host."""


class AsyncExporter:
    """Exports of one API key, for one event loop of asyncio; see `Exporter` for the methods."""

    def __init__(
        self, url: str, api_key: str, *, max_retries: int = 2, connect: Connect | None = None
    ) -> None:
        """Stores the address of the service; nothing is sent yet. See `Exporter`."""
        self._service = calls.service(url, api_key, max_retries)
        self._connect = connect or (lambda _: httpx.AsyncClient(timeout=TIMEOUT))
        self._clients: dict[str, httpx.AsyncClient] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes all connections."""
        while self._clients:
            await self._clients.popitem()[1].aclose()

    async def create(
        self,
        source: str,
        query: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[ExportOptions],
    ) -> Export:
        """Creates one export, however many tries that takes, and returns it."""
        return await self._run(
            operations.create(self._service, source, query, options, idempotency_key)
        )

    async def get(self, export_id: str) -> Export:
        """Returns an export, with a download link signed now if it is finished."""
        return await self._run(operations.get(self._service, export_id))

    def list(self, *, page_size: int = 100, **filters: Any) -> AsyncIterator[Export]:
        """Yields the exports of the key's user, newest first."""
        return self._iterate(operations.list_(self._service, page_size, filters))

    async def wait(
        self, export_id: str, *, timeout: float | None = None, watch: Watch | None = None
    ) -> Export:
        """Returns the export when it has ended, in whatever state."""
        return await self._run(operations.wait(self._service, export_id, timeout, watch))

    async def download(
        self, export: Export | str, path: Path, *, count: Count | None = None
    ) -> Path:
        """Downloads the file of a finished export to `path`, whole or not at all."""
        return await self._run(files.download(self._service, export, path, count))

    def read(self, export: Export | str) -> AsyncIterator[bytes]:
        """Yields the bytes of a finished file; raises DownloadFailed if they end too soon."""
        return self._iterate(files.read_bytes(self._service, export))

    def rows(self, export: Export | str) -> AsyncIterator[dict[str, Any]]:
        """Yields each row of a finished CSV or JSON Lines file, without storing the file."""
        return self._iterate(files.rows(self._service, export))

    async def first_rows(self, export_id: str) -> FirstRows:
        """Returns the first 100 rows of an export, also while it runs; 256 KB at most.

        Raises Conflict while no rows are stored, and after they were deleted.
        """
        return await self._run(files.first_rows(self._service, export_id))

    async def cancel(self, export_id: str) -> Export:
        """Cancels an export: at once if it is queued, before its next page if it is processed."""
        return await self._run(operations.act(self._service, export_id, "cancel"))

    async def retry(self, export_id: str, *, idempotency_key: str | None = None) -> Export:
        """Creates a new export with the request of one that failed or was canceled."""
        return await self._run(operations.act(self._service, export_id, "retry", idempotency_key))

    async def delete(self, export_id: str) -> None:
        """Deletes an export with its file."""
        await self._run(operations.delete(self._service, export_id))

    def events(self, export_id: str | None = None, **filters: Any) -> AsyncIterator[Export]:
        """Yields an export now and after each of its changes, until its end.

        Without an id: those of the key's user that have not ended, and then each that changes, for
        ever; `filters` are query parameters of `GET /v1/events`. A lost connection is opened again.
        Raises NotFound if the export is deleted.
        """
        if export_id is None:
            return self._iterate(events.of_user(self._service, filters))
        return self._iterate(events.of_export(self._service, export_id))

    async def activity(self, export_id: str) -> Sequence[Activity]:
        """Returns what happened to an export and who did it, oldest first."""
        return await self._run(operations.activity(self._service, export_id))

    async def sources(self) -> Sequence[Source]:
        """Returns the sources of the service, without their filters and columns."""
        return await self._run(operations.sources(self._service))

    async def source(self, name: str) -> Source:
        """Returns a source with its filters and columns."""
        return await self._run(operations.source(self._service, name))

    async def preview(self, source: str, query: Mapping[str, Any] | None = None) -> Preview:
        """Returns the first rows that an export of this query would have now. Free."""
        return await self._run(operations.preview(self._service, source, query))

    async def create_listener(
        self, *, events: Sequence[str] | None = None, ttl: int = 60, description: str = ""
    ) -> Listener:
        """Creates an endpoint whose webhooks are taken; by default of all events but progress."""
        return await self._run(listening.create(self._service, events, ttl, description))

    async def take_webhook(self, listener_id: str, *, wait: int = 30) -> TakenWebhook | None:
        """Returns the due webhook of a listener, None after so many seconds without one.

        It is tried once: raises ConnectionFailed and ServerFailed while the service restarts, and
        NotFound when the time of the listener is over.
        """
        return await self._run(listening.take(self._service, listener_id, wait))

    async def acknowledge(
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
        return await self._run(
            listening.acknowledge(self._service, taken, status, ms, texts, retry_after)
        )

    async def delete_listener(self, listener_id: str) -> None:
        """Deletes a listener with the webhooks that wait for it."""
        await self._run(listening.delete(self._service, listener_id))

    async def _run(self, work: Steps[Value]) -> Value:
        performer = _Performer(self._http)
        async for _ in performer.perform(work):
            pass
        return performer.result  # type: ignore[no-any-return]

    def _iterate(self, work: Steps[None]) -> AsyncIterator[Any]:
        return _Performer(self._http).perform(work)

    def _http(self, url: str) -> httpx.AsyncClient:
        host = url.split("?", 1)[0].split("/")[2]
        if host not in self._clients:
            self._clients[host] = self._connect(url)
        return self._clients[host]


class _Performer:
    """Performs the steps of one operation."""

    def __init__(self, http: Connect) -> None:
        self._http = http
        self._opened: httpx.Response | None = None
        self._body: AsyncIterator[bytes] | None = None
        self.result: Any = None
        """The value that the operation returned."""

    async def perform(self, work: Steps[Any]) -> AsyncIterator[Any]:
        """Yields what the operation emits."""
        try:
            step = next(work)
            while True:
                if isinstance(step, Emit):
                    yield step.value
                    step = work.send(None)
                    continue
                try:
                    result = await self._do(step)
                except httpx.RequestError as error:
                    step = work.throw(connection_failed(error))
                else:
                    step = work.send(result)
        except StopIteration as ended:
            self.result = ended.value
        finally:
            work.close()
            await self._close()

    async def _do(self, step: steps.Step) -> Any:
        if isinstance(step, Sleep):
            await asyncio.sleep(step.seconds)
            return None
        if isinstance(step, steps.Read):
            assert self._body is not None
            return await anext(self._body, b"")
        assert not isinstance(step, Emit)
        await self._close()
        http = self._http(step.request.url)
        response = await http.send(made(http, step.request), stream=True)
        if isinstance(step, steps.Open):
            self._opened, self._body = response, response.aiter_raw()
            return reply(response)
        try:
            return reply(response, await response.aread())
        finally:
            await response.aclose()

    async def _close(self) -> None:
        if self._opened is not None:
            await self._opened.aclose()
            self._opened = None
