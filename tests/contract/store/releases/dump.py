"""Dumps a database to JSON, and loads it again as if it had been dumped just now."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

Dump = Mapping[str, Any]
_TIME = re.compile(r"(?<![0-9])1[78]\d{14}(?![0-9])")
"""Microseconds since 1970, of the years 2023 to 2030."""
_DATE = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+Z")


def dump(client: Any) -> Dump:
    """Returns the time and all keys of the database, with their types, values and TTLs."""
    seconds, micros = client.time()
    names = sorted(client.scan_iter("*", 1000))
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.type(name)
        pipe.pttl(name)
    answers = pipe.execute()
    kinds, ttls = [kind.decode() for kind in answers[::2]], answers[1::2]
    for name, kind in zip(names, kinds, strict=True):
        _READ[kind](pipe, name)
    values = [_SHOW[kind](value) for kind, value in zip(kinds, pipe.execute(), strict=True)]
    found = zip(map(_text, names), zip(kinds, values, ttls, strict=True), strict=True)
    return {"time": seconds * 1_000_000 + micros, "keys": {name: list(one) for name, one in found}}


def read_records(file: Path, rename: Callable[[str], str] = str) -> Dump:
    """Returns the dump in a file, with other names of its keys."""
    found = json.loads(file.read_text("utf-8"))
    return {**found, "keys": {rename(name): one for name, one in found["keys"].items()}}


def text(kept: Dump) -> str:
    """Returns a dump as JSON, with each key in a line of its own."""
    keys = (
        f"{json.dumps(name, ensure_ascii=False)}: {json.dumps(one, ensure_ascii=False)}"
        for name, one in kept["keys"].items()
    )
    return f'{{"time": {kept["time"]}, "keys": {{\n' + ",\n".join(keys) + "\n}}\n"


def load(client: Any, kept: Dump, later: timedelta = timedelta(0)) -> None:
    """Loads a dump into an empty database, as if it had been made `later` ago."""
    seconds, micros = client.time()
    age = seconds * 1_000_000 + micros - kept["time"] - later // timedelta(microseconds=1)

    def shift(text: str) -> str:
        return _TIME.sub(lambda found: str(int(found[0]) + age), text)

    pipe = client.pipeline(transaction=False)
    for name, (kind, value, ttl) in kept["keys"].items():
        _WRITE[kind](pipe, name, value, shift)
        if ttl > 0:
            pipe.pexpire(name, ttl)
    pipe.execute()


def timeless(kept: Dump) -> Mapping[str, Any]:
    """Returns the keys of a dump with all times and TTLs replaced by words."""
    return {
        name: [kind, without_times(value), "for ever" if ttl < 0 else "for a time"]
        for name, (kind, value, ttl) in kept["keys"].items()
    }


def without_times(value: Any) -> Any:
    """Returns a value of JSON types or bytes with each time in it replaced by a word."""
    if isinstance(value, bytes):
        value = _text(value)
    if isinstance(value, str):
        return _DATE.sub("T", _TIME.sub("T", value))
    if isinstance(value, (int, float)) and value > 1.6e15:
        return "T"
    if isinstance(value, Mapping):
        return {without_times(name): without_times(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_times(one) for one in value]
    return value


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _bytes(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def _score(score: float) -> str:
    return str(int(score)) if score.is_integer() else repr(score)


_READ: Mapping[str, Callable[[Any, bytes], Any]] = {
    "string": lambda pipe, name: pipe.get(name),
    "hash": lambda pipe, name: pipe.hgetall(name),
    "list": lambda pipe, name: pipe.lrange(name, 0, -1),
    "set": lambda pipe, name: pipe.smembers(name),
    "zset": lambda pipe, name: pipe.zrange(name, 0, -1, withscores=True),
}
_SHOW: Mapping[str, Callable[[Any], Any]] = {
    "string": _text,
    "hash": lambda value: {_text(name): _text(one) for name, one in sorted(value.items())},
    "list": lambda value: [_text(one) for one in value],
    "set": lambda value: sorted(map(_text, value)),
    "zset": lambda value: [[_text(one), _score(score)] for one, score in value],
}
_WRITE: Mapping[str, Callable[..., Any]] = {
    "string": lambda pipe, name, value, shift: pipe.set(name, _bytes(shift(value))),
    "hash": lambda pipe, name, value, shift: pipe.hset(
        name, mapping={one: _bytes(shift(kept)) for one, kept in value.items()}
    ),
    "list": lambda pipe, name, value, shift: pipe.rpush(
        name, *(_bytes(shift(one)) for one in value)
    ),
    "set": lambda pipe, name, value, shift: pipe.sadd(name, *map(_bytes, value)),
    "zset": lambda pipe, name, value, shift: pipe.zadd(
        name, {_bytes(one): float(shift(score)) for one, score in value}
    ),
}
