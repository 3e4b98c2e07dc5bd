"""Live events: exports as they change, from a stream that is opened again when it ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from exporter.client.calls import Service, error_of
from exporter.client.errors import ConnectionFailed, NotFound
from exporter.client.models import Export
from exporter.client.steps import Emit, Sleep, Steps, open_, read

RECONNECT_SECONDS = 1.0
"""Pause before a stream is opened again; it doubles up to MAX_PAUSE_SECONDS without an event."""
MAX_PAUSE_SECONDS = 8.0
MAX_TRIES_IN_VAIN = 10
"""Streams in a row without any event, after which the error of the last one is raised."""


def of_export(service: Service, export_id: str) -> Steps[None]:
    """Emits an export now and after each change, until its end; raises NotFound if deleted."""
    path = f"/v1/exports/{quote(export_id, safe='')}/events"
    stream = _Stream(service, path, {})
    while True:
        for one in (yield from stream.next()):
            if one is None:
                raise NotFound(404, "not_found", f"export {export_id} was deleted")
            yield Emit(one)
            if one.has_ended:
                return
        if stream.is_over:
            return


def of_user(service: Service, filters: Mapping[str, Any]) -> Steps[None]:
    """Emits the exports that have not ended, and then each export after each change, for ever."""
    stream = _Stream(service, "/v1/events", filters)
    while True:
        for one in (yield from stream.next()):
            if one is not None:
                yield Emit(one)


class _Stream:
    """Events of a path, from as many connections as that takes."""

    def __init__(self, service: Service, path: str, filters: Mapping[str, Any]) -> None:
        self._service, self._path, self._filters = service, path, filters
        self._last_id = ""
        self._rest = b""
        self._is_open = False
        self._in_vain = 0
        self.is_over = False
        """True if the service says that nothing comes after the last event."""

    def next(self) -> Steps[list[Export | None]]:
        """Returns the next exports, None for one that was deleted; maybe none of them."""
        try:
            if not self._is_open:
                yield from self._open()
            if self.is_over or not self._is_open:
                return []
            data = yield from read()
        except ConnectionFailed as error:
            yield from self._pause(error)
            return []
        if not data:
            yield from self._pause(None)
            return []
        *whole, self._rest = (self._rest + data).split(b"\n\n")
        found = [one for event in whole for one in self._read(event)]
        self._in_vain = 0 if found else self._in_vain
        return found

    def _open(self) -> Steps[None]:
        given = {"accept": "text/event-stream"}
        if self._last_id:
            given["last-event-id"] = self._last_id
        request = self._service.request("GET", self._path, query=self._filters, headers=given)
        reply = yield from open_(request)
        if reply.status == 204:
            self.is_over = True
        elif reply.status != 200:
            body = b""
            while data := (yield from read()):
                body += data
            error = error_of(reply._replace(body=body), request)
            is_passing = reply.status == 429 or reply.status >= 500
            if not is_passing or self._in_vain >= MAX_TRIES_IN_VAIN:
                raise error
            yield from self._pause(None)
            return
        self._is_open, self._rest = True, b""

    def _pause(self, error: ConnectionFailed | None) -> Steps[None]:
        self._is_open = False
        self._in_vain += 1
        if error is not None and self._in_vain > MAX_TRIES_IN_VAIN:
            raise error
        yield Sleep(min(RECONNECT_SECONDS * 2 ** (self._in_vain - 1), MAX_PAUSE_SECONDS))

    def _read(self, event: bytes) -> Iterator[Export | None]:
        fields = dict(line.split(b": ", 1) for line in event.splitlines() if b": " in line)
        if b"data" not in fields:
            return
        self._last_id = fields.get(b"id", b"").decode()
        is_gone = fields.get(b"event") == b"export.deleted"
        yield None if is_gone else Export.read(msgspec.json.decode(fields[b"data"]))
