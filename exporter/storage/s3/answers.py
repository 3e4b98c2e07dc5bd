"""Fields of the answers of an S3, and lists that take several answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from exporter.errors import StorageError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from exporter.storage.s3.requests import Requests


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


def entries(
    requests: Requests,
    operation: str,
    key: str,
    request: Callable[[dict[str, Any], S3Client], Any],
    *,
    field: str,
    markers: Mapping[str, str],
) -> Iterator[Any]:
    """Yields all entries of a list; each answer has 1,000.

    `request` sends the marker at which the list continues. `markers` has its arguments, with the
    fields of the answer before that have their values. Raises StorageError if the store returns the
    same marker twice, because the list would never end.
    """
    marker: dict[str, Any] = {}
    while True:
        page = requests.call(operation, key, partial(request, marker))
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
