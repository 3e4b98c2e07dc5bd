"""Version of the records in Redis, and the upgrade of those of release 0.2.0 and earlier."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import cast

import redis

from exporter.errors import ConfigurationError
from exporter.store.redis import errors, keys
from exporter.store.redis.diagnosis import Diagnosis
from exporter.store.redis.keys import KeyNames

VERSION = 1
"""Version that this code reads and writes.

It is raised by a change that the release before cannot live with: a key or a field that gets
another meaning. An added key or field, and a script that understands both, need no new version.
"""
_OLD_ROOT = "exporter:"
"""Beginning of the keys of release 0.2.0 and earlier, which had no hash tag and no version."""
_LAST = ("keys", "users", "counters", "since")
"""Keys of which every installation has at least one, as soon as it has a key or an export.

They are renamed last, so they show that an upgrade has not ended.
"""
_BATCH = 500
_MAX_NAMED = 5


class StillRunning(ConfigurationError):
    """Processes of the earlier release still use the records."""


def check(client: redis.Redis, names: KeyNames) -> Sequence[str]:
    """Returns warnings about the records; writes the version if there are none yet.

    Raises ConfigurationError if the records have a newer version, or need an upgrade;
    StoreUnavailable if Redis does not answer.
    """
    with errors.translate_errors():
        found = problems(client, names)
        for one in found:
            if one.is_permanent:
                raise ConfigurationError(f"EXPORTER_REDIS_URL: {one}.")
        if not client.exists(names("schema")):
            client.set(names("schema"), VERSION, nx=True)
    return [f"{one}." for one in found]


def problems(client: redis.Redis, names: KeyNames) -> Sequence[Diagnosis]:
    """Returns why this release cannot use the records, and writes nothing.

    Raises RedisError if Redis does not answer.
    """
    found = cast("bytes | None", client.get(names("schema")))
    if found is not None and not found.isdigit():
        shown = found[:80].decode(errors="replace")
        return [
            Diagnosis(
                f"{names('schema')} is {shown!r} and not a version: another program writes into "
                "this database of Redis",
                "give the service a database of its own",
                is_permanent=True,
            )
        ]
    if found is not None and int(found) > VERSION:
        return [
            Diagnosis(
                f"the records have version {int(found)}, and this release knows none above "
                f"{VERSION}",
                "start the release that wrote them, or a later one",
                is_permanent=True,
            )
        ]
    if not _has_old_keys(client):
        return []
    remedy = "stop all processes of that release and run `exporter upgrade`"
    if found is None:
        text = f"the records are of release 0.2.0 or earlier, whose keys begin with {_OLD_ROOT}"
        return [Diagnosis(text, remedy, is_permanent=True)]
    text = (
        f"there are new keys that begin with {_OLD_ROOT}: a process of release 0.2.0 or earlier "
        "runs beside this release, and neither sees what the other stores"
    )
    return [Diagnosis(text, remedy)]


def upgrade(client: redis.Redis, names: KeyNames, *, force: bool = False) -> int:
    """Renames all keys of release 0.2.0 or earlier and writes the version; returns their number.

    An upgrade that was interrupted goes on, and one that has ended does nothing. Records, files and
    API keys stay; the sweep enqueues Celery's lost messages again. No process may run meanwhile:
    raises StillRunning if a worker, sender or scheduler shows that it is alive, unless `force`.
    Raises ConfigurationError if a key exists under both names.
    """
    with errors.translate_errors():
        alive = _alive(client)
        if alive and not force:
            raise StillRunning(
                f"{len(alive)} processes of the earlier release still run ({_some(alive)}): stop "
                "all of them, the API too, and repeat this 15 s later; with --force at once"
            )
        last = [f"{_OLD_ROOT}{name}".encode() for name in _LAST]
        skipped = {*last, *alive}
        found = (key for key in client.scan_iter(f"{_OLD_ROOT}*", 1000) if key not in skipped)
        renamed, doubled = _rename(client, names, found)
        if not doubled:
            more, doubled = _rename(client, names, last)
            renamed += more
        if doubled:
            raise ConfigurationError(
                f"{len(doubled)} keys exist under the old and the new name, such as "
                f"{_some(doubled)}: a process of the earlier release wrote them after an upgrade. "
                "Stop it, delete the ones that you do not need, and repeat this"
            )
        client.set(names("schema"), VERSION, nx=True)
    return renamed


def _has_old_keys(client: redis.Redis) -> bool:
    pipe = client.pipeline(transaction=False)
    for name in _LAST:
        pipe.exists(_OLD_ROOT + name)
    try:
        return any(pipe.execute())
    except redis.exceptions.NoPermissionError:
        return False  # a user who may not use these keys never wrote them


def _alive(client: redis.Redis) -> Sequence[bytes]:
    kinds = (keys.WORKERS, keys.SENDERS, keys.BEATS)
    return [key for kind in kinds for key in client.scan_iter(f"{_OLD_ROOT}{kind}:*", 1000)]


def _rename(
    client: redis.Redis, names: KeyNames, old: Iterable[bytes]
) -> tuple[int, Sequence[bytes]]:
    """Renames keys; returns how many, and those whose new names exist, which it leaves."""
    renamed, doubled = 0, list[bytes]()
    rest = iter(old)
    while batch := list(islice(rest, _BATCH)):
        pipe = client.pipeline(transaction=False)
        for key in batch:
            pipe.renamenx(key, names.root.encode() + key.removeprefix(_OLD_ROOT.encode()))
        for key, answer in zip(batch, pipe.execute(raise_on_error=False), strict=True):
            if not isinstance(answer, Exception):
                renamed += bool(answer)
                doubled += [] if answer else [key]
            elif "no such key" not in str(answer):  # it expired, or the scan named it twice
                raise answer
    return renamed, doubled


def _some(found: Sequence[bytes]) -> str:
    return ", ".join(key.decode("utf-8", "replace") for key in found[:_MAX_NAMED])
