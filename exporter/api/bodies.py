"""Reads request bodies: limits their size and validates them as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from exporter.api import auth, errors
from exporter.api.refusal import Refusal
from exporter.core import limits, nesting

MAX_BODY_BYTES = limits.BODY_BYTES.default
"""Largest accepted body; far above any search that a person or a client writes."""
MAX_NESTING = limits.NESTING.default
"""Levels of objects and lists in a body; a deeper body could be stored, but not read again."""
MAX_VALUES = limits.VALUES.default
"""Fields and entries in a body: each one can be wrong, and naming it costs some microseconds."""
MAX_FIELDS = limits.FIELDS.default
_MAX_SHOWN_CHARS = 100
_MAX_LENGTH_DIGITS = 18

Model = TypeVar("Model", bound=BaseModel)


async def read(request: Request) -> bytes:
    """Returns the whole body of a caller with a valid API key, of at most `MAX_BODY_BYTES`.

    The key is checked before any byte is read. Raises Refusal 401, or 413 for a larger body. A
    Content-Length above the limit is refused before any byte is read. A body without Content-Length
    is refused as soon as it exceeds the limit.
    """
    await auth.identify(request)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:_MAX_LENGTH_DIGITS]) > MAX_BODY_BYTES:
        raise _too_large()
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise _too_large()
        chunks.append(chunk)
    return b"".join(chunks)


TheBody = Annotated[bytes, Depends(read)]


def parse(
    request: Request, body: bytes, model: type[Model], *, max_values: int = MAX_VALUES
) -> Model:
    """Returns the JSON body, validated as an instance of `model`.

    Raises Refusal 422, which names every wrong field, if the body does not match the model. A
    Content-Type other than JSON is refused with 415, and malformed JSON with 400. On the paths of
    the Hirebase contract both are refused with 422 and a list of problems, because that vendor's
    documentation counts malformed JSON as invalid data. A missing Content-Type means JSON. NaN,
    Infinity and lone surrogates are malformed JSON. If a key occurs several times, the last value
    is used. A body nested deeper than MAX_NESTING is refused with 422, before it is parsed, and a
    body of more than `max_values` fields and entries before these are checked.
    """
    path: str = request.scope["path"]
    is_own_status = errors.is_native(path) or errors.is_bulk(path)
    media_type = request.headers.get("content-type", "application/json").partition(";")[0]
    media_type = media_type.strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        detail = f"Content-Type is {media_type[:100]!r}: send application/json"
        raise Refusal(
            415 if is_own_status else 422,
            "unsupported_media_type",
            detail,
            problems=[
                {"loc": ("header", "content-type"), "msg": detail, "type": "content_type"},
            ],
        )
    if nesting.is_deeper(body, MAX_NESTING):
        raise _too_deep(body)
    # Many small containers take seconds to parse, because they start Python's garbage collection.
    if body.count(b"]") + body.count(b"}") > MAX_VALUES:
        raise _too_many("", f"the body has over {MAX_VALUES} objects and lists: send a smaller one")
    try:
        data: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        detail = f"the body is not valid JSON: {error.msg} at character {error.pos}"
        if is_own_status:
            raise Refusal(400, "json_invalid", detail) from None
        raise errors.invalid(
            [{"loc": ("body", error.pos), "msg": detail, "type": "json_invalid"}]
        ) from None
    if not isinstance(data, dict):
        raise errors.invalid(
            [{"loc": ("body",), "msg": "the body should be a JSON object", "type": "dict_type"}]
        )
    _check_count(data, max_values)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise errors.invalid(errors.field_problems(error, model)) from None


def _check_count(data: dict[str, Any], max_values: int) -> None:
    """Raises Refusal for too many values, after visiting no more of them than are permitted."""
    left = max_values
    containers: list[tuple[str, dict[str, Any] | list[Any]]] = [("", data)]
    while containers:
        name, container = containers.pop()
        left -= len(container)
        if isinstance(container, dict) and len(container) > MAX_FIELDS:
            raise _too_many(name, f"{len(container)} fields are given; give at most {MAX_FIELDS}")
        if left < 0:
            raise _too_many(name, f"the body has over {max_values} values: send a smaller one")
        entries: Iterable[tuple[str, Any]] = (
            container.items() if isinstance(container, dict) else zip(repeat(name), container)
        )
        containers += [(key, one) for key, one in entries if isinstance(one, dict | list)]


def _too_many(name: str, message: str) -> Refusal:
    place = ("body", name[:_MAX_SHOWN_CHARS]) if name else ("body",)
    return errors.invalid([{"loc": place, "msg": message, "type": "too_long"}])


def _too_large() -> Refusal:
    return Refusal(413, "body_too_large", f"the body is larger than {MAX_BODY_BYTES} bytes")


def _too_deep(body: bytes) -> Refusal:
    field = nesting.first_deeper(body, MAX_NESTING)[:_MAX_SHOWN_CHARS]
    detail = f"objects and lists are nested deeper than {MAX_NESTING} levels: send a flatter body"
    return errors.invalid([{"loc": ("body", field), "msg": detail, "type": "too_deep"}])
