"""The scripts that Redis runs, each behind the functions and names that all of them share."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources

import redis
from redis.commands.core import Script

_FOLDER = resources.files(__package__).joinpath("scripts")


def load(client: redis.Redis, name: str) -> Script:
    """The script of that name behind `common.lua`; Redis is not contacted yet."""
    return client.register_script(_text("common") + _text(name))


def load_for_webhooks(client: redis.Redis, name: str) -> Script:
    """The script of that name in the folder of webhooks, behind both `common.lua`."""
    return client.register_script(
        _text("common") + _text("webhooks/common") + _text(f"webhooks/{name}")
    )


def words(names: Iterable[str]) -> str:
    """Names as the scripts look for one: each with a space at both sides.

    >>> words(["export.queued", "export.finished"])
    ' export.queued export.finished '
    """
    return f" {' '.join(names)} "


def load_alone(client: redis.Redis, name: str) -> Script:
    """The script of that name, which knows nothing of exports."""
    return client.register_script(_text(name))


def _text(name: str) -> str:
    return _FOLDER.joinpath(f"{name}.lua").read_text("utf-8")
