"""The group of all commands, which refuses options without a value."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import typer
from typer.core import TyperGroup

_MAY_BE_EMPTY = ("--name", "--description", "--faults", "--board-faults")
"""Options whose empty value means something."""


class StrictGroup(TyperGroup):
    """Refuses an option whose value is empty, in any command below it.

    A shell gives an empty value for a variable that is not set, as in `--api-key "$KEY"`. Commands
    would take it for no option at all, for the current directory, or for every address.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for before, text in pairwise(["", *args]):
            if text == "--":
                break
            name, found, value = text.partition("=")
            if not (found and name.startswith("-")):
                name, value = before, text
            if name.startswith("-") and name not in _MAY_BE_EMPTY and not value.strip():
                raise typer.BadParameter(
                    f"{name} has an empty value: give one, or leave the option out"
                )
        return super().parse_args(ctx, args)
