"""Loads the Lua scripts, most of which use the functions and key names of `common.lua`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from importlib import resources
from typing import Any, Protocol

import redis

from exporter.store.redis.keys import KeyNames

_FOLDER = resources.files(__package__).joinpath("scripts")


class Script(Protocol):
    """A Lua script that knows its keys."""

    def __call__(self, *, args: Sequence[str | bytes | int | float]) -> Any: ...


def load(client: redis.Redis, names: KeyNames, name: str) -> Script:
    """Returns the Lua script `name`, preceded by the text of `common.lua`.

    Redis is not contacted before the script is called.
    """
    return _bind(client, names, _text("common") + _text(name))


def load_from_package(client: redis.Redis, names: KeyNames, package: str, name: str) -> Script:
    """Returns the Lua script `name` in the folder `scripts` of another package.

    It is preceded by the text of this package's `common.lua` and of the other package's own.
    """
    folder = resources.files(package).joinpath("scripts")
    own = (folder.joinpath(f"{part}.lua").read_text("utf-8") for part in ("common", name))
    return _bind(client, names, _text("common") + "".join(own))


def load_standalone(client: redis.Redis, name: str) -> Any:
    """Returns the Lua script `name` alone, for scripts whose keys the caller gives."""
    return client.register_script(_text(name))


def padded_words(names: Iterable[str]) -> str:
    """Returns the names in one text, with a space before and after each name.

    A Lua script can then search the text for a whole name.

    >>> padded_words(["export.queued", "export.finished"])
    ' export.queued export.finished '
    """
    return f" {' '.join(names)} "


def _bind(client: redis.Redis, names: KeyNames, text: str) -> Script:
    return partial(client.register_script(text), [names.root])


def _text(name: str) -> str:
    return _FOLDER.joinpath(f"{name}.lua").read_text("utf-8")
