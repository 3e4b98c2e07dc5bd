"""The kinds of synthetic postings."""

from __future__ import annotations

from enum import StrEnum


class Profile(StrEnum):
    """A kind of synthetic postings."""

    FRIENDLY = "friendly"
    """For people: common titles, plausible companies, dates up to today, as many as rows."""
    HOSTILE = "hostile"
    """For tests: everything that breaks files, and one posting in twenty expired."""
