"""Reads request bodies: limits their size, decodes them, and validates them as JSON."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Annotated, Any, NoReturn, TypeVar

import orjson
from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from exporter.api import auth, errors
from exporter.api.refusal import Refusal
from exporter.core import limits, nesting
from exporter.errors import FieldProblem, problem

MAX_BODY_BYTES = limits.BODY_BYTES.default
"""Largest accepted body; far above any search that a person or a client writes."""
MAX_NESTING = limits.NESTING.default
"""Levels of objects and lists in a body; a deeper body could be stored, but not read again."""
MAX_VALUES = limits.VALUES.default
"""Fields and entries in a body: each one can be wrong, and naming it costs some microseconds."""
MAX_FIELDS = limits.FIELDS.default
_MAX_SHOWN_CHARS = 100
_MAX_LENGTH_DIGITS = 18
_UTF8 = ("utf-8", "utf8", "us-ascii", "ascii")
_GZIP_MAGIC = b"\x1f\x8b"

Model = TypeVar("Model", bound=BaseModel)
Check = Callable[[dict[str, Any]], Sequence[FieldProblem]]


async def read(request: Request) -> bytes:
    """Returns the whole body of a caller with a valid API key, of at most `MAX_BODY_BYTES`.

    The key is checked before any byte is read. Raises Refusal 401, 413 for a larger body, and 415
    for a Content-Encoding. A Content-Length above the limit is refused before any byte is read. A
    body without Content-Length is refused as soon as it exceeds the limit.
    """
    await auth.identify(request)
    return await receive(request)


def is_announced(request: Request, most: int) -> bool:
    """True if the request announces a body of at most so many bytes, without compression."""
    announced = request.headers.get("content-length", "")
    return (
        announced.isdecimal()
        and int(announced[:_MAX_LENGTH_DIGITS]) <= most
        and "content-encoding" not in request.headers
    )


async def receive(request: Request) -> bytes:
    """Returns the whole body like `read`, of a caller whose key was checked."""
    check_encoding(request)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:_MAX_LENGTH_DIGITS]) > MAX_BODY_BYTES:
        raise _too_large()
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        # Not by `Request.stream`, whose generator takes longer than the body of a creation.
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise _too_large()
        chunks.append(chunk)
    return b"".join(chunks)


TheBody = Annotated[bytes, Depends(read)]


def parse(
    request: Request,
    body: bytes,
    model: type[Model],
    *,
    max_values: int = MAX_VALUES,
    check: Check | None = None,
) -> Model:
    """Returns the JSON body, validated as an instance of `model`.

    Raises Refusal 422, which names every wrong field, if the body does not match the model. Another
    Content-Type than JSON and another charset than UTF-8 are refused with 415, and malformed JSON
    with 400. On the paths of the Hirebase contract all these are refused with 422 and a list of
    problems, because that vendor's documentation counts malformed JSON as invalid data. A missing
    Content-Type means JSON, and a byte order mark is skipped. NaN, Infinity and lone surrogates are
    malformed JSON, and a field that occurs twice is refused. A body nested deeper than MAX_NESTING
    is refused with 422, before it is parsed, and a body of more than `max_values` fields and
    entries before these are checked.

    If the body does not match, `check` gets the other fields, also those that were left out, and
    returns the problems that a matching body would be refused for: callers learn all at once.
    """
    content_type = request.headers.get("content-type", "application/json")
    _check_type(content_type)
    body = _decoded(request, content_type, body)
    if nesting.is_deeper(body, MAX_NESTING):
        raise _too_deep(body)
    # Many small containers take seconds to parse, because they start Python's garbage collection.
    if body.count(b"]") + body.count(b"}") > MAX_VALUES:
        raise _too_many("", f"the body has over {MAX_VALUES} objects and lists: send a smaller one")
    if not body.strip():
        _refuse_syntax(request, "the body is empty: send a JSON object", 0)
    try:
        data: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        detail = f"the body is not valid JSON: {error.msg} at character {error.pos}"
        _refuse_syntax(request, detail, error.pos)
    if not isinstance(data, dict):
        raise errors.invalid([problem(("body",), "the body should be a JSON object", "dict_type")])
    # Each field has a colon: with as many colons as fields, no field is given twice.
    if _count_fields(data, max_values) != body.count(b":"):
        _check_repeats(body.decode())
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = errors.field_problems(error, model)
        if check is not None:
            problems += check(_other_fields(data, model, problems))
        raise errors.invalid(problems) from None


def _other_fields(
    data: dict[str, Any], model: type[BaseModel], problems: Sequence[FieldProblem]
) -> dict[str, Any]:
    """Returns the fields of the body that have no problem, with defaults for those left out."""
    wrong = {problem["loc"][1] for problem in problems if len(problem["loc"]) > 1}
    return {
        name: data.get(name, field.default)
        for name, field in model.model_fields.items()
        if name not in wrong and (name in data or not field.is_required())
    }


def check_encoding(request: Request) -> None:
    """Raises Refusal 415 for a compressed body."""
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        detail = f"Content-Encoding is {encoding[:100]!r}: send the body without compression"
        _refuse_header("content-encoding", detail, {"Accept-Encoding": "identity"})


def _check_type(content_type: str) -> None:
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        return
    detail = f"Content-Type is {media_type[:100]!r}: send application/json"
    if media_type == "application/x-www-form-urlencoded":
        detail += " (curl: -H 'content-type: application/json')"
    _refuse_header("content-type", detail)


def _decoded(request: Request, content_type: str, body: bytes) -> bytes:
    """Returns the body in UTF-8 without a byte order mark. Raises Refusal for anything else."""
    for option in content_type.split(";")[1:]:
        name, _, value = option.strip().partition("=")
        charset = value.strip("\"' ").lower()
        # Some clients name their default charset, although they send ASCII.
        is_safe = charset in _UTF8 or (body.isascii() and b"\0" not in body)
        if name.lower() == "charset" and not is_safe:
            detail = f"the charset of Content-Type is {charset[:100]!r}: send the body in UTF-8"
            _refuse_header("content-type", detail)
    body = body.removeprefix(codecs.BOM_UTF8)
    if body.startswith(_GZIP_MAGIC):
        detail = "the body is compressed by gzip: send it without compression"
        _refuse_syntax(request, detail, 0)
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in body[:4]:
        _refuse_syntax(request, "the body is in UTF-16 or UTF-32: send it in UTF-8", 0)
    try:
        body.decode()
    except UnicodeDecodeError as error:
        detail = f"byte 0x{body[error.start]:02x} at {error.start} of the body is not UTF-8: "
        _refuse_syntax(request, detail + "send the body in UTF-8", error.start)
    return body


def _refuse_header(name: str, detail: str, headers: dict[str, str] | None = None) -> NoReturn:
    raise Refusal(
        415,
        "unsupported_media_type",
        detail,
        problems=[problem(("header", name), detail, name.replace("-", "_"))],
        headers=headers,
    )


def _refuse_syntax(request: Request, detail: str, place: int) -> NoReturn:
    if errors.shape_of(request).status("json_invalid", 400) != 422:
        raise Refusal(400, "json_invalid", detail)
    raise errors.invalid([problem(("body", place), detail, "json_invalid")])


def _check_names(pairs: Sequence[tuple[str, Any]]) -> None:
    """Raises Refusal if an object has a field twice: one of the two values would be ignored."""
    if len({name for name, _ in pairs}) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        place = ("body", twice[:_MAX_SHOWN_CHARS])
        message = "the field is given twice: give it once"
        raise errors.invalid([problem(place, message, "duplicate_field")])


# Numbers stay text, because Python reads long ones slowly or not at all.
_check_repeats = json.JSONDecoder(
    object_pairs_hook=_check_names, parse_int=str, parse_float=str
).decode


def _count_fields(data: dict[str, Any], max_values: int) -> int:
    """Returns the number of fields of all objects.

    Raises Refusal for too many values, after visiting no more of them than are permitted.
    """
    left, fields = max_values, 0
    containers: list[tuple[str, dict[str, Any] | list[Any]]] = [("", data)]
    while containers:
        name, container = containers.pop()
        left -= len(container)
        entries: Iterable[tuple[str, Any]] = zip(repeat(name), container)
        if isinstance(container, dict):
            fields += len(container)
            entries = container.items()
            if len(container) > MAX_FIELDS:
                message = f"{len(container)} fields are given; give at most {MAX_FIELDS}"
                raise _too_many(name, message)
        if left < 0:
            raise _too_many(name, f"the body has over {max_values} values: send a smaller one")
        containers += [(key, one) for key, one in entries if isinstance(one, (dict, list))]
    return fields


def _too_many(name: str, message: str) -> Refusal:
    place = ("body", name[:_MAX_SHOWN_CHARS]) if name else ("body",)
    return errors.invalid([problem(place, message, "too_long")])


def _too_large() -> Refusal:
    return Refusal(413, "body_too_large", f"the body is larger than {MAX_BODY_BYTES} bytes")


def _too_deep(body: bytes) -> Refusal:
    field = nesting.first_deeper(body, MAX_NESTING)[:_MAX_SHOWN_CHARS]
    detail = f"objects and lists are nested deeper than {MAX_NESTING} levels: send a flatter body"
    return errors.invalid([problem(("body", field), detail, "too_deep")])
