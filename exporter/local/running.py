"""File by which the commands find the local stack that runs in a folder."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import IO, NamedTuple

from exporter.local import private

_FILE = "stack.json"
_LOCK = "lock"


class Condition(Enum):
    """Condition of the local stack of a folder."""

    ABSENT = "absent"
    """The folder is missing, or belongs to another user."""
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"


@dataclasses.dataclass(frozen=True)
class Description:
    """Address and variables with which a command uses a running stack."""

    url: str
    """URL of the API."""
    environment: Mapping[str, str]
    """Environment variables of its processes; they contain the keys and passwords."""


class Found(NamedTuple):
    """Condition of a stack, and its description if it is running."""

    condition: Condition
    description: Description | None = None


def write(folder: Path, description: Description) -> None:
    """Stores the description of a stack that is running; only the owner can read it."""
    private.write_file(folder / _FILE, json.dumps(dataclasses.asdict(description), indent=2))


def remove(folder: Path) -> None:
    """Deletes the description. Does nothing if there is none."""
    (folder / _FILE).unlink(missing_ok=True)


def find(folder: Path) -> Found:
    """Returns the condition of the stack whose state is in the folder.

    The lock of the running stack decides, because a stack that was killed leaves its description.
    A folder of another user counts as absent: its addresses would get this user's data.
    """
    try:
        if folder.stat().st_uid != os.geteuid() or not (folder / _LOCK).exists():
            return Found(Condition.ABSENT)
        with (folder / _LOCK).open(encoding="utf-8") as lock:
            if not is_locked(lock):
                return Found(Condition.STOPPED)
        text = (folder / _FILE).read_text("utf-8")
    except FileNotFoundError:
        return Found(Condition.STARTING if folder.exists() else Condition.ABSENT)
    except OSError:
        return Found(Condition.ABSENT)
    return Found(Condition.RUNNING, Description(**json.loads(text)))


def is_locked(lock: IO[str]) -> bool:
    """True if a stack has the lock; otherwise `lock` shares it until it is closed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
