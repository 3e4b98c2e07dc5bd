"""Calls of Redis as values, which a thread and the event loop send alike.

The code of keys, rate limits and records builds a `Call` and does not send it. A thread sends it
with `run`, a coroutine with `AsyncConnection.run`. Each operation is thus written only once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import redis
from redis.exceptions import NoScriptError

from exporter.store.redis import errors

T = TypeVar("T")
U = TypeVar("U")
Word = str | bytes | int
Command = tuple[Word, ...]


class Call(NamedTuple, Generic[T]):
    """The commands of one round trip, and the function that makes a result of their replies.

    Every command may take effect twice, because each driver sends it again if a reply is lost.
    """

    commands: Sequence[Command]
    read: Callable[[Sequence[Any]], T]
    """Gets the replies in the order of the commands: bytes, int, None or a list of these."""
    scripts: Sequence[str] = ()
    """Texts of the Lua scripts that the commands run."""

    def then(self, change: Callable[[T], U]) -> Call[U]:
        """Returns the same call with `change` applied to its result."""
        return Call(self.commands, lambda replies: change(self.read(replies)), self.scripts)

    def with_loading(self) -> Call[T]:
        """Returns the same call, which loads its scripts first: for a server that lacks them."""
        loads = [("SCRIPT", "LOAD", text) for text in self.scripts]
        return Call((*loads, *self.commands), lambda replies: self.read(replies[len(loads) :]))


def both(first: Call[T], second: Call[U]) -> Call[tuple[T, U]]:
    """Returns one call that makes two independent calls in one round trip.

    If both raise an exception, that of the first is raised.
    """
    count = len(first.commands)
    return Call(
        (*first.commands, *second.commands),
        lambda replies: (first.read(replies[:count]), second.read(replies[count:])),
        (*first.scripts, *second.scripts),
    )


def run(client: redis.Redis, call: Call[T]) -> T:
    """Sends the call by redis-py and returns its result; the thread waits for the replies.

    Raises StoreUnavailable, and what the call's `read` raises.
    """
    with errors.translate_errors():
        return send(client, call)


def send(client: redis.Redis, call: Call[T]) -> T:
    """Does the same as `run`, but raises the errors of redis-py."""
    try:
        replies = _execute(client, call.commands)
    except NoScriptError:
        call = call.with_loading()
        replies = _execute(client, call.commands)
    return call.read(replies)


def _execute(client: Any, commands: Sequence[Command]) -> Sequence[Any]:
    # Any, because redis-py has no types for execute_command.
    if len(commands) == 1:
        return [client.execute_command(*commands[0])]
    pipe = client.pipeline(transaction=False)
    for command in commands:
        pipe.execute_command(*command)
    replies: Sequence[Any] = pipe.execute()
    return replies
