"""Data of the doctor: a check, what it found, and the error with which a check fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import NamedTuple

from exporter.settings import Settings


class Status(StrEnum):
    """Result of a check."""

    OK = "ok"
    WARN = "warn"
    """The service works, but the operator should know the text."""
    FAIL = "fail"
    SKIPPED = "skipped"
    """The check was not made, because a check that it needs has failed."""


class Finding(NamedTuple):
    """Result of one check: one line of the report."""

    name: str
    """Stable name of the check, such as `redis` or `source board`."""
    status: Status
    text: str
    """Result, as a phrase without a full stop."""
    variable: str | None = None
    """The environment variable to correct, or the place in a file; None if there is none."""
    remedy: str | None = None
    """Correction, as a phrase without a full stop that does not repeat the variable."""


class Problem(Exception):
    """Raised by a check that found something wrong; the arguments are those of a Finding."""

    def __init__(
        self,
        text: str,
        variable: str | None = None,
        remedy: str | None = None,
        status: Status = Status.FAIL,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.variable = variable
        self.remedy = remedy
        self.status = status


class Check(NamedTuple):
    """A check of the doctor; `run` returns the text of a success, or raises Problem.

    An ExporterError counts as a Problem with the same text. `run` need not watch the time: it runs
    in a thread of its own, which the doctor abandons after `examination.CHECK_SECONDS`.
    """

    name: str
    run: Callable[[Settings], str]
    needs: Sequence[str] = ()
    """Names of the checks before this one without whose success this one is skipped."""
    variables: Sequence[str] = ()
    """Environment variables that the check reads; it is skipped if one of them is malformed."""
