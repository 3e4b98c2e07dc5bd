"""The command `exporter console`, which prints a one-time link."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from exporter.cli import local_stack
from exporter.cli.console import err, out, report_errors
from exporter.errors import ExporterError

if TYPE_CHECKING:
    from exporter.local.stack import Addresses
    from exporter.store.redis.store import RedisStore


def console(
    key_id: Annotated[
        str | None,
        typer.Option(
            "--key-id", metavar="ID", help="The key that signs in; default: the local stack's."
        ),
    ] = None,
) -> None:
    """Print a link that signs one browser in to the web console, once and within ten minutes."""
    with report_errors():
        out.print(link(key_id), highlight=False, soft_wrap=True, markup=False)
    err.print("It works once, for ten minutes.")


def link(key_id: str | None = None) -> str:
    """Returns a one-time link to the console of the settings' service.

    Raises ExporterError if no key has the id, or if there is no local stack to take a key from.
    """
    from exporter import settings

    store = local_stack.open_store()
    url = settings.load().public_url.rstrip("/")
    if key_id is None:
        return _link(store, url, local_stack.api_key(url))
    return _link(store, url, key_id, is_id=True)


def print_link(addresses: Addresses) -> None:
    """Prints a one-time link to the console of a stack, if a person reads it and the console is on.

    Not in a log, which would keep the link.
    """
    from exporter import settings
    from exporter.store.redis.keys import KeyNames
    from exporter.store.redis.store import RedisStore

    if sys.stderr.isatty() and (found := settings.load()).console:
        store = RedisStore.connect(addresses.redis_url, KeyNames(found.redis_prefix))
        try:
            text = _link(store, addresses.url, addresses.api_key)
        except ExporterError as error:  # no reason to end the stack
            text = str(error)
        err.print(f"console: {text}", highlight=False, soft_wrap=True, markup=False)


def _link(store: RedisStore, url: str, key: str, *, is_id: bool = False) -> str:
    from exporter.console.sessions import Sessions
    from exporter.store.redis.api_keys import KeyRing

    ring = KeyRing(store.client, store.names)
    found = ring.find_by_id(key) if is_id else ring.find(key)
    if found is None:
        named = f"no key has the id {key!r}" if is_id else "the local stack's key was revoked"
        raise ExporterError(f"{named}; `exporter keys list` shows all ids")
    ticket = Sessions(store.client, store.names).create_ticket(found.id)
    return f"{url}/sign-in?ticket={ticket}"
