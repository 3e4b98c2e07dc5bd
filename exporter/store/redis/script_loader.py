"""Loads the Lua scripts, most of which use the functions and key names of `common.lua`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from operator import itemgetter
from typing import Any

import redis

from exporter.store.redis import calls
from exporter.store.redis.calls import Call, Word
from exporter.store.redis.keys import KeyNames

_COMMENT = re.compile(r"^ *--.*\n", re.MULTILINE)
_DEFINITION = re.compile(r"^(?=local )", re.MULTILINE)
_WORD = re.compile(r"\w+")


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

    It is preceded by what it uses of this package's `index.lua` and `common.lua`, of the
    `common.lua` of another package, and of the further `parts` of the package. Redis is not
    contacted before the script is called.
    """
    commons = dict.fromkeys((__package__, package))
    shared = read(__package__, "index") + "".join(read(one, "common") for one in commons)
    shared += "".join(read(package, one) for one in parts)
    return Script(client, _with_used(shared, read(package, name)), names.root)


def load_standalone(client: redis.Redis, *parts: str) -> Script:
    """Returns the Lua script of these parts alone, for scripts whose keys the caller gives."""
    return Script(client, "".join(read(__package__, one) for one in parts))


def _with_used(shared: str, script: str) -> str:
    r"""Returns a script after those definitions of `shared` that it needs, also indirectly.

    Redis runs all definitions in each call of a script: those of `common.lua` took it 20 µs. Each
    definition begins with `local` at the beginning of a line and stands before its users.

    >>> _with_used("local a = 1\nlocal b = 2\nlocal c = a\n", "return c")
    'local a = 1\nlocal c = a\nreturn c'
    """
    used = set(_WORD.findall(_COMMENT.sub("", script)))
    kept: list[str] = []
    for definition in reversed(_DEFINITION.split(_COMMENT.sub("", shared))):
        first = definition.partition("\n")[0].removeprefix("local function ").removeprefix("local ")
        defined = re.split(r"[=(]", first)[0]
        if used.intersection(_WORD.findall(defined)):
            used.update(_WORD.findall(definition))
            kept.append(definition)
    return "".join(reversed(kept)) + script


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
