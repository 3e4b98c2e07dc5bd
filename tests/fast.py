"""The inner loop: `pytest --fast` runs only tests that need nothing outside their own process.

A test without the mark `external` that opens a socket, starts a process or sleeps fails there, so
the marks stay true.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import pytest
from hypothesis import settings

MAX_SLEEP_SECONDS = 0.05
SERVERS = frozenset({"redis_server", "s3_server", "postgres_server", "stack"})
"""Fixtures that start a server: a test that asks for one is external without a mark."""
FOLDERS = ("acceptance", "attack", "console", "faults", "integration")
"""Folders of tests that are external as a whole."""

# An example that is slow because the machine is loaded is no failure.
settings.register_profile("whole", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=10)
settings.load_profile("whole")

_loop = {"fast": False}


def begin() -> None:
    """Makes `examples` and `sample` small. Called before test modules are imported."""
    _loop["fast"] = True
    settings.load_profile("fast")


def examples(number: int) -> int:
    """Returns the number of examples of a property: at most 10 with --fast."""
    return min(number, 10) if _loop["fast"] else number


def sample(places: Sequence[int]) -> Sequence[int]:
    """Returns the places at which a test lets a process die: every twelfth with --fast."""
    return places[::12] if _loop["fast"] else places


def mark(item: pytest.Item) -> None:
    """Marks a test as external if its folder or one of its fixtures says so."""
    folder = item.nodeid.split("/")[1]
    if folder in FOLDERS or SERVERS & set(getattr(item, "fixturenames", ())):
        item.add_marker(pytest.mark.external)


def forbid(patch: pytest.MonkeyPatch) -> None:
    """Makes sockets, child processes and pauses raise for as long as the patch lasts."""
    connect, bind, sleep = socket.socket.connect, socket.socket.bind, time.sleep

    def checked(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: socket.socket, *arguments: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                refuse("a socket")
            return real(self, *arguments)

        return call

    def pause(seconds: float) -> None:
        if seconds > MAX_SLEEP_SECONDS:
            refuse(f"a pause of {seconds:g} s")
        sleep(seconds)

    def start(*_: object, **__: object) -> NoReturn:
        refuse("a child process")

    patch.setattr(socket.socket, "connect", checked(connect))
    patch.setattr(socket.socket, "bind", checked(bind))
    patch.setattr(time, "sleep", pause)
    patch.setattr(subprocess.Popen, "__init__", start)


def refuse(what: str) -> NoReturn:
    raise AssertionError(f"this test uses {what}: mark it with @pytest.mark.external")
