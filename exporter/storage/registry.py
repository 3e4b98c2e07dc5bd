"""The registry of destinations, by the scheme of their URL.

To add a destination:

1. Write a module in `exporter/storage/` with a class that has the methods of `base.Storage`, and
   with a class that has those of `base.FileWriter`. A file is expressed in bytes and positions:
   parts of S3, blocks of Azure or an offset in a file of SFTP are up to the destination.
2. Add a line to `DESTINATIONS`: a call that gets the URL, the settings, of which it reads its own,
   and the clock of its retries.

The contract suite in `tests/contract/storage` then runs on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from exporter.clock import Clock
from exporter.errors import ConfigurationError
from exporter.storage import memory
from exporter.storage.base import Storage
from exporter.storage.s3 import storage as s3

DESTINATIONS: dict[str, Callable[[str, Any, Clock], Storage]] = {
    "s3": s3.connect,
    "memory": memory.connect,
}


def connect(url: str, settings: object, clock: Clock) -> Storage:
    """Returns the destination of a URL, without a request.

    Raises ConfigurationError for an unknown scheme.
    """
    scheme = urlsplit(url).scheme
    if scheme not in DESTINATIONS:
        names = ", ".join(DESTINATIONS)
        raise ConfigurationError(f"{scheme!r} is no destination of files: give one of {names}")
    return DESTINATIONS[scheme](url, settings, clock)
