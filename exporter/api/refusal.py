"""A request that is refused, before it has the shape of a surface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from exporter.errors import FieldProblem


class Refusal(Exception):
    """A request that gets an error for an answer.

    `problems` name the wrong fields; a location begins with `body`, `query` (the query string) or
    `header`, as the vendor's does.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        problems: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.problems = problems
        self.headers = dict(headers or {})
        self.details = dict(details or {})
        """Facts for programs, where the contract has a place for them."""
