"""The doctor names what it finds at a broker of its own."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import pytest
import redis
from redis.exceptions import NoPermissionError

from exporter.cli import doctor
from exporter.settings import Settings


class Broker:
    """A Redis of one version, or one whose user may not ask for it."""

    def __init__(self, version: str | None) -> None:
        self._version = version

    def ping(self) -> bool:
        return True

    def info(self, section: str) -> Mapping[str, str]:
        if self._version is None:
            raise NoPermissionError("this user has no permissions to run 'info'")
        return {"redis_version": self._version}


@pytest.mark.parametrize(
    ("version", "found"),
    [
        ("6.2.14", "answers; Redis 6.2.14 is older than 6.2.20"),
        ("8.2.2", "answers"),
        (None, "answers"),
    ],
)
def test_a_broker_with_known_security_holes_is_named(
    monkeypatch: pytest.MonkeyPatch, version: str | None, found: str
) -> None:
    # Given
    def connect(url: str, **kwargs: Any) -> Any:
        return nullcontext(Broker(version))

    monkeypatch.setattr(redis.Redis, "from_url", connect)

    # When
    answer = doctor._broker(Settings())

    # Then
    assert answer.startswith(found)
    assert ("security holes" in answer) == (version == "6.2.14")
