"""The `exporter endpoints` commands."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from exporter.cli import local_stack
from exporter.cli.console import err, out, print_warning, report_errors
from exporter.core import events
from exporter.errors import ExporterError

if TYPE_CHECKING:
    from exporter.webhooks.endpoint_store import Endpoints
    from exporter.webhooks.endpoints import Endpoint

endpoints = typer.Typer(
    help="Webhook endpoints: the URLs that receive the events of a user's exports.",
    no_args_is_help=True,
)

_POLL_SECONDS = 0.2
"""Pause between two reads of a test delivery, in seconds."""

Id = Annotated[str, typer.Argument(help="The id that `list` shows.")]


@endpoints.command("create")
def create(
    url: Annotated[str, typer.Argument(help="https://HOST/PATH.")],
    user: Annotated[str, typer.Option(help="The user whose exports' events it receives.")],
    event: Annotated[
        list[str] | None,
        typer.Option(
            "--event",
            metavar="E",
            help="An event it receives; repeat for several. Default: all but export.progress.",
        ),
    ] = None,
    ordered: Annotated[
        bool,
        typer.Option("--ordered", help="Deliver the events of one export one after the other."),
    ] = False,
    download_url: Annotated[
        bool, typer.Option("--download-url", help="Include a download URL in export.finished.")
    ] = False,
    description: Annotated[str, typer.Option(help="A note for you.")] = "",
) -> None:
    """Register an endpoint and print its id and the secret that its webhooks are signed with."""
    from exporter import settings, wiring
    from exporter.webhooks.addresses import NameUnresolved

    with report_errors():
        local_stack.use()
        guard = wiring.guard(settings.load())
        try:
            guard.resolve(guard.check(url))
        except NameUnresolved as error:
            print_warning(str(error))
        endpoint = _endpoints().create(
            user,
            url,
            events=event or events.DEFAULT_EVENTS,
            ordered=ordered,
            include_download_url=download_url,
            description=description,
        )
        _print(f"{endpoint.id} {endpoint.secrets[0].value}")


@endpoints.command("list")
def list_(user: Annotated[str, typer.Option(help="The owner of the endpoints.")]) -> None:
    """Show a user's endpoints, without their secrets."""
    # Ids and URLs are copied: they are shown whole, however narrow the terminal is.
    whole = [Column(name, overflow="fold") for name in ("id", "url")]
    table = Table(*whole, "events", "state", "description")
    with report_errors():
        for one in _endpoints().list(user):
            cells = one.id, one.url or "listener", _events(one), _state(one), one.description
            table.add_row(*map(escape, cells))
    out.print(table)


@endpoints.command("rotate")
def rotate(
    endpoint_id: Id,
    grace: Annotated[
        int,
        typer.Option(
            min=0, max=7 * 86400, metavar="SECONDS", help="How long the old secret signs as well."
        ),
    ] = 86400,
) -> None:
    """Replace an endpoint's secret and print the new one."""
    with report_errors():
        known = _endpoints()
        user = _found(known, endpoint_id).user_id
        endpoint = known.rotate(endpoint_id, user, grace=timedelta(seconds=grace))
        if endpoint is None:
            raise _unknown(endpoint_id)
        _print(endpoint.secrets[0].value)


@endpoints.command("disable")
def disable(endpoint_id: Id) -> None:
    """Stop sending events to an endpoint."""
    with report_errors():
        known = _endpoints()
        known.disable(endpoint_id, _found(known, endpoint_id).user_id)
    err.print(f"disabled {endpoint_id}")


@endpoints.command("enable")
def enable(endpoint_id: Id) -> None:
    """Send later events to an endpoint again, whatever disabled it; earlier events are not sent."""
    with report_errors():
        known = _endpoints()
        known.enable(endpoint_id, _found(known, endpoint_id).user_id)
    err.print(f"enabled {endpoint_id}")


@endpoints.command("delete")
def delete(endpoint_id: Id) -> None:
    """Delete an endpoint permanently."""
    with report_errors():
        known = _endpoints()
        known.delete(endpoint_id, _found(known, endpoint_id).user_id)
    err.print(f"deleted {endpoint_id}")


@endpoints.command("test")
def test(
    endpoint_id: Id,
    wait: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for the result.")
    ] = 30.0,
) -> None:
    """Send webhook.test to an endpoint, and print the result."""
    from exporter import settings, wiring
    from exporter.webhooks.deliveries import DeliveryState

    with report_errors():
        store = local_stack.open_store()
        log = wiring.deliveries(settings.load(), store.client)
        delivery = log.send_test(_found(_endpoints(), endpoint_id))
        deadline = time.monotonic() + wait
        while delivery.state not in (DeliveryState.DELIVERED, DeliveryState.DEAD):
            if time.monotonic() >= deadline:
                raise ExporterError(
                    f"{delivery.id} is {delivery.state} after {wait:g} s: see that "
                    "`exporter webhooks` runs"
                )
            time.sleep(_POLL_SECONDS)
            delivery = log.find(delivery.id) or delivery
        attempt = delivery.attempts[-1] if delivery.attempts else None
        if delivery.state is DeliveryState.DEAD:
            why = attempt.error if attempt and attempt.error else delivery.gave_up
            raise ExporterError(f"{delivery.id} was not delivered: {why}")
        if attempt is not None:
            _print(f"{delivery.id} was delivered: {attempt.status} in {attempt.duration:g} s")


def _found(known: Endpoints, endpoint_id: str) -> Endpoint:
    endpoint = known.get_many([endpoint_id]).get(endpoint_id)
    if endpoint is None:
        raise _unknown(endpoint_id)
    return endpoint


def _unknown(endpoint_id: str) -> ExporterError:
    return ExporterError(
        f"no endpoint has the id {endpoint_id!r}; `exporter endpoints list --user U` shows them"
    )


def _events(endpoint: Endpoint) -> str:
    return "\n".join(endpoint.events) if endpoint.registered else "those of exports that name it"


def _state(endpoint: Endpoint) -> str:
    if endpoint.disabled_at is not None:
        return f"disabled {endpoint.disabled_at:%Y-%m-%d %H:%M} ({endpoint.disabled_reason})"
    if endpoint.failing_since is not None:
        return f"failing since {endpoint.failing_since:%Y-%m-%d %H:%M}"
    return "enabled"


def _print(text: str) -> None:
    out.print(text, highlight=False, soft_wrap=True, markup=False)


def _endpoints() -> Endpoints:
    from exporter import settings, wiring

    store = local_stack.open_store()
    return wiring.endpoints(settings.load(), store.client)
