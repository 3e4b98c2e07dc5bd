"""Loader of the Lua scripts, which share the functions and key names of `common.lua`."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources

import redis
from redis.commands.core import Script

_FOLDER = resources.files(__package__).joinpath("scripts")


def load(client: redis.Redis, name: str) -> Script:
    """Returns a script with `common.lua` before it, without contacting Redis yet."""
    return client.register_script(_text("common") + _text(name))


def load_from_package(client: redis.Redis, package: str, name: str) -> Script:
    """Returns a script from the folder `scripts` of another package.

    This package's `common.lua` and then the other package's own `common.lua` are put before it.
    """
    folder = resources.files(package).joinpath("scripts")
    own = (folder.joinpath(f"{part}.lua").read_text("utf-8") for part in ("common", name))
    return client.register_script(_text("common") + "".join(own))


def padded_words(names: Iterable[str]) -> str:
    """Returns the names with a space on both sides of each, so that scripts can search for one.

    >>> padded_words(["export.queued", "export.finished"])
    ' export.queued export.finished '
    """
    return f" {' '.join(names)} "


def load_standalone(client: redis.Redis, name: str) -> Script:
    """Returns a script without `common.lua`, for scripts that do not use exports."""
    return client.register_script(_text(name))


def _text(name: str) -> str:
    return _FOLDER.joinpath(f"{name}.lua").read_text("utf-8")
