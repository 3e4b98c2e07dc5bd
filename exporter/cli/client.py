"""HTTP client of a running service: creates exports, waits for them, downloads and checks files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx

from exporter.environment import proxies, urls
from exporter.errors import ExporterError
from exporter.formats.registry import FORMATS

TERMINAL = ("finished", "failed", "canceled")
MAX_PAUSE_SECONDS = 2.0
"""Longest pause between two polls, in seconds."""
MAX_SILENCE_SECONDS = 60
"""Time, in seconds, after which a service that does not answer is not polled again."""


class ServiceError(ExporterError):
    """The service refused, failed or did not answer; the message quotes its answer."""


class ServiceSilent(ServiceError):
    """The service did not answer, answered with 5xx, or answered without a JSON object.

    A retry may succeed: a proxy answers like this while the service restarts.
    """


class Client:
    """Client of the native contract (/v1) of a running service.

    Raises ServiceError for a malformed URL or API key, and ConfigurationError for a proxy that
    cannot be used.
    """

    def __init__(self, url: str, api_key: str) -> None:
        key = api_key.strip()
        if not key or not (key.isascii() and key.isprintable()):
            # The HTTP client would quote it in its own error.
            raise ServiceError("the API key is empty or holds characters that no key has")
        try:
            self._url = urls.http_url(url, example="http://127.0.0.1:8800")
        except ValueError as error:
            why = str(error).removeprefix(f"{urls.shown(url)} ")
            raise ServiceError(
                f"{urls.shown(url)} is not an address of a service: it {why}"
            ) from None
        self._http = httpx.Client(
            base_url=self._url,
            headers={"authorization": f"Bearer {key}"},
            timeout=30,
            **http_options(self._url),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def create(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Creates an export and returns its record."""
        return self._call("POST", "/v1/exports", request)

    def get(self, export_id: str) -> dict[str, Any]:
        """Returns the record of an export, with a fresh download link if it is finished."""
        return self._call("GET", f"/v1/exports/{export_id}")

    def wait(self, export_id: str, watch: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Polls an export until its state is final, and returns its record.

        `watch` is called with each polled record. A service that does not answer, for example
        during a restart, is polled again for MAX_SILENCE_SECONDS; then ServiceSilent is raised.
        Meanwhile, `watch` is called with the last record as if the export waited for the service.
        """
        pause, silent_since = 0.1, None
        last: dict[str, Any] | None = None
        while True:
            try:
                record = self.get(export_id)
            except ServiceSilent as error:
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > MAX_SILENCE_SECONDS:
                    raise
                if last is not None:
                    watch(last | {"phase": "waiting", "waiting_for": str(error)})
                time.sleep(MAX_PAUSE_SECONDS)
                continue
            silent_since, last = None, record | {"state": "processing", "retry_in_seconds": None}
            watch(record)
            if record["state"] in TERMINAL:
                return record
            time.sleep(pause)
            pause = min(pause * 1.5, MAX_PAUSE_SECONDS)

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, json=body)
        except httpx.RequestError as error:
            what = str(error) or type(error).__name__
            way = proxy_text(self._url)
            raise ServiceSilent(f"{self._url} does not answer{way}: {what}") from None
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            # A proxy in front of a service that restarts answers like this, too.
            raise ServiceSilent(
                f"{self._http.base_url} is not an exporter: {method} {path} answered "
                f"{response.status_code} without a JSON object"
            )
        if not response.is_success:
            problems = "".join(
                f"\n  {p.get('pointer', '')}: {p.get('detail', '')}"
                for p in answer.get("errors") or ()
            )
            refused = ServiceSilent if response.is_server_error else ServiceError
            raise refused(
                f"{response.status_code} {answer.get('title', '')}: "
                f"{answer.get('detail', '')}{problems}"
            )
        return answer


def http_options(url: str) -> dict[str, Any]:
    """Returns the options of an httpx.Client for a URL: the proxy, and trust in certificates.

    Raises ConfigurationError if the environment names a proxy that cannot be used.
    """
    proxy = proxies.find(url)
    # httpx itself would ask a proxy for this machine, too, and fails on networks in NO_PROXY.
    return {
        "proxy": proxy.url if proxy else None,
        "trust_env": False,
        "verify": httpx.create_ssl_context(),
    }


def proxy_text(url: str) -> str:
    """Returns the end of a sentence that names the proxy of a URL; empty without a proxy."""
    proxy = proxies.find(url)
    return f" through the proxy of {proxy.variable}" if proxy else ""


def download(url: str, file: Path, size: int, watch: Callable[[int], None]) -> None:
    """Downloads a file of `size` bytes completely, or leaves no file after an error.

    The bytes are written to `<file>.part`, which gets its name when all bytes have arrived. `watch`
    is called with the size of each chunk. Raises ServiceError if the server does not answer 2xx,
    the connection breaks, or the number of bytes is not `size`.
    """
    with _unfinished(file) as part, part.open("wb") as out:
        try:
            with (
                httpx.Client(timeout=30, **http_options(url)) as client,
                client.stream("GET", url) as response,
            ):
                if not response.is_success:
                    raise ServiceError(f"the download link answered {response.status_code}")
                for chunk in response.iter_bytes():
                    out.write(chunk)
                    watch(len(chunk))
        except httpx.RequestError as error:
            what = str(error) or type(error).__name__
            raise ServiceError(f"the download broke off{proxy_text(url)}: {what}") from None
        if out.tell() != size:
            raise ServiceError(f"{out.tell()} bytes arrived, {size} were announced")


def count_rows(file: Path, format: str) -> int:  # noqa: A002
    """Returns the number of rows in a downloaded file, counted by reading all of it.

    Memory use does not grow with the file. Raises ServiceError for a file that was cut off, and for
    a format that only the service knows.
    """
    if format not in FORMATS:
        raise ServiceError(
            f"{file} is downloaded, but its rows are not counted: this command is older than the"
            f" service and does not know the format {format}"
        )
    try:
        return FORMATS[format].count(file)
    except ValueError as error:
        raise ServiceError(str(error)) from None


@contextmanager
def _unfinished(file: Path) -> Iterator[Path]:
    part = file.with_name(f"{file.name}.part")
    try:
        yield part
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
