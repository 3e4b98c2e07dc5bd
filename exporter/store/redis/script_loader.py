"""Loads the Lua scripts, most of which use the functions and key names of `common.lua`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from importlib import resources
from operator import itemgetter
from typing import Any

import redis

from exporter.store.redis import calls
from exporter.store.redis.calls import Call, Word
from exporter.store.redis.keys import KeyNames


class Script:
    """A Lua script, and the first keys of each run of it."""

    def __init__(self, client: redis.Redis, text: str, *keys: str) -> None:
        self._client, self._text, self._keys = client, text, keys
        self._digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, *args: Word, keys: Sequence[str] = ()) -> Any:
        """Runs the script and returns its answer. Raises StoreUnavailable."""
        return calls.run(self._client, self.call(*args, keys=keys))

    def call(self, *args: Word, keys: Sequence[str] = ()) -> Call[Any]:
        """Returns the call that runs the script; its result is the script's answer."""
        count = len(self._keys) + len(keys)
        command = ("EVALSHA", self._digest, count, *self._keys, *keys, *args)
        return Call((command,), itemgetter(0), (self._text,))


def load(
    client: redis.Redis, names: KeyNames, name: str, package: str = __package__, *parts: str
) -> Script:
    """Returns the Lua script `name` in the folder `scripts` of a package.

    It is preceded by this package's `index.lua` and `common.lua`, by the `common.lua` of another
    package, and by the further `parts` of the package. Redis is not contacted before the script is
    called.
    """
    commons = dict.fromkeys((__package__, package))
    text = read(__package__, "index") + "".join(read(one, "common") for one in commons)
    text += "".join(read(package, one) for one in (*parts, name))
    return Script(client, text, names.root)


def load_standalone(client: redis.Redis, *parts: str) -> Script:
    """Returns the Lua script of these parts alone, for scripts whose keys the caller gives."""
    return Script(client, "".join(read(__package__, one) for one in parts))


def read(package: str, name: str) -> str:
    """Returns the text of a script in the folder `scripts` of a package."""
    return resources.files(package).joinpath("scripts", f"{name}.lua").read_text("utf-8")


def padded_words(names: Iterable[str]) -> str:
    """Returns the names in one text, with a space before and after each name.

    A Lua script can then search the text for a whole name.

    >>> padded_words(["export.queued", "export.finished"])
    ' export.queued export.finished '
    """
    return f" {' '.join(names)} "
