"""The error shapes that several surfaces share."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated

import msgspec

from exporter.api.refusal import Refusal
from exporter.api.surface import Asked, ErrorShape
from exporter.errors import FieldProblem, problem

INVALID = "invalid_request"
"""Code of the refusal of a request with wrong fields."""
MAX_PROBLEMS = 100
"""Most wrong fields that one answer lists, so that a large invalid body gets a short answer."""
MAX_QUOTED_PROBLEMS = 20
"""Most wrong fields in the text of a contract whose errors are one text each."""


class DetailEntry(msgspec.Struct):
    """A wrong field."""

    loc: list[str | int]
    """Path of the field, for example `["body", "search", "yoe"]`."""
    msg: str
    type: str


class Detail(msgspec.Struct):
    """An error outside of the native and pipeline contracts: one text or a list of wrong fields.

    The list is used on the paths of the Hirebase contract, if fields or headers are wrong.
    """

    detail: str | list[DetailEntry]


class ProblemEntry(msgspec.Struct, omit_defaults=True):
    """A wrong field of the body (`pointer`), or of the query string (`parameter`), or a header."""

    detail: str
    code: str
    pointer: str | None = None
    parameter: str | None = None
    header: str | None = None


class Problem(msgspec.Struct, omit_defaults=True):
    """An error of the native contract by RFC 9457. `code` is stable, texts may change."""

    type: Annotated[str, msgspec.Meta(description="Always about:blank; use `code` instead.")]
    title: str
    status: int
    detail: str
    code: str
    request_id: Annotated[
        str, msgspec.Meta(description="Also in X-Request-Id and in the service's logs.")
    ]
    errors: list[ProblemEntry] = []


def quoted(problems: Sequence[FieldProblem], most: int) -> str:
    """Returns a text with the first problems, at most that many, and the number of the others."""
    named = "; ".join(
        f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in problems[:most]
    )
    return named + (f"; and {len(problems) - most} more" if len(problems) > most else "")


def _problem(refusal: Refusal, asked: Asked) -> Problem:
    return Problem(
        type="about:blank",
        title=HTTPStatus(refusal.status).phrase,
        status=refusal.status,
        detail=refusal.detail,
        code=refusal.code,
        request_id=asked.request_id,
        errors=[_entry(problem) for problem in refusal.problems[:MAX_PROBLEMS]],
    )


def _entry(problem: FieldProblem) -> ProblemEntry:
    place, *rest = problem["loc"]
    entry = ProblemEntry(problem["msg"], problem["type"])
    if place == "body":
        entry.pointer = "".join(
            "/" + str(step).replace("~", "~0").replace("/", "~1") for step in rest
        )
    elif place == "query":
        entry.parameter = ".".join(map(str, rest))
    else:
        entry.header = ".".join(map(str, rest))
    return entry


def _text(refusal: Refusal, _: Asked) -> Detail:
    if refusal.code == INVALID and refusal.problems:
        return Detail(quoted(refusal.problems, MAX_QUOTED_PROBLEMS))
    return Detail(refusal.detail)


def _detail(refusal: Refusal, asked: Asked) -> Detail:
    problems = refusal.problems[:MAX_PROBLEMS]
    entries = [DetailEntry(list(p["loc"]), p["msg"], p["type"]) for p in problems]
    return Detail(entries) if entries else _text(refusal, asked)


_WRONG_LIMIT = problem(("body", "search", "limit"), "Input should be a valid integer", "int_type")

PROBLEM = ErrorShape(Problem, _problem, "application/problem+json")
"""Problem details by RFC 9457."""
TEXT = ErrorShape(Detail, _text, statuses={"idempotency_key_invalid": 422})
"""`{"detail": …}` with one text."""
DETAIL = ErrorShape(
    Detail,
    _detail,
    # Hirebase's documentation counts malformed JSON and wrong headers as invalid data.
    statuses=dict.fromkeys(
        ("json_invalid", "unsupported_media_type", "idempotency_key_invalid"), 422
    ),
    examples={422: Refusal(422, INVALID, "", problems=[_WRONG_LIMIT])},
)
"""`{"detail": …}` with one text, or with a list of wrong fields, as FastAPI has it."""
