"""Finds the name that was probably meant by an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Collection

MAX_COMPARED_CHARACTERS = 100
"""Length above which an unknown name is not compared, because comparing takes quadratic time."""


def similar(name: str, known: Collection[str]) -> str | None:
    """Returns the known name that is most like an unknown one; None if none is like it."""
    if len(name) > MAX_COMPARED_CHARACTERS:
        return None
    folded = {one.casefold().replace("-", "_"): one for one in known}
    wanted = name.casefold().replace("-", "_")
    found = difflib.get_close_matches(wanted, folded, n=1, cutoff=0.7)
    return folded[found[0]] if found else None


def unknown(name: str, known: Collection[str], kind: str = "key") -> str:
    """Returns the text about an unknown name: the similar known name, else all known names."""
    if meant := similar(name, known):
        return f"unknown {kind}: did you mean {meant}?"
    if not known:
        return f"unknown {kind}: there is none"
    return f"unknown {kind}: the known ones are {', '.join(sorted(known))}"
