"""The commands use the local stack in `.exporter` if no setting says what else is meant."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from exporter import settings
from exporter.cli.console import DATA_DIR, err
from exporter.errors import ExporterError
from exporter.local import running
from exporter.local.running import Condition, Description

if TYPE_CHECKING:
    from exporter.store.redis.store import RedisStore

ADDRESSES = (
    "EXPORTER_REDIS_URL",
    "EXPORTER_BROKER_URL",
    "EXPORTER_S3_ENDPOINT_URL",
    "EXPORTER_S3_PUBLIC_ENDPOINT_URL",
    "EXPORTER_S3_BUCKET",
    "EXPORTER_PUBLIC_URL",
)
"""Variables that say which service is meant.

If one of them is set, the local stack is not used, because a mixture of two services would be: the
cleanup of a bucket deletes files that the records in Redis do not name.
"""
_DEFAULT_URL = "http://127.0.0.1:8800"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_KEY_FILE = "api_key"
_CONDITIONS = {
    Condition.STOPPED: "is not running: start it with `exporter up`",
    Condition.STARTING: "is still starting: wait until `exporter up` says that all is ready",
    Condition.ABSENT: "does not exist: make it with `exporter up`",
}


def use(environ: MutableMapping[str, str] | None = None) -> None:
    """Sets the variables of the local stack that runs in `.exporter`, unless an address is set.

    A line on stderr says so, or says why the stack is not used. Call it before the settings are
    read.
    """
    own = os.environ if environ is None else environ
    set_names = _set_addresses(own)
    if ADDRESSES[0] in set_names:
        return
    found = running.find(DATA_DIR)
    if found.condition is Condition.ABSENT:
        return
    if set_names:
        _say(f"not using the local stack in {DATA_DIR}, because {set_names[0]} is set")
    elif found.description is None:
        _say(f"the local stack in {DATA_DIR} {_CONDITIONS[found.condition]}, or set {ADDRESSES[0]}")
    else:
        _say(f"using the local stack in {DATA_DIR} ({ADDRESSES[0]} is not set)")
        _adopt(found.description, own)


def open_store() -> RedisStore:
    """Returns the store of the settings; default: that of the running local stack.

    Raises ConfigurationError if its records are of another version, StoreUnavailable if Redis does
    not answer.
    """
    from exporter.store.redis import schema
    from exporter.store.redis.keys import KeyNames
    from exporter.store.redis.store import RedisStore

    use()
    own = settings.load()
    store = RedisStore.connect(own.redis_url, KeyNames(own.redis_prefix))
    schema.check(store.client, store.names)
    return store


def service_url(given: str | None) -> str:
    """Returns the URL that was given, else that of the running local stack, else the default.

    A line on stderr says that the local stack is used, or that it is not running.
    """
    if given is not None:
        return given
    if _set_addresses(os.environ):
        return _DEFAULT_URL
    found = running.find(DATA_DIR)
    if found.description is not None:
        _say(f"using the local stack in {DATA_DIR} (EXPORTER_PUBLIC_URL is not set)")
        return found.description.url
    if found.condition is not Condition.ABSENT:
        _say(f"the local stack in {DATA_DIR} {_CONDITIONS[found.condition]}, or give --url")
    return _DEFAULT_URL


def api_key(url: str) -> str:
    """Returns the API key of the local stack, for a service on this machine.

    Raises ExporterError if there is none; another machine must not get this key.
    """
    try:
        if urlsplit(url).hostname in _LOOPBACK:
            return (DATA_DIR / _KEY_FILE).read_text("utf-8").strip()
    except (OSError, ValueError):
        pass
    raise ExporterError("no API key: set EXPORTER_API_KEY or give --key")


def shell_lines(folder: Path) -> Iterator[str]:
    """Yields commands for a POSIX shell that set the variables of the stack of the folder.

    Raises ExporterError if it is not running.
    """
    found = running.find(folder)
    if found.description is None:
        raise ExporterError(f"the local stack in {folder} {_CONDITIONS[found.condition]}")
    environment = dict(found.description.environment)
    key = folder / _KEY_FILE
    if key.exists():
        environment["EXPORTER_API_KEY"] = key.read_text("utf-8").strip()
    # A profile or session token would take precedence over the key of the stack.
    others = [name for name in os.environ if _is_aws(name) and name not in environment]
    if others:
        yield f"unset {' '.join(sorted(others))}"
    for name, value in sorted(environment.items()):
        yield f"export {name}={shlex.quote(value)}"


def _adopt(description: Description, environ: MutableMapping[str, str]) -> None:
    for name in [name for name in environ if _is_aws(name)]:
        del environ[name]
    for name, value in description.environment.items():
        if name == "EXPORTER_CONFIG":
            environ.setdefault(name, value)
        else:
            environ[name] = value
    settings.load.cache_clear()


def _set_addresses(environ: MutableMapping[str, str]) -> list[str]:
    """Returns the addresses that are set; settings ignore case, and blank means not set."""
    given = {name.upper() for name, value in environ.items() if value.strip()}
    return [name for name in ADDRESSES if name in given]


def _is_aws(name: str) -> bool:
    return name.upper().startswith("AWS_") and name.upper() != "AWS_CA_BUNDLE"


def _say(text: str) -> None:
    err.print(text, highlight=False, soft_wrap=True, markup=False)
