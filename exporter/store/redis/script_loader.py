"""Loads the Lua scripts, most of which use the functions and key names of `common.lua`."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources

import redis
from redis.commands.core import Script

_FOLDER = resources.files(__package__).joinpath("scripts")


def load(client: redis.Redis, name: str) -> Script:
    """Returns the Lua script `name`, preceded by the text of `common.lua`.

    Redis is not contacted before the script is called.
    """
    return client.register_script(_text("common") + _text(name))


def load_from_package(client: redis.Redis, package: str, name: str) -> Script:
    """Returns the Lua script `name` in the folder `scripts` of another package.

    It is preceded by the text of this package's `common.lua` and of the other package's own.
    """
    folder = resources.files(package).joinpath("scripts")
    own = (folder.joinpath(f"{part}.lua").read_text("utf-8") for part in ("common", name))
    return client.register_script(_text("common") + "".join(own))


def padded_words(names: Iterable[str]) -> str:
    """Returns the names in one text, with a space before and after each name.

    A Lua script can then search the text for a whole name.

    >>> padded_words(["export.queued", "export.finished"])
    ' export.queued export.finished '
    """
    return f" {' '.join(names)} "


def load_standalone(client: redis.Redis, name: str) -> Script:
    """Returns the Lua script `name` alone, for scripts that do not need `common.lua`."""
    return client.register_script(_text(name))


def _text(name: str) -> str:
    return _FOLDER.joinpath(f"{name}.lua").read_text("utf-8")
