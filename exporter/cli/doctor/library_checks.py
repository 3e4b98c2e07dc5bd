"""Check of the compiled library."""

from __future__ import annotations

import sys

from exporter.cli.doctor.checks import Problem, Status
from exporter.native import library
from exporter.settings import Settings

COST = "which takes 10 times the processor time for CSV and 3 times for JSON Lines"
"""Measured for a page of 200 rows of 2.5 KB with 26 columns."""


def is_used(_: Settings) -> str:
    """The compiled library reads and writes rows in this installation."""
    native, reason = library.find()
    if native is not None:
        return "the compiled library reads and writes rows"
    variable, remedy = None, f"install gcc, then run {sys.executable} -m exporter.native.build"
    if reason == library.OFF:
        variable, remedy = library.VARIABLE, "unset it"
    text = f"Python code reads and writes rows, {COST}: {reason}"
    raise Problem(text, variable, remedy, Status.WARN)
