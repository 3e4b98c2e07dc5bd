"""Operations of the client as steps, which a blocking and an asynchronous driver perform alike.

An operation is a generator: it yields a step, and is sent what the step returned. It never touches
a socket itself, so each operation is written once.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, NamedTuple, TypeVar, cast

Value = TypeVar("Value")


class Request(NamedTuple):
    """A request, which the driver sends once."""

    method: str
    url: str
    """Absolute."""
    headers: Mapping[str, str] = {}
    body: bytes | None = None


class Reply(NamedTuple):
    """An answer of any status; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    """The whole body; empty for `Open`, whose body is read by `Read`."""


class Send(NamedTuple):
    """Sends a request and reads the whole answer: returns a Reply."""

    request: Request


class Open(NamedTuple):
    """Sends a request: returns a Reply without its body. Closes what was opened before."""

    request: Request


class Read(NamedTuple):
    """Returns some bytes of the opened body, b"" at its end."""


class Sleep(NamedTuple):
    """Waits."""

    seconds: float


class Emit(NamedTuple):
    """Gives a value to the caller who iterates."""

    value: Any


Step = Send | Open | Read | Sleep | Emit
Steps = Generator[Step, Any, Value]
"""Steps that end with a value. The driver throws ConnectionFailed for a step that fails."""


def send(request: Request) -> Steps[Reply]:
    """Sends a request once and returns the answer."""
    return cast("Reply", (yield Send(request)))


def open_(request: Request) -> Steps[Reply]:
    """Sends a request once and returns the answer, whose body `read` returns."""
    return cast("Reply", (yield Open(request)))


def read() -> Steps[bytes]:
    """Returns some bytes of the opened body, b"" at its end."""
    return cast("bytes", (yield Read()))
