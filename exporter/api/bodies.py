"""A request's body: bounded while it is read, JSON before it is believed."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import orjson
from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from exporter.api import errors
from exporter.api.refusal import Refusal

MAX_BODY_BYTES = 1024 * 1024
"""Bytes of a body at most; far above any search that a person or a client writes."""

Model = TypeVar("Model", bound=BaseModel)


async def read(request: Request) -> bytes:
    """The whole body, of `MAX_BODY_BYTES` bytes at most. Raises Refusal 413.

    A length that is announced is refused before a byte is read; one that is not, when it is over.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > MAX_BODY_BYTES:
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


def parse(request: Request, body: bytes, model: type[Model]) -> Model:
    """The body as the model. Raises Refusal, naming every wrong field.

    A wrong Content-Type is 415 and malformed JSON 400. On hirebase's paths both are 422 with a
    list, as that vendor answers them: its documentation counts malformed JSON among the invalid
    data. An absent Content-Type is taken for JSON. NaN, Infinity and half a surrogate pair are no
    JSON. Of a key given twice the last counts.
    """
    path: str = request.scope["path"]
    told_apart = errors.is_native(path) or errors.is_bulk(path)
    media_type = request.headers.get("content-type", "application/json").partition(";")[0]
    media_type = media_type.strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        detail = f"Content-Type is {media_type[:100]!r}: send application/json"
        raise Refusal(
            415 if told_apart else 422,
            "unsupported_media_type",
            detail,
            problems=[
                {"loc": ("header", "content-type"), "msg": detail, "type": "content_type"},
            ],
        )
    try:
        data: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        detail = f"the body is no JSON: {error.msg} at character {error.pos}"
        if told_apart:
            raise Refusal(400, "json_invalid", detail) from None
        raise errors.invalid(
            [{"loc": ("body", error.pos), "msg": detail, "type": "json_invalid"}]
        ) from None
    if not isinstance(data, dict):
        raise errors.invalid(
            [{"loc": ("body",), "msg": "the body should be a JSON object", "type": "dict_type"}]
        )
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise errors.invalid(errors.field_problems(error, model)) from None


def _too_large() -> Refusal:
    return Refusal(413, "body_too_large", f"the body is over {MAX_BODY_BYTES} bytes")
