"""Loads the Lua scripts; each runs behind the functions and names that all of them share."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources

import redis
from redis.commands.core import Script

_FOLDER = resources.files(__package__).joinpath("scripts")


def load(client: redis.Redis, name: str) -> Script:
    """The script of that name behind `common.lua`; Redis is not contacted yet."""
    return client.register_script(_text("common") + _text(name))


def load_beside(client: redis.Redis, package: str, name: str) -> Script:
    """The script of that name in the folder `scripts` of another package, behind our `common.lua`
    and its own."""
    folder = resources.files(package).joinpath("scripts")
    own = (folder.joinpath(f"{part}.lua").read_text("utf-8") for part in ("common", name))
    return client.register_script(_text("common") + "".join(own))


def words(names: Iterable[str]) -> str:
    """Names as the scripts look for one: each with a space at both sides.

    >>> words(["export.queued", "export.finished"])
    ' export.queued export.finished '
    """
    return f" {' '.join(names)} "


def load_alone(client: redis.Redis, name: str) -> Script:
    """The script of that name, which knows nothing of exports."""
    return client.register_script(_text(name))


def _text(name: str) -> str:
    return _FOLDER.joinpath(f"{name}.lua").read_text("utf-8")
