"""The command that receives webhooks on this machine, which the service cannot reach."""

from __future__ import annotations

import json
import signal
import ssl
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from ipaddress import ip_network
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from exporter.cli.console import err, out, print_warning, report_errors
from exporter.cli.exports import AsJson, Key, Url, print_json
from exporter.errors import ExporterError

if TYPE_CHECKING:
    from exporter.client import Delivery, Exporter, Listener, TakenWebhook
    from exporter.webhooks.sender import Outcome, Sender

RETRY_SECONDS = 1.0
"""Pause before a service that does not answer is asked again."""
MIN_TAKE_SECONDS = 1.0
"""A take that ends sooner without a webhook did not wait: the service has too many that wait."""
_EVERYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))
_OURS = frozenset(
    {"host", "content-length", "connection", "webhook-id", "webhook-timestamp", "webhook-signature"}
)


def listen(
    forward_to: Annotated[
        str,
        typer.Option(
            metavar="URL", help="Server that gets the webhooks, such as localhost:3000/hook."
        ),
    ],
    events: Annotated[
        list[str] | None,
        typer.Option(
            help="Events, such as export.finished or 'export.*'; with commas between, or "
            "repeatedly. Default: all but export.progress."
        ),
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(help="'NAME: TEXT' to send as well; repeatable.")
    ] = None,
    skip_verify: Annotated[
        bool, typer.Option("--skip-verify", help="Accept any certificate of the server.")
    ] = False,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Forward the webhooks of your exports to a server on this machine, until Ctrl-C.

    They are signed with the secret that is printed first. What the server answers is reported:
    another status than 2xx is a failed attempt, which is repeated later.
    """
    from exporter.cli import remote

    with report_errors():
        target = _Target(forward_to, header or [], skip_verify=skip_verify)
        wanted = _names(events) if events else None
        # A supervisor's SIGTERM ends it like Ctrl-C, with the listener deleted.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with remote.connected(url, key) as exporter:
            _Forwarding(exporter, target, wanted, _show_json if as_json else _show).run()


class _Target:
    """The server on this machine, and what is sent to it beside the webhook."""

    def __init__(self, url: str, headers: Sequence[str], *, skip_verify: bool) -> None:
        from exporter.clock import SystemClock
        from exporter.webhooks import private
        from exporter.webhooks.sender import Sender

        self._url = url if "://" in url else f"http://{url}"
        self._headers = dict(map(_header, headers))
        guard = private.guard(_EVERYWHERE, allow_http=True)
        self.origin = guard.check(self._url).origin
        self._sender: Sender = Sender(
            guard, SystemClock(), tls=_unverified() if skip_verify else None
        )

    def send(self, taken: TakenWebhook) -> Outcome:
        """Sends a webhook as the service would, with the headers of the command added."""
        headers = {**self._headers, **taken.headers}
        return self._sender.send(self._url, headers, taken.body.encode())


class _Forwarding:
    """Takes webhooks and forwards them, whatever happens to the service."""

    def __init__(
        self,
        exporter: Exporter,
        target: _Target,
        events: Sequence[str] | None,
        show: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._exporter, self._target, self._events, self._show = exporter, target, events, show
        self._listener: Listener | None = None

    def run(self) -> None:
        """Forwards until Ctrl-C, and then deletes the listener."""
        from exporter.client import ClientError

        self._listen()
        try:
            while True:
                self._forward_next()
        except KeyboardInterrupt:
            pass
        finally:
            # The service deletes it otherwise, when its time is over.
            if self._listener is not None:
                try:
                    self._exporter.delete_listener(self._listener.id)
                except ClientError as error:
                    print_warning(f"the listener was not deleted, and ends by itself: {error}")

    def _listen(self) -> None:
        text = f"exporter listen, to {self._target.origin}"
        made = self._exporter.create_listener(events=self._events, description=text)
        self._listener = made
        self._show(
            {
                "listener": made.id,
                "secret": made.secret,
                "events": made.events,
                "forward_to": self._target.origin,
            }
        )

    def _forward_next(self) -> None:
        """Forwards the next webhook, if there is one in half a minute."""
        began = time.monotonic()
        taken = self._persist(self._take)
        if taken is not None:
            outcome = self._target.send(taken)
            self._report(taken, outcome)
        elif time.monotonic() - began < MIN_TAKE_SECONDS:
            time.sleep(RETRY_SECONDS)

    def _take(self) -> TakenWebhook | None:
        from exporter.client import NotFound

        if self._listener is None:
            self._listen()
        assert self._listener is not None
        try:
            return self._exporter.take_webhook(self._listener.id)
        except NotFound:
            print_warning(
                f"the service has deleted the listener {self._listener.id}, with the webhooks that"
                " waited: another one is made, with another secret"
            )
            self._listener = None
            return None

    def _persist(self, work: Callable[[], TakenWebhook | None]) -> TakenWebhook | None:
        """Returns what `work` returns; tries it again while the service does not answer."""
        from exporter.client import ConnectionFailed, QuotaExceeded, ServerFailed

        is_silent = False
        while True:
            try:
                found = work()
            except (ConnectionFailed, QuotaExceeded, ServerFailed) as error:
                if not is_silent:
                    print_warning(f"{error}; trying again until it answers")
                is_silent = True
                time.sleep(RETRY_SECONDS)
                continue
            if is_silent:
                err.print("the service answers again", highlight=False)
            return found

    def _report(self, taken: TakenWebhook, outcome: Outcome) -> None:
        """Reports an outcome and shows it; a report that is lost is no reason to end."""
        from exporter.client import ClientError

        delivery: Delivery | None = None
        try:
            delivery = self._exporter.acknowledge(
                taken,
                outcome.status,
                ms=round(outcome.duration * 1000, 1),
                excerpt=outcome.excerpt.decode("utf-8", "replace"),
                error=outcome.error or "",
                retry_after=outcome.retry_after,
            )
        except ClientError as error:
            print_warning(f"the outcome was not reported, so this webhook comes again: {error}")
        self._show(
            {
                "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "type": taken.type,
                "export_id": taken.export_id,
                "status": outcome.status,
                "ms": round(outcome.duration * 1000, 1),
                "error": outcome.error,
                "state": delivery.state if delivery else None,
                "next_at": delivery.next_at if delivery else None,
                "webhook_id": taken.headers.get("webhook-id"),
                "payload": json.loads(taken.body),
            }
        )


def _show_json(facts: Mapping[str, Any]) -> None:
    print_json(dict(facts))
    sys.stdout.flush()


def _show(facts: Mapping[str, Any]) -> None:
    """Prints the start, or one webhook, in one line."""
    if "secret" in facts:
        _print(f"secret {facts['secret']}")
        _print(f"forwarding {', '.join(facts['events'])} to {facts['forward_to']}; Ctrl-C ends it")
        return
    at = datetime.fromisoformat(facts["at"]).astimezone()
    status = "no answer" if facts["status"] is None else facts["status"]
    line = f"{at:%H:%M:%S}  {facts['type']:<16}  {status}  {facts['ms']:.0f} ms"
    if facts["export_id"]:
        line += f"  {facts['export_id']}"
    if facts["error"]:
        line += f"  {facts['error']}"
    if facts["next_at"]:
        again = datetime.fromisoformat(facts["next_at"]).astimezone()
        line += f"; again at {again:%H:%M:%S}"
    elif facts["state"] == "dead":
        line += "; given up"
    _print(line)


def _print(text: str) -> None:
    out.print(Text(text), soft_wrap=True)


def _names(patterns: Sequence[str]) -> list[str]:
    """Returns the events that the patterns mean; an unknown name is left to the service."""
    from exporter.core.events import EVENTS

    found: dict[str, None] = {}
    for pattern in (part.strip() for text in patterns for part in text.split(",")):
        if "*" in pattern:
            matching = [name for name in EVENTS if fnmatchcase(name, pattern)]
            if not matching:
                raise ExporterError(
                    f"--events {pattern} matches no event: give some of {', '.join(EVENTS)}"
                )
            found.update(dict.fromkeys(matching))
        elif pattern:
            found[pattern] = None
    return list(found)


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _header(text: str) -> tuple[str, str]:
    name, colon, value = (part.strip() for part in text.partition(":"))
    is_token = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    if not colon or not is_token or not (value.isascii() and (value.isprintable() or not value)):
        raise ExporterError(f"--header {text!r} is not 'NAME: TEXT' in ASCII")
    if name.lower() in _OURS:
        raise ExporterError(f"--header {name} cannot be set: the webhook itself has it")
    return name, value
