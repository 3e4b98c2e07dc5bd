"""The `exporter keys` commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.markup import escape
from rich.table import Table

from exporter.cli import local_stack
from exporter.cli.console import err, out, report_errors
from exporter.errors import ExporterError

if TYPE_CHECKING:
    from exporter.core.plans import Balance, Plan
    from exporter.core.rates import Rate

keys = typer.Typer(help="API keys: shown once, stored hashed.", no_args_is_help=True)

Granted = Annotated[
    str | None,
    typer.Option("--credits", metavar="N", help="Records it may export: a number, or 'unlimited'."),
]
Features = Annotated[
    list[str] | None,
    typer.Option(
        "--feature",
        metavar="F",
        help="export, search, expired (postings), bulk or pipeline; repeat for several. "
        "'all': all features, including those of later versions.",
    ),
]
Ceiling = Annotated[
    int | None,
    typer.Option("--max-priority", min=0, max=9, help="Highest priority of its exports."),
]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=VALUE",
        help="A limit of deploy/LIMITS.md, such as queued_exports=500 (0: unlimited) or "
        "create_rate=100/60s; 'default' as the value: that of the settings. Repeat for several.",
    ),
]
Slices = Annotated[
    int | None,
    typer.Option(
        "--concurrency",
        min=0,
        help="Slices of its user at once; further slices wait. 0: unlimited.",
    ),
]


@keys.command("create")
def create(
    user: Annotated[str, typer.Option(help="The user that the key authenticates.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="read, write or operator; repeat for several. Default: read and write."),
    ] = None,
    name: Annotated[str, typer.Option(help="A note: what the key is for.")] = "",
    balance: Granted = None,
    feature: Features = None,
    max_priority: Ceiling = None,
    concurrency: Slices = None,
    limit: Limits = None,
) -> None:
    """Create a key and print it; it cannot be shown again.

    The key is unlimited except for the options given.
    """
    from exporter.core.plans import Plan
    from exporter.store.redis.api_keys import DEFAULT_SCOPES, KeyRing

    with report_errors():
        plan = Plan(
            key_id=None,
            features=_features(feature),
            priority_ceiling=9 if max_priority is None else max_priority,
            concurrency=concurrency or 0,
            limits={name: one for name, one in _limits(limit).items() if one is not None},
        )
        _, left = _credits(balance or "unlimited")
        store = local_stack.open_store()
        ring = KeyRing(store.client, store.names)
        secret = ring.create(user, tuple(scope or DEFAULT_SCOPES), name, plan=plan, balance=left)
        out.print(secret, highlight=False, soft_wrap=True)


@keys.command("list")
def list_() -> None:
    """Show the ids and plans of all keys that are not revoked; without the keys themselves."""
    from exporter.store.redis.api_keys import KeyRing
    from exporter.store.redis.credit_accounts import Credits

    table = Table("id", "user", "scopes", "name", "created", "plan")
    with report_errors():
        store = local_stack.open_store()
        accounts = Credits(store.client, store.names)
        for key in KeyRing(store.client, store.names).list():
            plan = "\n".join(_terms(key.plan, accounts.balance(key.id)))
            created = f"{key.created_at:%Y-%m-%d}"
            cells = key.id, key.user_id, " ".join(key.scopes), key.name, created, plan
            table.add_row(*map(escape, cells))
    out.print(table)


@keys.command("set")
def set_(
    key_id: Annotated[str, typer.Argument(help="The id that `list` shows.")],
    balance: Annotated[
        str | None,
        typer.Option(
            "--credits",
            metavar="N",
            help="Records it may export from now on: a number, 'unlimited', or +N for N more.",
        ),
    ] = None,
    feature: Features = None,
    max_priority: Ceiling = None,
    concurrency: Slices = None,
    limit: Limits = None,
) -> None:
    """Change a key's plan; options that are not given keep their value.

    Exports that are running keep the plan that they were created with.
    """
    from msgspec import UNSET

    from exporter.store.redis.api_keys import KeyRing
    from exporter.store.redis.credit_accounts import Credits

    with report_errors():
        if not (balance or feature or limit) and max_priority is None and concurrency is None:
            raise ExporterError(
                "nothing to change: give --credits, --feature, --max-priority, --concurrency or"
                " --limit"
            )
        more, amount = _credits(balance) if balance is not None else (True, 0)
        store = local_stack.open_store()
        ring, accounts = KeyRing(store.client, store.names), Credits(store.client, store.names)
        known = ring.set(
            key_id,
            features=_features(feature) if feature else UNSET,
            priority_ceiling=max_priority,
            concurrency=concurrency,
            limits=_limits(limit),
        )
        if not known:
            raise ExporterError(f"no key has the id {key_id!r}; `exporter keys list` shows them")
        if not more:
            accounts.set(key_id, amount)
        elif amount:
            accounts.add(key_id, amount)
    err.print(f"changed {key_id}")


@keys.command("revoke")
def revoke(key_id: Annotated[str, typer.Argument(help="The id that `list` shows.")]) -> None:
    """Revoke a key: requests with this key are refused from now on."""
    from exporter.store.redis.api_keys import KeyRing

    with report_errors():
        store = local_stack.open_store()
        if not KeyRing(store.client, store.names).revoke(key_id):
            raise ExporterError(f"no key has the id {key_id!r}; `exporter keys list` shows them")
    err.print(f"revoked {key_id}")


def _credits(text: str) -> tuple[bool, int | None]:
    """Parses a number of credits: returns True for an addition (`+500`), and the number.

    The number is None for `unlimited`. Raises ExporterError for an invalid text.
    """
    if text == "unlimited":
        return False, None
    if not re.fullmatch(r"\+?[0-9]{1,15}", text):
        raise ExporterError(
            f"--credits {text}: give a number such as 500, 'unlimited', or for an existing key"
            " +500 to add to its balance"
        )
    return text.startswith("+"), int(text)


def _limits(texts: list[str] | None) -> dict[str, int | Rate | None]:
    """Returns the limits by name; None for `default`."""
    from exporter.environment.values import parse_rate

    found: dict[str, int | Rate | None] = {}
    for text in texts or ():
        name, _, value = text.partition("=")
        if name in found:
            raise ExporterError(f"--limit {name} is given twice: give it once")
        try:
            if value == "default":
                found[name] = None
            elif "/" in value:
                found[name] = cast("Rate", parse_rate(value))
            else:
                found[name] = int(value)
        except ValueError:
            raise ExporterError(
                f"--limit {text}: give a name and a value, such as queued_exports=500,"
                " create_rate=100/60s or queued_exports=default"
            ) from None
    return found


def _features(names: list[str] | None) -> frozenset[str] | None:
    if names and "all" in names and len(set(names)) > 1:
        raise ExporterError("--feature all has every other feature already: give all alone")
    return None if not names or "all" in names else frozenset(names)


def _terms(plan: Plan, balance: Balance) -> Iterator[str]:
    """Yields texts about a key: its balance, and each limit of its plan."""
    if balance.left is None:
        yield f"unlimited, {balance.used} used"
    else:
        yield f"{balance.left} credits left, {balance.used} used, {balance.reserved} reserved"
    if plan.features is not None:
        yield f"only {', '.join(sorted(plan.features))}"
    if plan.priority_ceiling < 9:
        yield f"priority {plan.priority_ceiling} at most"
    if plan.concurrency:
        yield f"{plan.concurrency} slices at once"
    for name, value in sorted(plan.limits.items()):
        yield f"{name} {value}"
