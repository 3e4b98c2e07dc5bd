"""The command `exporter console`, which prints a one-time link."""

from __future__ import annotations

from typing import Annotated

import typer

from exporter.cli import local_stack
from exporter.cli.console import err, out, report_errors
from exporter.errors import ExporterError


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
    from exporter.console.sessions import Sessions
    from exporter.store.redis.api_keys import KeyRing

    store = local_stack.open_store()
    url = settings.load().public_url.rstrip("/")
    ring = KeyRing(store.client, store.names)
    found = ring.find_by_id(key_id) if key_id else ring.find(local_stack.api_key(url))
    if found is None:
        named = f"no key has the id {key_id!r}" if key_id else "the local stack's key was revoked"
        raise ExporterError(f"{named}; `exporter keys list` shows all ids")
    ticket = Sessions(store.client, store.names).create_ticket(found.id)
    return f"{url}/sign-in?ticket={ticket}"
