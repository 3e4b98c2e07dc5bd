"""Requests to one bucket: clients of this process, retries, lists, and texts of errors."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from exporter.clock import Clock
from exporter.environment import proxies
from exporter.errors import ConfigurationError, StorageError
from exporter.storage.s3 import clients, failures
from exporter.storage.s3.encryption import Encryption
from exporter.storage.s3.limits import Addressing

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

FIRST_BACKOFF_SECONDS = 0.2
MAX_BACKOFF_SECONDS = 5.0
"""Longest wait between two tries of a request."""


@dataclass(frozen=True)
class Requests:
    """Sends requests; safe to use from many threads and after a fork.

    All waiting is done here, on the injected clock: boto3 tries once, and temporary failures are
    retried for about a minute. Every try first calls the guard of `storage.base.guarded`, and the
    error of the guard is raised unchanged.
    """

    bucket: str
    endpoint_url: str | None
    public_endpoint_url: str | None
    """Address for downloads; None: that for requests."""
    region: str | None
    clock: Clock
    addressing: Addressing
    encryption: Encryption | None
    # A forked child must neither use nor close the sockets of its parent. It makes clients
    # of its own and keeps the inherited ones, because freeing them would close them.
    _clients: dict[tuple[int, str | None], S3Client] = field(default_factory=dict, init=False)

    def open(self) -> None:
        """Makes the clients of this process now, without sending a request.

        Raises ConfigurationError if the AWS configuration of the process has a wrong value.
        """
        clients.check_keys()
        try:
            self._client(self.endpoint_url)
            self._client(self.public_endpoint_url or self.endpoint_url)
        except failures.Refused as error:
            raise ConfigurationError(str(error)) from error

    @property
    def public_client(self) -> S3Client:
        """The client whose links lead to the address for downloads."""
        return self._client(self.public_endpoint_url or self.endpoint_url)

    def call(
        self,
        operation: str,
        key: str,
        request: Callable[[S3Client], T],
        retry_seconds: float = failures.RETRY_SECONDS,
    ) -> T:
        """Returns the answer to a request, after retries if its kind of failure allows them.

        All tries end within `retry_seconds`.
        """
        began = self.clock.monotonic()
        ceiling = FIRST_BACKOFF_SECONDS
        while True:
            try:
                return request(self._client(self.endpoint_url))
            except (boto.ClientError, boto.BotoCoreError, ResponseParserError) as error:
                reaction, cause = failures.classify(error)
                # Full jitter: workers that failed at the same time must not retry together.
                pause = random.uniform(0, ceiling)  # noqa: S311 - not a secret
                spent = self.clock.monotonic() - began
                if spent + pause >= min(reaction.retry_seconds, retry_seconds):
                    raise reaction.raises(
                        self.error_text(operation, key, cause, reaction)
                    ) from error
            self.clock.sleep(pause)
            ceiling = min(ceiling * 2, MAX_BACKOFF_SECONDS)

    def entries(
        self,
        operation: str,
        key: str,
        request: Callable[[dict[str, Any], S3Client], Any],
        *,
        field: str,
        markers: Mapping[str, str],
    ) -> Iterator[Any]:
        """Yields all entries of a list; each answer has 1,000.

        `request` sends the marker at which the list continues. `markers` has its arguments, with
        the fields of the answer before that have their values. Raises StorageError if the store
        returns the same marker twice, because the list would never end.
        """
        marker: dict[str, Any] = {}
        while True:
            page = self.call(operation, key, partial(request, marker))
            yield from page.get(field, ())
            if not given(page, operation, "IsTruncated"):
                return
            following = {argument: page[name] for argument, name in markers.items()}
            if following == marker:
                raise StorageError(
                    f"The object store returned the same list marker twice ({marker}), so the "
                    "listing would never end."
                )
            marker = following

    def error_text(self, operation: str, key: str, cause: str, reaction: failures.Reaction) -> str:
        advice = reaction.advice
        if operation in failures.ENCRYPTED_WRITES:
            advice = failures.with_encryption(reaction, self.encryption)
        proxy = proxies.find(self._client(self.endpoint_url).meta.endpoint_url)
        way = f" through the proxy of {proxy.variable}" if proxy else ""
        if reaction in failures.PERHAPS_ADDRESSING and self._is_virtual():
            advice = f"{advice} {failures.USE_PATHS}".lstrip()
        return (
            f"{operation} of {key!r} in bucket {self.bucket!r} failed{way}: {cause}. {advice}"
        ).rstrip()

    def _is_virtual(self) -> bool:
        """True if a setting or the AWS configuration puts the bucket into the host name."""
        return any(clients.is_virtual(client) for client in list(self._clients.values()))

    def _client(self, endpoint_url: str | None) -> S3Client:
        client_key = os.getpid(), endpoint_url
        if client_key not in self._clients:
            try:
                client = clients.connect(endpoint_url, self.region, self.addressing)
            except (ValueError, boto.BotoCoreError) as error:
                raise failures.Refused(
                    clients.explain(error, endpoint_url, self.region, self.addressing)
                ) from error
            self._clients.setdefault(client_key, client)
        return self._clients[client_key]


def given(answer: Mapping[str, Any], operation: str, field: str) -> Any:
    """Returns a field of an answer; raises StorageError if the store has left it out."""
    if field not in answer:
        raise StorageError(
            f"The object store answered {operation} without {field}: it does not know this request."
        )
    return answer[field]


def unquoted(etag: str) -> str:
    """Returns an etag without the quotes that it has in answers."""
    return etag.strip('"')
